"""DINOv2 vision transformer: one class for the condition embedders and the point-map network.

Oquab et al. 2023 (https://arxiv.org/abs/2304.07193); registers: Darcet et al. 2023
(https://arxiv.org/abs/2309.16588). Parameter names are the published ones. Matrix products run in
the dtype of their weights (float32, float16 or bfloat16), the residual stream and the norms in
float32.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import VisionConfig
from sam3d_nb.model.layers import BLOCK_EPS, LayerNorm, attention

POSITION_OFFSET = 0.1  # added to a grid's side where the position table is resampled


class Attention(nn.Module):
    """Multi-head self-attention with q, k, v packed as (3, heads, head width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, asking: int | None = None) -> Tensor:
        """Attend within `x` (B, N, C); only the first `asking` tokens ask and are returned."""
        weight, bias, width = self.qkv.weight, self.qkv.bias, x.shape[-1]
        x = x.to(weight.dtype)
        if asking is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)  # 3 x (B, N, C)
        else:
            q = F.linear(x[:, :asking], weight[:width], bias[:width])  # (B, asking, C)
            k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)  # 2 x (B, N, C)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))  # (B, N, heads, C / heads)
        return self.proj(attention(q, k, v))


class MLP(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.fc2(F.gelu(self.fc1(x.to(self.fc1.weight.dtype))))


class Residual(nn.Module):
    """Adds a branch to the residual stream."""

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of `stream` (B, N, C) float32 and `branch` (B, N, C), float32."""
        return stream + branch


class LayerScale(Residual):
    """Adds a branch to the residual stream, times a learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Return `stream` (B, N, C) float32 plus `branch` (B, N, C) · gamma, float32."""
        return torch.addcmul(stream, branch.float(), self.gamma.float())


class Block(nn.Module):
    """A pre-norm transformer block on a float32 residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, *, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=BLOCK_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = LayerNorm(width, eps=BLOCK_EPS)
        self.mlp = MLP(width, mlp_ratio * width)
        self.ls1 = LayerScale(width) if layer_scale else Residual()
        self.ls2 = LayerScale(width) if layer_scale else Residual()

    def forward(self, x: Tensor, keep: int | None = None) -> Tensor:
        """Map `x` (B, N, C) to (B, N, C), or to its first `keep` tokens (B, keep, C) alone.

        Tokens meet only in attention, so those that nobody reads afterwards need neither a query
        nor the MLP: with `keep` the result is the same and the work less.
        """
        x = self.ls1(x[:, :keep], self.attn(self.norm1(x), keep))
        return self.ls2(x, self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Square patches of an image to tokens."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, patch R, patch C) to (B, R C, width), row-major."""
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2, with or without registers."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.side = config.image_size // config.patch  # of the stored position grid
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.side**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # published, never read
        self.register_tokens = (
            nn.Parameter(torch.empty(1, config.registers, width)) if config.registers else None
        )
        for table in (self.cls_token, self.pos_embed, self.register_tokens):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)
        self.patch_embed = PatchEmbed(width, config.patch)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, layer_scale=True)
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(width, eps=BLOCK_EPS)

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches: the class token and the registers."""
        return 1 + self.config.registers

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens before the final norm.

        `images` (B, 3, patch R, patch C), normalized; returns (B, 1 + registers + R C, width),
        float32: class token, registers, patches row by row.
        Raises `InputError` for sides that are not multiples of the patch.
        """
        x = self._embed(images)
        for block in self.blocks:
            x = block(x)
        return x

    def feature_maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the patches after each of `blocks`, through the final norm, as images.

        `images` as in `forward`; `blocks` ascending indices; each map (B, width, R, C).
        """
        rows = images.shape[-2] // self.config.patch
        x = self._embed(images)
        maps = []
        for index, block in enumerate(self.blocks[: max(blocks) + 1]):
            x = block(x)
            if index in blocks:
                patches = self.norm(x[:, self.prefix :])  # (B, R C, width), float32
                maps.append(patches.transpose(1, 2).unflatten(2, (rows, -1)))
        return maps

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position table for a grid: (1, 1 + rows columns, width), float32.

        A grid other than the stored one is sampled by bicubic interpolation without antialiasing,
        at scale factors that are 0.1 patches too large: the model was trained so.
        """
        table = self.pos_embed.float()
        if (rows, columns) == (self.side, self.side):
            return table
        grid = table[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))  # (1, C, S, S)
        factors = [(n + POSITION_OFFSET) / self.side for n in (rows, columns)]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")  # (1, C, rows, columns)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def _embed(self, images: Tensor) -> Tensor:
        """Return the first block's input (B, 1 + registers + R C, width), float32."""
        patch = self.config.patch
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % patch or shape[3] % patch:
            raise InputError(
                f"vision transformer: images of shape {shape} must be (B, 3, H, W) with H and W "
                f"multiples of {patch}"
            )
        patches = self.patch_embed(images).float()  # (B, R C, width)
        start = self.cls_token.float().expand(len(images), -1, -1)
        x = torch.cat([start, patches], dim=1)
        x = x + self.positions(shape[2] // patch, shape[3] // patch)
        if self.register_tokens is None:
            return x
        registers = self.register_tokens.float().expand(len(images), -1, -1)
        return torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
