"""Groups of voxels that attend to one another, and attention inside each group.

Groups are the 8x8x8 windows of the decoders or the items of a batch. They differ in size, so the
fast paths either run a variable-length kernel over the voxels sorted by group, or pad groups of
similar size to a common length and mask the padding. Neither builds a mask over all voxels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512)
"""Lengths to which groups are padded; a longer group is a bucket of its own length."""


@dataclass(frozen=True)
class Bucket:
    """Groups of similar size, padded to one length."""

    rows: Tensor  # (P, L) int64: voxel rows; the number of voxels where there is none
    mask: Tensor | None  # (P, 1, 1, L) bool: which keys are voxels; None where nothing is padded


class Groups:
    """A partition of N voxels into groups that attend inside themselves only.

    Args:
        key: (N,) int64; voxels with the same value form one group.
    """

    def __init__(self, key: Tensor) -> None:
        ordered, self.order = torch.sort(key, stable=True)  # (N,) int64: rows, group by group
        counts = torch.unique_consecutive(ordered, return_counts=True)[1]
        self.sizes: list[int] = counts.tolist()  # voxels of each group
        ends = counts.cumsum(0, dtype=torch.int32)
        self.offsets = torch.cat([ends.new_zeros(1), ends])  # (groups + 1,) int32
        self.longest = max(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def rank(self) -> Tensor:
        """Place of each voxel in `order`, (N,) int64."""
        rank = torch.empty_like(self.order)
        rank[self.order] = torch.arange(len(self.order), device=rank.device)
        return rank

    @cached_property
    def buckets(self) -> list[Bucket]:
        """All groups, sorted into buckets of similar size."""
        members: dict[int, list[int]] = {}
        for group, size in enumerate(self.sizes):
            length = next((n for n in LENGTHS if n >= size), size)
            members.setdefault(min(length, self.longest), []).append(group)
        return [self._padded(groups, length) for length, groups in sorted(members.items())]

    @cached_property
    def slot(self) -> Tensor:
        """Place of each voxel in the concatenation of all buckets' padded rows, (N,) int64."""
        return self._slots(self.buckets)

    @cached_property
    def whole(self) -> Bucket:
        """All groups in one bucket, in the order of their keys."""
        return self._padded(list(range(len(self))), self.longest)

    @cached_property
    def whole_slot(self) -> Tensor:
        """Place of each voxel in the padded rows of `whole`, (N,) int64."""
        return self._slots([self.whole])

    def _slots(self, buckets: list[Bucket]) -> Tensor:
        rows = torch.cat([bucket.rows.flatten() for bucket in buckets])
        slot = torch.empty(len(self.order) + 1, dtype=torch.int64, device=rows.device)
        slot[rows] = torch.arange(len(rows), device=rows.device)
        return slot[:-1]  # the last entry took the padding

    def _padded(self, groups: list[int], length: int) -> Bucket:
        device = self.order.device
        index = torch.tensor(groups, device=device)
        start, stop = self.offsets[index], self.offsets[index + 1]  # (P,)
        place = start[:, None] + torch.arange(length, device=device)  # (P, L) places in `order`
        inside = place < stop[:, None]
        total = len(self.order)
        rows = torch.where(inside, self.order[place.clamp(max=total - 1)], total)
        padded = any(self.sizes[group] < length for group in groups)
        return Bucket(rows, inside[:, None, None] if padded else None)


def grouped_attention(
    qkv: Tensor,  # (N, 3, H, d)
    groups: Groups,
) -> Tensor:
    """Attend inside each group, without any mask or bias; return (N, H, d).

    On a CUDA device from Ampere on, half precision goes through PyTorch's variable-length flash
    attention; everything else through padded buckets.
    """
    if has_varlen_kernel(qkv):
        return _varlen_attention(qkv, groups)
    return bucketed_attention(qkv, groups)


def has_varlen_kernel(x: Tensor) -> bool:
    """Say whether variable-length flash attention takes tensors like `x`."""
    if x.device.type != "cuda" or x.dtype not in (torch.float16, torch.bfloat16):
        return False
    if x.shape[-1] % 8 or x.shape[-1] > 256:
        return False
    return torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 0)


def _varlen_attention(qkv: Tensor, groups: Groups) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = qkv.index_select(0, groups.order).unbind(1)  # (N, H, d) each
    offsets, longest = groups.offsets, groups.longest
    out = varlen_attn(q, k, v, offsets, offsets, longest, longest)
    assert isinstance(out, Tensor)
    return out.index_select(0, groups.rank)


def bucketed_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Attend inside each group by padding groups of similar size; (N, 3, H, d) to (N, H, d)."""
    heads = qkv.shape[2:]
    padded = torch.cat([_attend(part) for part in _bucket_inputs(qkv, groups)])
    return padded.index_select(0, groups.slot).view(-1, *heads)


def _bucket_inputs(qkv: Tensor, groups: Groups) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield (P, L, 3, H, d) and the mask of each bucket; padded rows are zero."""
    source = torch.cat([qkv, qkv.new_zeros(1, *qkv.shape[1:])])
    for bucket in groups.buckets:
        rows = source.index_select(0, bucket.rows.flatten())
        yield rows.view(*bucket.rows.shape, *qkv.shape[1:]), bucket.mask


def _attend(part: tuple[Tensor, Tensor | None]) -> Tensor:
    qkv, mask = part
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (P, H, L, d) each
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2).flatten(0, 1)  # (P * L, H * d)
