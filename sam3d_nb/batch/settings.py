"""What decides the files of an object besides its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sam3d_nb import __version__
from sam3d_nb.errors import InputError
from sam3d_nb.mesh.finish import AS_MADE, Finishing, check_finishing
from sam3d_nb.pipeline import Model
from sam3d_nb.runs import check_formats

LAYOUT = 1
"""Version of the files' names and contents."""
PLACE = ("device", "accelerated")
"""What a model tells about where it runs: an object made elsewhere is made."""


@dataclass(frozen=True)
class Settings:
    """The same for all objects of a batch.

    formats: of the files. options: what else `reconstruct` of the model takes. finishing: what is
    done with each mesh before it is written. Raises InputError for an unknown format, and unless
    the seed is a whole number from 0 to 2^63 - 1.
    """

    seed: int = 0
    formats: tuple[str, ...] = ("glb",)
    options: Mapping[str, Any] = field(default_factory=dict)
    finishing: Finishing = AS_MADE

    def __post_init__(self) -> None:
        check_formats(self.formats)
        check_finishing(self.finishing)
        if check_number("seed", self.seed, 0) >= 2**63:
            raise InputError(f"a seed is a whole number from 0 to 2^63 - 1 but got {self.seed}")


@dataclass(frozen=True)
class Identity:
    """The model of a worker. decided: what `Model.deciding` says. place: the worker's machine."""

    name: str
    version: str
    decided: Mapping[str, Any]
    device: str = "cpu"
    package: str = __version__

    def deciding(self) -> dict[str, Any]:
        """Return what decides results: equal identities make equal objects."""
        decided = {name: value for name, value in self.decided.items() if name not in PLACE}
        return {"model": self.name, "version": self.version, "package": self.package, **decided}


def identify(model: Model, settings: Settings) -> Identity:
    """Return who `model` is; raises InputError where it has no such option."""
    decided = model.deciding(**settings.options)
    return Identity(model.name, model.version, decided, str(decided.get("device", "cpu")))


def object_key(identity: Identity, settings: Settings, inputs_sha256: str) -> str:
    """Return the hash of all that decides the files of an object."""
    about = {
        "layout": LAYOUT,
        "identity": identity.deciding(),
        "seed": settings.seed,
        "formats": sorted(settings.formats),
        "inputs": inputs_sha256,
    }
    if settings.finishing:  # without, keys are those of versions that had none
        about["finishing"] = asdict(settings.finishing)
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def check_number(name: str, value: Any, least: int) -> int:
    """Return a whole number from `least` on; raises InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is a whole number from {least} on, but got {value!r}")
    return value
