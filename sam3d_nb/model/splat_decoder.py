"""From the structured latent to gaussians: a fixed number around every voxel."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sam3d_nb.model.config import SplatDecoderConfig
from sam3d_nb.model.gaussians import GaussianSet
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layers import OUTPUT_EPS
from sam3d_nb.model.trunk import Trunk, plain_norm


class RawChannels(NamedTuple):
    """The decoder's output by field, in the order of the channels."""

    offset: Tensor  # (N, G, 3)
    color: Tensor  # (N, G, 3)
    scale: Tensor  # (N, G, 3)
    rotation: Tensor  # (N, G, 4)
    opacity: Tensor  # (N, G, 1)


WIDTHS = (3, 3, 3, 4, 1)  # channels a gaussian of each field


class SplatDecoder(Trunk):
    """Gaussian decoder of the structured latent; parameters carry the published names.

    The buffer `offset_perturbation` (G, 3) spreads a voxel's gaussians before training.
    """

    offset_perturbation: Tensor

    def __init__(self, config: SplatDecoderConfig) -> None:
        super().__init__(config.trunk)
        self.config = config
        count = config.gaussians.per_voxel
        self.out_layer = nn.Linear(config.trunk.width, count * sum(WIDTHS))
        spread = spread_offsets(count, config.gaussians.voxel_size)
        self.register_buffer("offset_perturbation", spread)

    def channels(self, latent: Tensor, grid: Grid) -> Tensor:
        """Map de-normalized latents (N, channels) to the raw output (N, 14 G), float32.

        Raises `InputError` where the latent does not fit the grid or is not finite.
        """
        h = self.features(latent, grid).to(self.out_layer.weight.dtype)
        return self.out_layer(plain_norm(h, OUTPUT_EPS)).float()

    def forward(self, latent: Tensor, grid: Grid) -> GaussianSet:
        """Return the N G gaussians of one object, voxel after voxel.

        With several batch items, rows N G of all items follow one another. Raises `InputError`
        where the latent does not fit the grid or is not finite.
        """
        return self.to_gaussians(self.channels(latent, grid), grid)

    def to_gaussians(self, channels: Tensor, grid: Grid) -> GaussianSet:
        """Read raw output (N, 14 G) as gaussians around the voxels of `grid`."""
        config, side = self.config.gaussians, self.config.trunk.resolution
        grid.check_rows(channels, config.per_voxel * sum(WIDTHS))
        raw = split_channels(channels, config.per_voxel)
        reach = torch.tanh(raw.offset + self.offset_perturbation)  # (N, G, 3) in -1 to 1
        centers = (grid.xyz.float()[:, None] + 0.5) / side  # (N, 1, 3)
        xyz = centers + reach * (0.5 * config.voxel_size / side)
        return GaussianSet(
            raw_xyz=xyz.flatten(0, 1),
            raw_color=raw.color.flatten(0, 1),
            raw_scale=raw.scale.flatten(0, 1),
            raw_rotation=raw.rotation.flatten(0, 1) * config.rotation_rate,
            raw_opacity=raw.opacity.flatten(0, 1),
            kernel_size=config.kernel_size,
            scale_bias=config.scale_bias,
            opacity_bias=config.opacity_bias,
        )


def split_channels(channels: Tensor, per_voxel: int) -> RawChannels:
    """Split (N, 14 G) into the fields of G gaussians a voxel."""
    parts = channels.split([per_voxel * width for width in WIDTHS], dim=1)
    return RawChannels(*(part.unflatten(1, (per_voxel, -1)) for part in parts))


def spread_offsets(count: int, voxel_size: float) -> Tensor:
    """Return offsets (count, 3) whose tanh spreads the gaussians evenly over their voxel.

    They are the points of a Hammersley sequence in a voxel of side 1 / `voxel_size` of the reach.
    """
    points = [
        (g / count, radical_inverse(g, 2), radical_inverse(g, 3)) for g in range(count)
    ]  # in [0, 1)^3
    return torch.tensor([[math.atanh((2 * u - 1) / voxel_size) for u in point] for point in points])


def radical_inverse(number: int, base: int) -> float:
    """Mirror the digits of `number` in `base` at the point: 6 = 110 in base 2 gives 0.011."""
    value, weight = 0.0, 1 / base
    while number:
        number, digit = divmod(number, base)
        value += digit * weight
        weight /= base
    return value


def build_splat_decoder(
    config: SplatDecoderConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> SplatDecoder:
    """Return the decoder without weights, ready for `load_state_dict`.

    The blocks run in `dtype`; input and output layers stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        decoder = SplatDecoder(config or SplatDecoderConfig())
    decoder.set_torso_dtype(dtype)
    return decoder.eval()
