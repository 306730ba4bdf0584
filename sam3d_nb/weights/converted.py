"""What a converted model is: its configuration file, and the tensors that each of its files has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
        state = build_empty(name, config, dtype).state_dict()
        own = {key: entry_of(tensor) for key, tensor in state.items()}
        for place in vision_places(name, config):
            start = f"{place}."
            names = [key for key in own if key.startswith(start)]
            pieces[vision[name][place]] = {key.removeprefix(start): own.pop(key) for key in names}
        pieces[name] = own
    return pieces


def file_of(piece: str) -> str:
    """Return the name of the file that holds a piece."""
    return f"{piece}.safetensors"


def read_converted(folder: Path) -> tuple[Converted, Manifest]:
    """Return what is in a converted model's folder; checks sizes, not hashes.

    Raises WeightsError where something is missing, damaged or of another version.
    """
    manifest = read_manifest(folder, SAM3D)
    check_files(folder, manifest)
    if CONFIG not in manifest.files:
        raise WeightsError(f"{folder / 'manifest.json'} is damaged: it has no {CONFIG}")
    converted = converted_from_json(read_json(folder / CONFIG), folder / CONFIG)
    missing = {file_of(piece) for piece in converted.entries()} - set(manifest.files)
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
        converted = Converted(config=config, sources=sources, accepted=accepted, **values)
        places = {
            (name, place): converted.vision[name][place]
            for name in PARTS
            for place in vision_places(name, config)
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    if converted.dtype not in DTYPES or any(type(v) is not str for v in places.values()):
        raise WeightsError(f"{path} is damaged: dtype or vision are not what they should be")
    return converted


def check_piece(path: Path, entries: Mapping[str, Entry]) -> None:
    """Check names, shapes and dtypes of one file by its header; raises WeightsError."""
    found = read_header(path)
    for name in sorted(found.keys() | entries.keys()):
        if found.get(name) != entries.get(name):
            raise WeightsError(
                f"{path} does not fit its configuration: {name} is {found.get(name)} instead of "
                f"{entries.get(name)}"
            )
