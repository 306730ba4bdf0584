"""Tensors to a CUDA device in few large blocks, and back into shape there.

One by one, the thousand tensors of a network take an allocation each, whose rests stay empty (a
tenth of the memory), and a copy each, which waits for the processor. Blocks of one size also serve
the next network when this one leaves, without asking the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.weights.tensorfile import FileTensors, bytes_of

BLOCK = 32 * 2**20
"""Bytes of a block, a power of two, as page-locked memory is handed out."""
ALIGNMENT = 512
"""Bytes; where PyTorch's own allocations begin, by which libraries choose their kernels."""
READERS = 8
"""Threads that fill blocks."""
WAITING = 4
"""Further blocks of page-locked memory, which the device is copying meanwhile."""


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


def fill(memory: Tensor, block: Block, tensors: Mapping[str, Tensor]) -> None:
    """Write the block's tensors to `memory` (bytes,): those of a file straight from there."""
    for name, part in views(memory, block, tensors).items():
        if isinstance(tensors, FileTensors):
            tensors.read_into(name, bytes_of(part))
        else:
            np.copyto(bytes_of(part), bytes_of(tensors[name]))


class PageLocked:
    """Tensors in page-locked memory of the host, from where a CUDA device copies by itself."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._blocks = [(block, _locked(block.size)) for block in plan_blocks(tensors)]
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda both: fill(both[1], both[0], tensors), self._blocks))
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
    page cache where they are of a file.
    """
    found: dict[str, Tensor] = {}

    def send(block: Block, memory: Tensor) -> Callable[[], None]:
        there = torch.empty(block.size, dtype=torch.uint8, device=device)
        there.copy_(memory, non_blocking=True)
        found.update(views(there, block, tensors))
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(device))
        return copied.synchronize

    stream_blocks(plan_blocks(tensors), tensors, send, _locked)
    return found


def stream_blocks(
    blocks: Sequence[Block],
    tensors: Mapping[str, Tensor],
    send: Callable[[Block, Tensor], Callable[[], None]],
    new_memory: Callable[[int], Tensor],
) -> None:
    """Read one block after another into a few memories, several at a time, and `send` each on.

    send: called in order with a block and its memory (bytes,); returns what waits until the memory
    may be written again. new_memory: returns a memory of so many bytes. Returns when all is sent
    and waited for.
    """
    memories: list[Tensor] = []
    waits: list[Callable[[], None]] = []
    with ThreadPoolExecutor(READERS) as pool:
        reading: list[Future[Tensor]] = []

        def send_next() -> None:
            block = blocks[len(waits)]
            memory = reading[len(waits)].result()
            waits.append(send(block, memory))

        def read(block: Block, memory: Tensor) -> Tensor:
            fill(memory, block, tensors)
            return memory

        for number, block in enumerate(blocks):
            if number >= READERS:
                send_next()
            slot = number % (READERS + WAITING)
            if slot == len(memories):
                memories.append(new_memory(block.size))
            else:
                waits[number - len(memories)]()
            if memories[slot].nbytes < block.size:
                memories[slot] = new_memory(block.size)
            reading.append(pool.submit(read, block, memories[slot][: block.size]))
        while len(waits) < len(blocks):
            send_next()
    for wait in waits[-len(memories) :]:
        wait()


def _locked(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)
