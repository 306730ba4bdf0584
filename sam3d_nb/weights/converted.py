"""What a converted model is: its configuration file, and the tensors that each of its files has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.config import ModelConfig, from_json, to_json
from sam3d_nb.weights.folder import SAM3D, Manifest, check_files, read_json, read_manifest
from sam3d_nb.weights.parts import PARTS, build_empty, vision_places
from sam3d_nb.weights.tensorfile import Entry, entry_of, read_header

CONFIG = "config.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

FLOATS = ("F16", "BF16", "F32")

Vision = Mapping[str, Mapping[str, str]]
"""Embedder → place in it → piece, such as vision_0: which DINOv2 networks are one."""


@dataclass(frozen=True)
class Source:
    """A published file that weights were converted from. revision: commit, empty if unknown."""

    repository: str
    revision: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Converted:
    """Content of `config.json`. kind: official, local or stand-in, see `store.Origin`."""

    config: ModelConfig
    dtype: str
    vision: Vision
    kind: str
    version: str
    sources: tuple[Source, ...] = ()
    accepted: tuple[str, ...] = ()  # published settings that were taken as the released ones

    def entries(self) -> dict[str, dict[str, Entry]]:
        """Return what each file has: piece → tensor name → dtype and shape."""
        return piece_entries(self.config, DTYPES[self.dtype], self.vision)

    def pieces(self) -> set[str]:
        """Return the names of the files, without suffix."""
        return {*PARTS, *(piece for places in self.vision.values() for piece in places.values())}

    def as_json(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return {
            **asdict(self),
            "config": to_json(self.config),
            "vision": {name: dict(places) for name, places in self.vision.items()},
        }


def piece_entries(
    config: ModelConfig, dtype: torch.dtype, vision: Vision
) -> dict[str, dict[str, Entry]]:
    """Return what each piece of the model has, from the networks themselves.

    A piece is a network without its DINOv2 networks, or a DINOv2 network.
    """
    pieces: dict[str, dict[str, Entry]] = {}
    for name in PARTS:
        own = dict(_part_entries(name, config, dtype))
        for place in vision_places(name, config):
            start = f"{place}."
            names = [key for key in own if key.startswith(start)]
            pieces[vision[name][place]] = {key.removeprefix(start): own.pop(key) for key in names}
        pieces[name] = own
    return pieces


@lru_cache(maxsize=len(PARTS))
def _part_entries(name: str, config: ModelConfig, dtype: torch.dtype) -> Mapping[str, Entry]:
    state = build_empty(name, config, dtype).state_dict()
    return {key: entry_of(tensor) for key, tensor in state.items()}


def file_of(piece: str) -> str:
    """Return the name of the file that holds a piece."""
    return f"{piece}.safetensors"


def read_converted(folder: Path, model: str = SAM3D) -> tuple[Converted, Manifest]:
    """Return what is in the folder of a converted `model`; checks sizes, not hashes.

    Raises WeightsError where something is missing, damaged or of another version.
    """
    manifest = read_manifest(folder, model)
    check_files(folder, manifest)
    if CONFIG not in manifest.files:
        raise WeightsError(f"{folder / 'manifest.json'} is damaged: it has no {CONFIG}")
    converted = converted_from_json(read_json(folder / CONFIG), folder / CONFIG)
    missing = set(map(file_of, converted.pieces())) - set(manifest.files)
    if missing:
        raise WeightsError(f"{folder}: the files {sorted(missing)} are not in the manifest")
    return converted, manifest


def converted_from_json(data: Any, path: Path) -> Converted:
    """Return the content of a `config.json`; raises WeightsError where it is not one."""
    try:
        values = dict(data)
        config = from_json(values.pop("config"))
        sources = tuple(Source(**source) for source in values.pop("sources"))
        accepted = tuple(map(str, values.pop("accepted")))
        published = values.pop("vision")
        vision = {
            name: {place: str(published[name][place]) for place in places}
            for name in PARTS
            if (places := vision_places(name, config))
        }
        converted = Converted(config, vision=vision, sources=sources, accepted=accepted, **values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    if converted.dtype not in DTYPES:
        raise WeightsError(f"{path} is damaged: there is no dtype {converted.dtype!r}")
    return converted


def check_piece(path: Path, entries: Mapping[str, Entry], *, exact: bool = True) -> None:
    """Check names, shapes and dtypes of one file by its header; raises WeightsError.

    Without `exact` any floating-point dtype will do.
    """
    found = read_header(path)

    def fits(a: Entry | None, b: Entry | None) -> bool:
        if exact or a is None or b is None:
            return a == b
        return a.shape == b.shape and a.dtype in FLOATS

    for name in sorted(found.keys() | entries.keys()):
        stored, expected = found.get(name), entries.get(name)
        if not fits(stored, expected):
            raise WeightsError(
                f"{path} does not fit its configuration: {name} is {stored} instead of {expected}"
            )
