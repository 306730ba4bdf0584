"""Tensors in blocks: all of them, whole, apart from each other, and with little lost."""

from __future__ import annotations

import pytest
import torch

from sam3d_nb.weights.blocks import ALIGNMENT, PageLocked, plan_blocks, to_cuda, views

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
