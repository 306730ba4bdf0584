"""Convolutions and group norm over sparse voxels, as gathered matrix products.

Features are (N, C) in the row order of a `Grid`. Weights have the published layout
(out, kx, ky, kz, in), where kx runs along the first spatial coordinate.
"""

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.model import kernels
from sam3d_nb.model.constants import constant
from sam3d_nb.model.grid import OCTANTS, TAPS, Grid, with_zero_row

CHUNK_BYTES = {"cuda": 256 << 20, "cpu": 16 << 20}
OTHER_CHUNK_BYTES = 64 << 20
"""Most memory that the gathered inputs of one matrix product take, by type of device."""

NARROW = 256
"""Channels up to which gathering takes longer than the product, and the fused kernel wins."""

GROUP_NORM_EPS = 1e-5

PARENT_OF_TAP = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))
"""For a child at an even or odd place, which taps along an axis fall on which of two parents."""


def submanifold_conv(
    features: Tensor,  # (N, in)
    grid: Grid,
    weight: Tensor,  # (out, 3, 3, 3, in)
    bias: Tensor | None = None,  # (out,)
) -> Tensor:
    """Convolve with a 3x3x3 kernel at the voxels of `grid` only; return (N, out).

    out[p] = bias + sum over taps t of weight[:, t + 1] @ features[p + t], t in {-1, 0, 1}^3;
    neighbors that do not exist count as zero.
    """
    grid.check_rows(features, weight.shape[-1])
    if torch.is_grad_enabled():
        out: Tensor = _Submanifold.apply(features, grid.neighbors, weight)
        return out if bias is None else out + bias
    return _gathered_linear(features, grid.neighbors, weight.flatten(1), bias)


class _Submanifold(torch.autograd.Function):
    """The convolution with a backward pass that gathers as well, where autograd would scatter.

    A voxel is its neighbor's neighbor at the opposite tap, so the gradient of the features is the
    convolution of the output's gradient with the mirrored and transposed kernel. Adding up by
    scattering takes many times longer on a GPU, most of it in the row of the missing neighbors.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx: Any, features: Tensor, table: Tensor, weight: Tensor) -> Tensor:
        """Convolve features (N, in) with weight (out, 3, 3, 3, in)."""
        ctx.save_for_backward(features, table, weight)
        return _gathered_linear(features, table, weight.flatten(1).to(features.dtype), None)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """Return the gradients of features and weight."""
        features, table, weight = ctx.saved_tensors
        grad = grad.contiguous()
        by_feature = by_weight = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flatten(1, 3).flip(1).permute(2, 1, 0).flatten(1)  # (in, 27 * out)
            by_feature = _gathered_linear(grad, table, mirrored.to(grad.dtype), None)
            by_feature = by_feature.to(features.dtype)
        if ctx.needs_input_grad[2]:
            by_weight = _gathered_product(grad, features, table).view(weight.shape)
            by_weight = by_weight.to(weight.dtype)
        return by_feature, None, by_weight


def _gathered_product(grad: Tensor, features: Tensor, table: Tensor) -> Tensor:
    """Return grad (R, out), transposed, times the gathered features: (out, K in), float32."""
    source = with_zero_row(features.to(grad.dtype))
    width = table.shape[1] * source.shape[1]
    step = max(1, _chunk_bytes(source) // (width * source.element_size()))
    total = torch.zeros(grad.shape[1], width, dtype=torch.float32, device=grad.device)
    for start in range(0, len(table), step):
        rows = slice(start, start + step)
        gathered = source.index_select(0, table[rows].flatten()).view(-1, width)
        total += (grad[rows].t() @ gathered).float()
    return total


def upsampled_conv(
    features: Tensor,  # (M, in), of the parents
    grid: Grid,  # of the N voxels
    weight: Tensor,  # (out, 3, 3, 3, in)
    bias: Tensor | None = None,  # (out,)
) -> Tensor:
    """Return `submanifold_conv(grid.upsample(features), grid, weight, bias)`, (N, out).

    Voxels share their parent's features, so each parent meets each tap's matrix once, and every
    voxel then sums 27 of these products.
    """
    grid.parents.grid.check_rows(features, weight.shape[-1])
    out = weight.shape[0]
    if torch.is_grad_enabled():
        return submanifold_conv(grid.upsample(features), grid, weight, bias)
    by_tap = weight.flatten(1, 3).transpose(0, 1).flatten(0, 1)  # (27 * out, in)
    products = F.linear(with_zero_row(features), by_tap).view(-1, out)  # ((M + 1) * 27, out)
    total = _gathered_sum(products, grid.parent_taps)
    return total if bias is None else total + bias


def subdivided_conv(
    features: Tensor,  # (N, in), of the voxels of `grid`
    grid: Grid,
    weight: Tensor,  # (out, 3, 3, 3, in)
    bias: Tensor | None = None,  # (out,)
) -> Tensor:
    """Return `submanifold_conv(grid.subdivide(features), grid.subdivided, ...)`, (8 N, out).

    All 8 children have their parent's features and all of them exist, so the 27 taps of a child
    fall on 8 parents; the taps that share a parent are added before the product.
    """
    grid.check_rows(features, weight.shape[-1])
    if torch.is_grad_enabled():
        return submanifold_conv(grid.subdivide(features), grid.subdivided, weight, bias)
    merged, taps = merged_taps(weight), _octant_taps(grid.device)

    def children(octant: int) -> Tensor:
        return _gathered_linear(features, grid.neighbors[:, taps[octant]], merged[octant], bias)

    out = features.new_empty(len(grid), 8, len(weight))  # no second copy of all at the end
    for octant in range(8):
        out[:, octant] = children(octant)
    return out.flatten(0, 1)


def merged_taps(weight: Tensor) -> Tensor:
    """Add the taps of each child that fall on the same parent; (out, 3, 3, 3, in) to
    (8 octants, out, 8 * in), summed in float32 or better.

    Along an axis, a lower child meets parents at -1 (tap 0) and 0 (taps 1 and 2), an upper child
    at 0 (taps 0 and 1) and +1 (tap 2).
    """
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    split = constant(PARENT_OF_TAP, exact.device, exact.dtype)  # (parity, parent, tap)
    merged = torch.einsum("oabci,pxa,qyb,rzc->pqroxyzi", exact, split, split, split)
    return merged.flatten(0, 2).flatten(2).to(weight.dtype)


def pointwise_conv(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1x1 kernel (out, 1, 1, 1, in) to (N, in) by the rule of the released model.

    Its convolution library reads the flat memory of the weight as an (in, out) matrix, without a
    transpose (issue 450 of spconv); the published weights go with that.
    """
    matrix = weight.reshape(weight.shape[-1], weight.shape[0])  # (in, out)
    return F.linear(features, matrix.t(), bias)


class Kernel(nn.Module):
    """The weight and bias of a convolution under their published names."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, size, size, size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(in_channels * size**3)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)


def set_torso_dtype(modules: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Turn the weights and biases of all linear layers and sparse convolutions to `dtype`."""
    for root in modules:
        for module in root.modules():
            if isinstance(module, nn.Linear | Kernel):
                module.to(dtype)


class SparseConv(nn.Module):
    """A 3x3x3 submanifold convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Kernel(in_channels, out_channels, 3)

    def forward(self, features: Tensor, grid: Grid) -> Tensor:
        """Map (N, in) to (N, out) on the voxels of `grid`."""
        return submanifold_conv(features, grid, self.conv.weight, self.conv.bias)

    def upsampled(self, features: Tensor, grid: Grid) -> Tensor:
        """Map parents' features (M, in) to (N, out): up-sample to `grid`, then convolve."""
        return upsampled_conv(features, grid, self.conv.weight, self.conv.bias)

    def subdivided(self, features: Tensor, grid: Grid) -> Tensor:
        """Map (N, in) on `grid` to (8 N, out): subdivide, then convolve."""
        return subdivided_conv(features, grid, self.conv.weight, self.conv.bias)


class PointwiseConv(nn.Module):
    """A 1x1x1 convolution as the released model computes it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Kernel(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in) to (N, out)."""
        return pointwise_conv(features, self.conv.weight, self.conv.bias)


class VoxelGroupNorm(nn.GroupNorm):
    """Group norm whose statistics run over all voxels of a batch item."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__(groups, channels, eps=GROUP_NORM_EPS)

    def forward(self, features: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        """Map (N, C) to (N, C) in the dtype of `features`; statistics are float32 or better."""
        grid.check_rows(features, self.num_channels)
        normed = [self._normed(features[rows]) for rows in grid.items]
        return normed[0] if len(normed) == 1 else torch.cat(normed)

    def _normed(self, features: Tensor) -> Tensor:
        mean, inverse = _group_statistics(features, self.num_groups, self.eps)
        gain = inverse * self.weight  # (C,)
        shift = self.bias - mean * gain
        if features.device.type == "cuda" and not torch.is_grad_enabled():  # nothing in float32
            return torch.addcmul(shift, features, gain, out=torch.empty_like(features))
        return torch.addcmul(shift, features, gain).to(features.dtype)


def _group_statistics(features: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return the mean and 1 / standard deviation of each channel's group, (C,) each."""
    count, channels = features.shape
    width = channels // groups
    dtype = torch.promote_types(features.dtype, torch.float32)
    mean = features.sum(0, dtype=dtype).view(groups, width).mean(1) / count  # (groups,)
    mean = mean.repeat_interleave(width)  # (C,)
    rows = max(1, _chunk_bytes(features) // (channels * 4))
    square = torch.stack([(x.to(dtype) - mean).square().sum(0) for x in features.split(rows)])
    variance = square.sum(0).view(groups, width).mean(1) / count
    return mean, (variance + eps).rsqrt().repeat_interleave(width)


def _gathered_linear(
    features: Tensor,  # (N, in)
    table: Tensor,  # (R, K): rows of `features`; N where there is none
    weight: Tensor,  # (out, K * in)
    bias: Tensor | None,
) -> Tensor:
    """Put the K rows of each table entry side by side and map them to (R, out)."""
    if features.shape[1] <= NARROW and kernels.fuses(features):
        return kernels.gathered_linear(features, table, weight, bias)
    source = with_zero_row(features)

    def part(rows: slice) -> Tensor:
        gathered = source.index_select(0, table[rows].flatten())
        return F.linear(gathered.view(-1, weight.shape[1]), weight, bias)

    return _in_chunks(part, len(table), weight.shape[1] * source.element_size(), source)


def _gathered_sum(source: Tensor, table: Tensor) -> Tensor:
    """Sum the rows of `source` (S, C) that each row of `table` (R, K) names; (R, C)."""
    if source.device.type == "cuda":  # one kernel, sums in float32
        return F.embedding_bag(table, source, mode="sum")

    def part(rows: slice) -> Tensor:
        gathered = source.index_select(0, table[rows].flatten())
        return gathered.view(-1, table.shape[1], source.shape[1]).sum(1)

    row_bytes = table.shape[1] * source.shape[1] * source.element_size()
    return _in_chunks(part, len(table), row_bytes, source)


def _in_chunks(part: Callable[[slice], Tensor], rows: int, row_bytes: int, like: Tensor) -> Tensor:
    """Concatenate `part` over slices of `rows` rows whose gathered inputs stay small."""
    step = max(1, _chunk_bytes(like) // row_bytes)
    if rows <= step:
        return part(slice(0, rows))
    starts = range(0, rows, step)
    if torch.is_grad_enabled():
        return torch.cat([part(slice(start, start + step)) for start in starts])
    first = part(slice(0, step))
    out = first.new_empty(rows, first.shape[1])  # no second copy of the output at the end
    out[:step] = first
    for start in starts[1:]:
        out[start : start + step] = part(slice(start, start + step))
    return out


def _chunk_bytes(like: Tensor) -> int:
    return CHUNK_BYTES.get(like.device.type, OTHER_CHUNK_BYTES)


def _octant_taps(device: torch.device) -> list[Tensor]:
    """Return, for each child octant, the columns of the neighbor table that it meets, 8 x (8,)."""
    columns = []
    for octant in OCTANTS:
        reach = [(-1, 0) if low == 0 else (0, 1) for low in octant]
        columns.append(constant(tuple(TAPS.index(tap) for tap in product(*reach)), device))
    return columns
