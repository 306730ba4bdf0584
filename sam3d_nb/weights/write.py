"""Writing a model's folder: tensor by tensor, resumable, verified before it gets its name."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.config import ModelConfig
from sam3d_nb.weights.converted import (
    CONFIG,
    DTYPES,
    Converted,
    Vision,
    check_piece,
    file_of,
    read_converted,
)
from sam3d_nb.weights.folder import (
    SAM3D,
    FileRecord,
    check_hashes,
    hash_file,
    read_json,
    remove_tree,
    write_json,
    write_manifest,
)
from sam3d_nb.weights.parts import PARTS, vision_places
from sam3d_nb.weights.status import PARTIAL
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.tensorfile import Entry, write_tensors

PROGRESS = "progress.json"

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done and bytes in all."""


def silent(text: str, done: int, total: int) -> None:
    """Show nothing."""


def find_shared(config: ModelConfig, tensors: Mapping[str, Mapping[str, Tensor]]) -> Vision:
    """Tell which DINOv2 networks are equal in all their tensors and can be stored once."""
    distinct: list[tuple[str, dict[str, Tensor]]] = []
    vision: dict[str, dict[str, str]] = {}
    for name in PARTS:
        for place in vision_places(name, config):
            mine = _below(tensors[name], place)
            piece = next((key for key, known in distinct if _equal(known, mine)), "")
            if not piece:
                piece = f"vision_{len(distinct)}"
                distinct.append((piece, mine))
            vision.setdefault(name, {})[place] = piece
    return vision


def _below(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    start = f"{place}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


def piece_tensors(
    piece: str, tensors: Mapping[str, Mapping[str, Tensor]], vision: Vision
) -> dict[str, Tensor]:
    """Return the tensors of a network without its DINOv2 networks, or of a DINOv2 network."""
    for name, places in vision.items():
        for place, key in places.items():
            if key == piece:
                return _below(tensors[name], place)
    inside = tuple(f"{place}." for place in vision.get(piece, ()))
    return {k: v for k, v in tensors[piece].items() if not k.startswith(inside)}


def write_model(
    converted: Converted,
    read: Callable[[str], Mapping[str, Tensor]],
    root: Path,
    *,
    extra: Mapping[str, Path] | None = None,
    on_progress: OnProgress = silent,
) -> Path:
    """Write a model's folder into `root` from what `read` returns for every piece; return it.

    extra: files to be copied, by name. Complete, verified and flushed to disk before it gets its
    name. Raises WeightsError where a tensor cannot be held in the chosen dtype.
    """
    partial, target = root / PARTIAL, root / SAM3D
    if target.is_symlink():
        raise WeightsError(f"{target} is a link; delete it, or choose another folder with --folder")
    with disk_errors(root):
        pieces = converted.entries()
        finished = _resume(partial, converted)
        total = sum(entry.bytes for entries in pieces.values() for entry in entries.values())
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            on_progress("converting", done, total)

        for piece, entries in pieces.items():
            name = file_of(piece)
            path = partial / name
            if name in finished and path.is_file() and path.stat().st_size == finished[name].bytes:
                tell(sum(entry.bytes for entry in entries.values()))
                continue
            sha256 = _write_piece(path, entries, read(piece), tell)
            finished[name] = FileRecord(path.stat().st_size, sha256)
            _save_progress(partial, converted, finished)
        for name, source in (extra or {}).items():
            shutil.copyfile(source, partial / name)
            finished[name] = _record(partial / name)
        write_json(partial / CONFIG, converted.as_json())
        finished[CONFIG] = _record(partial / CONFIG)
        write_manifest(partial, SAM3D, finished)
        try:
            verify_model(partial, on_progress)
        except WeightsError:
            remove_tree(partial)  # a disk that does not return what it was given
            raise
        (partial / PROGRESS).unlink()
        _swap(partial, target)
    return target


def _write_piece(
    path: Path,
    entries: Mapping[str, Entry],
    tensors: Mapping[str, Tensor],
    tell: Callable[[int], None],
) -> str:
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

    def produce(name: str) -> Tensor:
        tensor = tensors[name].to(kinds[entries[name].dtype])
        if not _is_finite(tensor):
            finite = _is_finite(tensors[name])
            raise WeightsError(
                f"{path.stem}: {name} has values that {entries[name].dtype} cannot hold; use "
                "--dtype bfloat16"
                if finite
                else f"{path.stem}: {name} has values that are not finite; download it again"
            )
        return tensor

    return write_tensors(path, entries, produce, tell)


def _is_finite(tensor: Tensor) -> bool:
    low, high = tensor.aminmax()  # both are NaN where anything is
    return math.isfinite(low) and math.isfinite(high)


def _record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, hash_file(path))


def _resume(partial: Path, converted: Converted) -> dict[str, FileRecord]:
    """Return the files that an interrupted run of the same conversion finished."""
    same = json.loads(json.dumps(converted.as_json()))
    try:
        progress = read_json(partial / PROGRESS)
        if progress["config"] == same:
            return {name: FileRecord(**record) for name, record in progress["files"].items()}
    except (WeightsError, KeyError, TypeError, AttributeError):
        pass  # nothing usable: begin anew
    remove_tree(partial)
    partial.mkdir(parents=True)
    _save_progress(partial, converted, {})
    return {}


def _save_progress(partial: Path, converted: Converted, finished: Mapping[str, FileRecord]) -> None:
    files = {name: asdict(record) for name, record in finished.items()}
    write_json(partial / PROGRESS, {"config": converted.as_json(), "files": files})


def verify_model(folder: Path, on_progress: OnProgress = silent) -> Converted:
    """Check a converted model: SHA-256 of every file; names, shapes and dtypes of every tensor.

    Raises WeightsError that says which file is wrong and how.
    """
    converted, manifest = read_converted(folder)
    for piece, entries in converted.entries().items():
        check_piece(folder / file_of(piece), entries)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        on_progress("verifying", done, manifest.bytes)

    check_hashes(folder, manifest, tell)
    return converted


def _swap(partial: Path, target: Path) -> None:
    """Give the finished folder its name; an older one goes only after that."""
    old = target.with_name(f".{target.name}.old")
    remove_tree(old)
    if os.path.lexists(target):
        os.replace(target, old)
    os.replace(partial, target)
    remove_tree(old)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn what a disk says no with into WeightsError."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"cannot write into {root}: {error.strerror or error}; make room there or choose "
            "another folder with --folder, then run the same command again"
        ) from error


def write_stand_in(store: StandInStore, root: Path, on_progress: OnProgress = silent) -> Path:
    """Write made-up weights as a model's folder, marked as stand-in, to time loading with."""
    tensors = {name: store.get(name, "cpu").state_dict() for name in PARTS}
    vision = find_shared(store.config, tensors)
    dtype = next(name for name, dtype in DTYPES.items() if dtype == store.dtype)
    origin = store.origin
    converted = Converted(store.config, dtype, vision, origin.kind, origin.version)
    return write_model(
        converted,
        lambda piece: piece_tensors(piece, tensors, vision),
        root,
        on_progress=on_progress,
    )
