"""Tensors in blocks: all of them, whole, apart from each other, and with little lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.blocks import (
    ALIGNMENT,
    READERS,
    WAITING,
    Block,
    PageLocked,
    plan_blocks,
    stream_blocks,
    to_cuda,
    views,
)
from sam3d_nb.weights.tensorfile import FileTensors, entry_of, write_tensors

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def many(count: int = 60) -> dict[str, torch.Tensor]:
    """Tensors of many sizes and dtypes, a scalar and an empty one among them."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 3000, (count,), generator=generator).tolist()
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    found = {
        f"t{i}": torch.randn(size, 3, generator=generator).to(dtypes[i % 3])
        for i, size in enumerate(sizes)
    }
    return found | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}


@pytest.mark.parametrize("size", [4096, 1 << 16, 1 << 30])
def test_every_tensor_has_a_place_of_its_own(size: int) -> None:
    tensors = many()
    blocks = plan_blocks(tensors, size)
    assert sorted(name for block in blocks for name in block.places) == sorted(tensors)
    for block in blocks:
        end = 0
        for name, start in sorted(block.places.items(), key=lambda item: item[1]):
            assert start >= end
            assert start % ALIGNMENT == 0
            end = start + tensors[name].nbytes
        assert end <= block.size
        assert block.size <= size or len(block.places) == 1
    memories = [torch.zeros(block.size, dtype=torch.uint8) for block in blocks]
    for block, memory in zip(blocks, memories, strict=True):
        for name, part in views(memory, block, tensors).items():
            part.copy_(tensors[name])
    for block, memory in zip(blocks, memories, strict=True):
        for name, part in views(memory, block, tensors).items():
            assert part.dtype == tensors[name].dtype
            assert torch.equal(part, tensors[name])


def test_little_is_lost() -> None:
    tensors = {str(i): torch.empty(512 * (1 + i % 40), dtype=torch.uint8) for i in range(400)}
    blocks = plan_blocks(tensors, 1 << 16)
    assert sum(block.size for block in blocks) < 1.02 * sum(t.nbytes for t in tensors.values())
    assert {block.size for block in blocks[:-1]} == {1 << 16}  # one size: any serves any network


def test_no_tensors_no_blocks() -> None:
    assert plan_blocks({}) == []


@pytest.mark.parametrize("count", [0, 3, 300])
def test_memories_are_written_again_only_after_they_were_sent(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam3d_nb.weights.blocks.BLOCK", 1 << 14)
    path = tmp_path / "many.safetensors"
    tensors = many(count)
    write_tensors(path, {n: entry_of(t) for n, t in tensors.items()}, tensors.__getitem__)
    blocks = plan_blocks(tensors)
    for source in (tensors, FileTensors(path)):
        made: list[int] = []
        found: dict[str, torch.Tensor] = {}

        def new_memory(size: int, made: list[int] = made) -> torch.Tensor:
            made.append(size)
            return torch.full((size,), 0xEE, dtype=torch.uint8)

        def send(block: Block, memory: torch.Tensor, found=found) -> Callable[[], None]:
            def arrive() -> None:  # as late as it may be
                found.update(views(memory.clone(), block, tensors))

            return arrive

        stream_blocks(blocks, source, send, new_memory)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        larger = sum(block.size > 1 << 14 for block in blocks)
        assert len(made) <= min(len(blocks), READERS + WAITING) + larger


def test_a_file_that_is_cut_off_stops_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    tensors = {str(i): torch.randn(300, 100) for i in range(50)}
    write_tensors(path, {n: entry_of(t) for n, t in tensors.items()}, tensors.__getitem__)
    source = FileTensors(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(WeightsError, match="is truncated"):
        stream_blocks(
            plan_blocks(tensors, 1 << 18),
            source,
            lambda block, memory: lambda: None,
            lambda size: torch.zeros(size, dtype=torch.uint8),
        )


@needs_cuda
def test_copies_on_a_card_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam3d_nb.weights.blocks.BLOCK", 1 << 16)
    tensors, device = many(300), torch.device("cuda", 0)
    locked = PageLocked(tensors)
    assert all(t.is_pinned() for t in locked.tensors.values() if t.numel())
    for found in (to_cuda(tensors, device), locked.to(device)):
        assert found.keys() == tensors.keys()
        for name, tensor in found.items():
            assert tensor.device == device
            assert torch.equal(tensor.cpu(), tensors[name])
