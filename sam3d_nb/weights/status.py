"""Which models have their weights on this machine, and the next thing to do for those without."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.folder import (
    DOWNLOADS,
    MANIFEST,
    SAM3,
    SAM3D,
    check_files,
    read_json,
    read_manifest,
    tree_bytes,
    weights_folder,
)

GB = 1e9
PARTIAL = f".{SAM3D}.partial"
REPOSITORIES = {SAM3D: ("facebook/sam-3d-objects", "Ruicheng/moge-vitl"), SAM3: ("facebook/sam3",)}


@dataclass(frozen=True)
class ModelStatus:
    """Weights of one model. found: what is there. advice: the one next thing, empty if ready."""

    name: str
    ready: bool
    found: str
    advice: str
    folder: Path


def weights_status(folder: str | Path | None = None) -> list[ModelStatus]:
    """Return the state of every model with weights of its own.

    Takes milliseconds, uses no network, loads no torch and raises nothing about the weights. Sizes
    are checked, hashes are not.
    """
    return [model_status(name, folder) for name in REPOSITORIES]


def model_status(name: str, folder: str | Path | None = None) -> ModelStatus:
    """Return the state of the model `name`."""
    root = weights_folder(folder)
    place = root / name
    get = _download_command(name, folder)
    if os.path.lexists(place):
        try:
            manifest = read_manifest(place, name)
            check_files(place, manifest)
            found = f"{manifest.bytes / GB:.1f} GB in {place}"
            if name == SAM3D:
                config = read_json(place / "config.json")
                found = f"{config['kind']} weights, {config['dtype']}, {found}"
        except (WeightsError, KeyError, TypeError) as error:
            advice = f"get it anew: sam3d-nb weights remove --model {name}{_option(folder)}"
            return ModelStatus(name, False, f"damaged: {error}", f"{advice}, then {get}", place)
        return ModelStatus(name, True, found, "", place)
    started = sum(tree_bytes(root / DOWNLOADS / _slug(r)) for r in REPOSITORIES[name])
    if name == SAM3D and (root / PARTIAL / MANIFEST).parent.is_dir():
        return ModelStatus(name, False, "the conversion was interrupted", f"resume: {get}", place)
    if started:
        found = f"the download was interrupted at {started / GB:.1f} GB"
        return ModelStatus(name, False, found, f"resume: {get}", place)
    first = REPOSITORIES[name][0]
    advice = f"accept the terms at https://huggingface.co/{first} and get it: {get}"
    return ModelStatus(name, False, "no weights", advice, place)


def _download_command(name: str, folder: str | Path | None) -> str:
    return f"sam3d-nb weights download{' --sam3' if name == SAM3 else ''}{_option(folder)}"


def _option(folder: str | Path | None) -> str:
    return "" if folder is None else f" --folder {folder}"


def _slug(repository: str) -> str:
    """Return the name of the folder below `downloads` for a repository."""
    return repository.partition("/")[2]
