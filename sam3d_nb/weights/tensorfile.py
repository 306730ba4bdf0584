"""Tensor files of our own folder (safetensors), checked before use and written in a stream.

The format: 8 bytes with the length of the header, the header (JSON: name → dtype, shape, place),
then the tensors one after the other without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sam3d_nb.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20  # bytes; the largest published network needs 0.2 MB
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8},
    **{"F16": 2, "BF16": 2, "F32": 4, "F64": 8},
}
METADATA = "__metadata__"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file. dtype: as the format writes it, such as F16."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the tensor in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Header(NamedTuple):
    """What a file declares: its tensors, free texts, and the first byte of each tensor."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    starts: dict[str, int]


def read_header(path: Path) -> dict[str, Entry]:
    """Return the tensors that the file declares, after checking that it can hold them.

    Raises WeightsError for anything that is not a whole and plain file of this format.
    """
    return read_whole_header(path).entries


def read_whole_header(path: Path) -> Header:
    """Return all that the file declares, checked as by `read_header`; raises WeightsError."""
    before, size, header = _read_json(path)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"{path.name} is damaged: its metadata are not texts")
    entries, starts, places = {}, {}, []
    for name, value in header.items():
        entries[name], place = _entry(path, name, value)
        starts[name] = before + place[0]
        places.append(place)
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise WeightsError(f"{path.name} is damaged: its tensors overlap or leave gaps")
        end = stop
    if end != size:
        raise WeightsError(
            f"{path.name} is truncated or damaged: it holds {size} bytes of tensors, its header "
            f"says {end}"
        )
    return Header(entries, metadata, starts)


def _read_json(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Return how many bytes come before the tensors, how many they take, and the header."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"{path.name} is no plain file")
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, status.st_size - 8):
                raise WeightsError(
                    f"{path.name} is truncated or no safetensors file: its header would be "
                    f"{length} bytes of {status.st_size}"
                )
            header = json.loads(file.read(length), object_pairs_hook=_distinct)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} is damaged: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path.name} is damaged: its header is no table of tensors")
    return 8 + length, status.st_size - 8 - length, header


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(path: Path, name: str, value: Any) -> tuple[Entry, tuple[int, int]]:
    """Return one entry of the header and its place in the file, checked."""
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
        whole = all(type(number) is int and number >= 0 for number in numbers) and len(shape) <= 8
        fits = whole and end - start == math.prod(shape) * ITEM_BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise WeightsError(f"{path.name} is damaged: tensor {name[:80]!r} has no valid entry")
    return Entry(dtype, tuple(shape)), (start, end)


class FileTensors(dict[str, "Tensor"]):
    """Tensors of a checked file by name, memory-mapped: nothing is read until it is used.

    What is to go elsewhere anyway is better read than copied out of the map: `read_into` needs no
    page table, and tells where the file was cut off in the meantime.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = path
        self._starts = read_whole_header(path).starts
        self._file: int | None = None
        if hasattr(os, "preadv"):  # not on Windows
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        try:
            with safe_open(path, "pt") as file:
                super().__init__({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise WeightsError(f"{path.name} cannot be read: {error}") from error

    def read_into(self, name: str, memory: np.ndarray) -> None:
        """Read the tensor `name` into contiguous `memory` (bytes,) uint8; for any thread.

        Raises WeightsError where the file cannot be read or has become shorter.
        """
        if self._file is None:
            np.copyto(memory, bytes_of(self[name]))
            return
        start, done = self._starts[name], 0
        try:
            while done < memory.nbytes:
                count = os.preadv(self._file, [memory.data[done:]], start + done)
                if not count:
                    raise WeightsError(
                        f"{self._path.name} is truncated: {name} ends after {done} of "
                        f"{memory.nbytes} bytes"
                    )
                done += count
        except OSError as error:
            raise WeightsError(f"cannot read {self._path}: {error.strerror or error}") from error


def bytes_of(tensor: Tensor) -> np.ndarray:
    """Return the memory of a contiguous tensor on the host, (bytes,) uint8."""
    import torch

    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def write_tensors(
    path: Path,
    entries: Mapping[str, Entry],
    produce: Callable[[str], Tensor],
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Write a file, holding one tensor at a time in memory; return its SHA-256.

    `produce` returns the tensor of a name, as `entries` has it. `on_bytes` is told the size of
    each one written.
    """
    # Large items first, so that every tensor starts at a multiple of its item size.
    names = sorted(entries, key=lambda name: (-ITEM_BYTES[entries[name].dtype], name))
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    place = 0
    for name in names:
        entry = entries[name]
        end = place + entry.bytes
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for block in (len(text).to_bytes(8, "little"), text):
            file.write(block)
            digest.update(block)
        for name in names:
            tensor = produce(name)
            if entry_of(tensor) != entries[name]:
                raise WeightsError(f"{name} is {entry_of(tensor)} instead of {entries[name]}")
            data = bytes_of(tensor.contiguous()).data
            file.write(data)
            digest.update(data)
            on_bytes(data.nbytes)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def entry_of(tensor: Tensor) -> Entry:
    """Return how the format describes a tensor."""
    import torch

    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    if tensor.dtype not in names:
        raise WeightsError(f"weights of dtype {tensor.dtype} are not supported")
    return Entry(names[tensor.dtype], tuple(tensor.shape))
