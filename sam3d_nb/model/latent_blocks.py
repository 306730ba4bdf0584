"""The blocks of the structured-latent flow: residual blocks over sparse voxels, transformer blocks.

All of them run in the dtype of their weights, residual streams too. Norms keep their statistics in
float32; modulations are rounded to that dtype, as in the released half-precision model.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.model import residual
from sam3d_nb.model.config import LatentFlowConfig
from sam3d_nb.model.constants import constant
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layers import (
    BLOCK_EPS,
    CrossAttention,
    FeedForward,
    KeysValues,
    Modulation,
    SelfAttention,
    adaptive_norm,
    linear_dtype,
)
from sam3d_nb.model.sparse_conv import SparseConv


class LayerCondition(NamedTuple):
    """What one block needs of the condition tokens."""

    tokens: KeysValues  # (B, L, H, d) each
    zeros: Tensor  # (C,): cross-attention to tokens that are all zero


class Pending(NamedTuple):
    """An update of the residual stream that is not yet added: gate * update."""

    update: Tensor  # (B, M, C)
    gate: Tensor  # (1 or B, 1, C)

    def add_to(self, h: Tensor) -> Tensor:
        """Return the stream (B, M, C) with the update."""
        return residual.add(h, self.update, self.gate)


def norm(x: Tensor, eps: float, gain: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Return the layer norm of (..., C) in its own dtype by one kernel; statistics are float32."""
    gain = None if gain is None else gain.to(x.dtype)
    shift = None if shift is None else shift.to(x.dtype)
    return F.layer_norm(x, x.shape[-1:], gain, shift, eps)


class ResidualBlock(nn.Module):
    """Two sparse convolutions with a skip connection, after an optional change of resolution."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        embedding: int,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = nn.LayerNorm(in_width, eps=BLOCK_EPS)
        self.conv1 = SparseConv(in_width, out_width)
        self.conv2 = SparseConv(out_width, out_width)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out_width))
        self.skip_connection = (
            nn.Identity() if in_width == out_width else nn.Linear(in_width, out_width)
        )

    def modulation(self, embedding: Tensor) -> Tensor:
        """Return gain (1 + scale) and shift for time embeddings (S, E); (S, 2, width), float32."""
        table = self.emb_layers(embedding.to(linear_dtype(self))).float().unflatten(-1, (2, -1))
        return table + constant((1, 0), table.device, table.dtype)[:, None]

    def forward(self, x: Tensor, modulation: Tensor, grid: Grid) -> Tensor:
        """Map features to those of the next resolution.

        `grid` is the finer of the two grids. The rows of `x` (.., in) are its voxels, or their
        parents for "up"; the rows of the result are its voxels, or their parents for "down".
        """
        if self.resample == "down":
            x, grid = grid.downsample(x), grid.parents.grid
        h = F.silu(norm(x, BLOCK_EPS, self.norm1.weight, self.norm1.bias))
        skip = self.skip_connection(x)
        if self.resample == "up":  # a linear layer of copies is a copy of the linear layer
            h, skip = self.conv1.upsampled(h, grid), grid.upsample(skip)
        else:
            h = self.conv1(h, grid)
        h = F.silu(modulated_rows(h, modulation, grid))
        return self.conv2(h, grid) + skip


def modulated_rows(h: Tensor, modulation: Tensor, grid: Grid) -> Tensor:
    """Normalize and modulate (N, C) by (1 or B, 2, C): one time for all, or one a batch item."""
    if modulation.shape[0] == 1:
        return norm(h, BLOCK_EPS, modulation[0, 0], modulation[0, 1])
    items, modulation = grid.coords[:, 0].long(), modulation.to(h.dtype)
    if torch.is_grad_enabled():  # as a product: the gradient of indexing adds to few rows, slowly
        of_item = F.one_hot(items, len(modulation)).to(h.dtype)
        rows = (of_item @ modulation.flatten(1)).unflatten(1, (2, -1))
    else:
        rows = modulation[items]
    gain, shift = rows.unbind(1)  # (N, C) each
    return torch.addcmul(shift, norm(h, BLOCK_EPS), gain)


class LatentBlock(nn.Module):
    """Self-attention over all voxels, cross-attention to the condition, feed-forward."""

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm2 = nn.LayerNorm(width, eps=BLOCK_EPS)
        self.self_attn = SelfAttention(width, heads, head_norms=True)
        self.cross_attn = CrossAttention(width, config.condition_width, heads)
        self.mlp = FeedForward(width, config.mlp_ratio)
        self.adaLN_modulation = adaptive_norm(width)

    def prepare(self, tokens: Tensor) -> LayerCondition:
        """Project condition tokens (B, L, condition width)."""
        cross = self.cross_attn
        return LayerCondition(cross.keys_values(tokens), cross.unconditional())

    def forward(
        self,
        h: Tensor,  # (B, M, C), or (2 B, M, C) after the passes of guidance have parted
        modulation: Tensor,  # (1 or B, 6, C)
        condition: LayerCondition,
        mask: Tensor | None,  # (B, 1, 1, M) bool: which keys are voxels; None: all
        pending: Pending | None = None,
        *,
        guided: bool = False,
    ) -> tuple[Tensor, Pending]:
        """Advance the stream `h`, to which `pending` of the block before is still to be added.

        Return the stream (B, M, C), or with `guided` (2 B, M, C), the conditional pass first, and
        what the next block adds to it in the pass over memory in which it normalizes.
        """
        m = Modulation.of(modulation.to(h.dtype))
        batch = condition.tokens.keys.shape[0]
        gain, shift = m.attention_gain, m.attention_shift
        if pending is None:
            x = residual.norm(h, gain, shift, BLOCK_EPS, h.dtype)
        else:
            h, x = residual.add_norm(h, pending.update, gain, shift, BLOCK_EPS, gate=pending.gate)
        x, norm2 = self._attend(x, mask), self.norm2
        h, x = residual.add_norm(
            h, x, norm2.weight, norm2.bias, norm2.eps, gate=m.attention_gate, items=batch
        )
        x = self.cross_attn(x, condition.tokens)  # (B, M, C)
        if guided and len(h) == batch:  # up to here both passes are the same
            h = torch.cat([h, h])
        rest = condition.zeros if guided else None
        h, x = residual.add_norm(h, x, m.mlp_gain, m.mlp_shift, BLOCK_EPS, rest=rest)
        return h, Pending(self.mlp(x), m.mlp_gate)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.self_attn.project(x))  # (B, H, M, d)
        if mask is not None and len(mask) < len(x):  # both passes of guidance
            mask = torch.cat([mask, mask])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.self_attn.to_out(out.transpose(1, 2).flatten(2))
