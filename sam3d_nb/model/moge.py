"""MoGe v1: the network that gives every pixel of one image a point and a validity.

Wang et al. 2024 (https://arxiv.org/abs/2410.19115). The backbone is the DINOv2 of `vision`;
parameter names are the published ones. Matrix products and convolutions run in the dtype of their
weights, norms and everything behind the last hidden layer in float32.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import MogeConfig, Remap
from sam3d_nb.model.focal import uv_map
from sam3d_nb.model.layers import linear_dtype, set_linear_dtype
from sam3d_nb.model.preprocess import resize_antialiased
from sam3d_nb.model.vision import VisionTransformer

IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet
IMAGE_STD = (0.229, 0.224, 0.225)
GROUP_WIDTH = 32  # channels in a group of the hidden normalization


class GroupNorm(nn.GroupNorm):
    """Group normalization that computes in float32; the dtype of the result is the input's."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def conv(width: int, out: int, kernel: int = 3) -> nn.Conv2d:
    """Return a convolution that keeps the size and pads by replication."""
    return nn.Conv2d(width, out, kernel, padding=kernel // 2, padding_mode="replicate")


class ResidualBlock(nn.Module):
    """Two normalized 3x3 convolutions beside an identity."""

    def __init__(self, width: int, hidden: int, norm: str = "group_norm") -> None:
        super().__init__()
        groups = max(hidden // GROUP_WIDTH, 1) if norm == "group_norm" else 1
        self.layers = nn.Sequential(
            GroupNorm(1, width),
            nn.ReLU(),
            conv(width, hidden),
            GroupNorm(groups, hidden),
            nn.ReLU(),
            conv(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.layers(x)


class OutputBlock(nn.Sequential):
    """Layers of which the last, a convolution, runs in float32: depth is exponential in it."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, H, W), float32."""
        *layers, last = self
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        for layer in layers:
            x = layer(x)
        pad = int(last.kernel_size[0]) // 2
        x = F.pad(x.float(), (pad, pad, pad, pad), mode="replicate")
        return F.conv2d(x, last.weight.float(), last.bias.float())


class Head(nn.Module):
    """Backbone features to raw points and a raw mask."""

    def __init__(self, config: MogeConfig) -> None:
        super().__init__()
        n = config.intermediate_layers
        widths = (config.projection_width, *config.level_widths)
        self.projects = nn.ModuleList(
            nn.Conv2d(config.vision.width, widths[0], 1)
            for _ in range(n if isinstance(n, int) else len(n))
        )
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(nn.ConvTranspose2d(width + 2, out, 2, stride=2), conv(out, out)),
                *self._residuals(config, out, config.blocks_per_level),
            )
            for width, out in pairwise(widths)
        )
        self.output_block = nn.ModuleList(
            OutputBlock(
                conv(widths[-1] + 2, config.output_width),
                *self._residuals(config, config.output_width, config.output_blocks),
                nn.ReLU(),
                conv(config.output_width, channels, config.output_kernel),
            )
            for channels in (3, 1)
        )

    @staticmethod
    def _residuals(config: MogeConfig, width: int, count: int) -> list[ResidualBlock]:
        hidden = config.hidden_factor * width
        return [ResidualBlock(width, hidden, config.block_norm) for _ in range(count)]

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Map features (B, C, R, C') to raw points (B, 3, h, w) and mask (B, 1, h, w), float32."""
        aspect = size[1] / size[0]  # of the resized image, not of the token grid
        x = self.project(maps)
        for level in self.upsample_blocks:
            x = level(append_uv(x, aspect))
        x = append_uv(F.interpolate(x.float(), size, mode="bilinear").to(x.dtype), aspect)
        points, mask = (block(x) for block in self.output_block)
        return points, mask

    def project(self, maps: list[Tensor]) -> Tensor:
        """Return the sum of the projected features (B, projection width, R, C')."""
        dtype = linear_dtype(self.projects)
        projected = [project(x.to(dtype)) for project, x in zip(self.projects, maps, strict=True)]
        return torch.stack(projected).float().sum(dim=0).to(dtype)


class Moge(nn.Module):
    """The MoGe v1 network."""

    image_mean: Tensor  # (1, 3, 1, 1)
    image_std: Tensor  # (1, 3, 1, 1)

    def __init__(self, config: MogeConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = VisionTransformer(config.vision)
        self.head = Head(config)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN)[None, :, None, None])
        self.register_buffer("image_std", torch.tensor(IMAGE_STD)[None, :, None, None])

    @property
    def taken_blocks(self) -> tuple[int, ...]:
        """Indices of the backbone blocks whose outputs the head reads."""
        n, depth = self.config.intermediate_layers, self.config.vision.depth
        return tuple(range(depth - n, depth)) if isinstance(n, int) else n

    def forward(self, image: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return remapped points (H, W, 3) and the raw mask (H, W), float32.

        `image` (3, H, W) in [0, 1] on the device of the weights; `num_tokens` bounds the token
        grid. Points are without the depth shift. Raises `InputError` for other shapes, and for an
        image too elongated for the number of tokens.
        """
        shape = tuple(image.shape)
        if len(shape) != 3 or shape[0] != 3 or 0 in shape or not image.is_floating_point():
            raise InputError(
                f"image: {image.dtype} of shape {shape} must be floating in [0, 1], (3, H, W)"
            )
        height, width = image.shape[1:]
        patch = self.config.vision.patch
        resized = resized_size(height, width, num_tokens, patch)
        maps = self.backbone.feature_maps(self.backbone_input(image, resized), self.taken_blocks)
        raw_points, raw_mask = (
            F.interpolate(x, (height, width), mode="bilinear")[0] for x in self.head(maps, resized)
        )
        return remap(raw_points.permute(1, 2, 0), self.config.remap), raw_mask[0]

    def normalized(self, image: Tensor, resized: tuple[int, int]) -> Tensor:
        """Return `image` (3, H, W) at the size of the token budget, normalized: (3, *resized)."""
        mean, std = self.image_mean[0].float(), self.image_std[0].float()
        return (resize_antialiased(image, resized, "bicubic") - mean) / std

    def backbone_input(self, image: Tensor, resized: tuple[int, int]) -> Tensor:
        """Return the normalized image at a multiple of the patch: (1, 3, patch R, patch C)."""
        patch = self.config.vision.patch
        grid = (resized[0] // patch * patch, resized[1] // patch * patch)
        return resize_antialiased(self.normalized(image, resized), grid, "bilinear")[None]


def append_uv(x: Tensor, aspect: float) -> Tensor:
    """Append the view-plane coordinates of every pixel to `x` (B, C, H, W): (B, C + 2, H, W)."""
    uv = uv_map(x.shape[-2], x.shape[-1], aspect, like=x).permute(2, 0, 1)  # (2, H, W)
    return torch.cat([x, uv.expand(len(x), -1, -1, -1)], dim=1)


def remap(raw: Tensor, mode: Remap) -> Tensor:
    """Turn raw network points (..., 3) into points; with an exponential mode depth is positive."""
    if mode == "linear":
        return raw
    if mode == "sinh":
        return raw.sinh()
    xy, z = raw[..., :2], raw[..., 2:].exp()
    if mode == "exp":
        return torch.cat([xy * z, z], dim=-1)
    if mode == "sinh_exp":
        return torch.cat([xy.sinh(), z], dim=-1)
    raise InputError(f"remap {mode!r} is unknown; it is linear, sinh, exp or sinh_exp")


def resized_size(height: int, width: int, num_tokens: int, patch: int = 14) -> tuple[int, int]:
    """Return the size (h, w) of the resized image, of about `num_tokens` square patches.

    Raises `InputError` where a side would be shorter than one patch.
    """
    factor = math.sqrt(max(num_tokens, 0) * patch**2 / (height * width))
    resized = int(height * factor), int(width * factor)
    if min(resized) < patch:
        raise InputError(
            f"point map: an image of {width} x {height} px at {num_tokens} tokens would be "
            f"{resized[1]} x {resized[0]} px, shorter than one patch of {patch} px; crop it to a "
            "less elongated one"
        )
    return resized


def build_moge(
    config: MogeConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Moge:
    """Return the point-map network without weights, ready for `load_state_dict`.

    Matrix products and convolutions run in `dtype`; norms, the residual stream of the backbone and
    the last convolutions' arithmetic stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        network = Moge(config or MogeConfig())
    set_linear_dtype([network], dtype)
    return network.eval()
