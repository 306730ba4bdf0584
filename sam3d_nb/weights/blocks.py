"""Tensors to a CUDA device in few large blocks, and back into shape there.

One by one, the thousand tensors of a network take an allocation each, whose rests stay empty (a
tenth of the memory), and a copy each, which waits for the processor. Blocks of one size also serve
the next network when this one leaves, without asking the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 32 * 2**20
"""Bytes of a block, a power of two, as page-locked memory is handed out."""
ALIGNMENT = 512
"""Bytes; where PyTorch's own allocations begin, by which libraries choose their kernels."""
READERS = 8
"""Threads that fill blocks, and blocks of page-locked memory that wait for the device."""


class Block(NamedTuple):
    """Some tensors side by side. places: the first byte of each by name."""

    size: int
    places: dict[str, int]


def plan_blocks(tensors: Mapping[str, Tensor], size: int = 0) -> list[Block]:
    """Return blocks of `size` bytes (0: `BLOCK`) for the tensors; a larger one has its own."""
    size = size or BLOCK
    ends: list[int] = []
    places: list[dict[str, int]] = []
    for name in sorted(tensors, key=lambda name: -tensors[name].nbytes):
        room = -(-tensors[name].nbytes // ALIGNMENT) * ALIGNMENT
        fits = (i for i, end in enumerate(ends) if end + room <= size)
        number = next(fits, len(ends))
        if number == len(ends):
            ends.append(0)
            places.append({})
        places[number][name] = ends[number]
        ends[number] += room
    last = len(ends) - 1
    full = [size if i < last and end <= size else end for i, end in enumerate(ends)]
    return [Block(*both) for both in zip(full, places, strict=True)]


def views(memory: Tensor, block: Block, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of `memory` (bytes,) with the shapes and dtypes of the block's tensors."""
    found = {}
    for name, start in block.places.items():
        like = tensors[name]
        found[name] = memory[start : start + like.nbytes].view(like.dtype).view(like.shape)
    return found


def page_locked(blocks: Sequence[Block], tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Yield page-locked copies (bytes,) of blocks of host tensors.

    One thread a block, so that pages of a mapped file are found by several at a time.
    """
    memories = [torch.empty(b.size, dtype=torch.uint8, pin_memory=True) for b in blocks]

    def fill(block: Block, memory: Tensor) -> Tensor:
        for name, part in views(memory, block, tensors).items():
            np.copyto(_bytes(part), _bytes(tensors[name]))
        return memory

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(fill, blocks, memories)


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()


class PageLocked:
    """Tensors in page-locked memory of the host, from where a CUDA device copies by itself."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        blocks = plan_blocks(tensors)
        self._blocks = list(zip(blocks, page_locked(blocks, tensors), strict=True))
        self.tensors: dict[str, Tensor] = {}
        for block, memory in self._blocks:
            self.tensors |= views(memory, block, tensors)

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """Return copies on a CUDA device, which are complete when its stream gets there."""
        found: dict[str, Tensor] = {}
        for block, memory in self._blocks:
            there = torch.empty(block.size, dtype=torch.uint8, device=device)
            there.copy_(memory, non_blocking=True)
            found |= views(there, block, self.tensors)
        return found


def to_cuda(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return copies of host tensors on a CUDA device.

    The device copies some blocks while the next ones are read into page-locked memory, out of the
    page cache where they are of a mapped file.
    """
    found: dict[str, Tensor] = {}
    blocks = plan_blocks(tensors)
    for start in range(0, len(blocks), READERS):
        some = blocks[start : start + READERS]
        torch.cuda.current_stream(device).synchronize()  # what is read into is free again
        for block, memory in zip(some, page_locked(some, tensors), strict=True):
            there = torch.empty(block.size, dtype=torch.uint8, device=device)
            there.copy_(memory, non_blocking=True)
            found |= views(there, block, tensors)
    return found
