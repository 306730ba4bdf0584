"""The windowed transformer that all three decoders of the structured latent begin with."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import TrunkConfig
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layers import (
    BLOCK_EPS,
    FeedForward,
    SelfAttention,
    linear_dtype,
    position_embedding,
)
from sam3d_nb.model.sparse_conv import set_torso_dtype
from sam3d_nb.model.windows import Groups, grouped_attention


class WindowBlock(nn.Module):
    """Attention inside windows, then a feed-forward network, each behind a plain layer norm."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config.width, config.heads)
        self.mlp = FeedForward(config.width, config.mlp_ratio)

    def forward(self, h: Tensor, windows: Groups) -> Tensor:
        """Map (N, C) to (N, C)."""
        qkv = self.attn.to_qkv(plain_norm(h)).unflatten(-1, (3, self.attn.heads, -1))
        h = h + self.attn.to_out(grouped_attention(qkv, windows).flatten(1))
        return h + self.mlp(plain_norm(h))


class Trunk(nn.Module):
    """Latents of voxels to features of the same voxels.

    A decoder derives from it, so that parameters carry the published names: `input_layer` and
    `blocks`. The blocks run in the dtype of their weights, everything else in float32.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.trunk_config = config
        self.input_layer = nn.Linear(config.channels, config.width)
        self.blocks = nn.ModuleList(WindowBlock(config) for _ in range(config.depth))

    def features(self, latent: Tensor, grid: Grid) -> Tensor:
        """Map latents (N, channels) to features (N, width) in the dtype of the blocks.

        Raises:
            InputError: where the latent does not fit the grid or is not finite.
        """
        self.check_latent(latent, grid)
        h = self.input_layer(latent.to(self.input_layer.weight.dtype))
        h = (h + position_embedding(grid.xyz, h.shape[1])).to(linear_dtype(self.blocks))
        for number, block in enumerate(self.blocks):
            shift = self.trunk_config.window // 2 if number % 2 else 0
            h = block(h, grid.windows(self.trunk_config.window, shift))
        return h

    def check_latent(self, latent: Tensor, grid: Grid) -> None:
        """Raise `InputError` unless `latent` is finite, one row a voxel of a grid that fits."""
        config = self.trunk_config
        if grid.resolution != config.resolution:
            raise InputError(
                f"the grid has resolution {grid.resolution}; this decoder takes {config.resolution}"
            )
        grid.check_rows(latent, config.channels)
        bad = int((~latent.isfinite()).any(1).sum())
        if bad:
            raise InputError(
                f"{bad} of {len(latent)} rows of the latent hold NaN or infinite values"
            )

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Turn the weights of the blocks to `dtype`; input layer and heads stay as they are."""
        set_torso_dtype(self.blocks, dtype)


def plain_norm(h: Tensor, eps: float = BLOCK_EPS) -> Tensor:
    """Return the layer norm of (N, C) without gain and shift; statistics are float32."""
    return F.layer_norm(h, h.shape[-1:], eps=eps)
