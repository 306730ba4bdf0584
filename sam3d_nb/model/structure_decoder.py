"""Stage 1: the dense convolutional decoder from the shape latent to occupancy logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import StructureDecoderConfig
from sam3d_nb.model.layers import OUTPUT_EPS, layer_norm, set_linear_dtype
from sam3d_nb.model.sampler import check_finite


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every voxel, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, X, Y, Z) to the same shape, float32."""
        h = layer_norm(x.movedim(1, -1).float(), OUTPUT_EPS, self.weight, self.bias)
        return h.movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, X, Y, Z) float32 to the same."""
        dtype = self.conv1.weight.dtype
        h = self.conv1(F.silu(self.norm1(x)).to(dtype))
        h = self.conv2(F.silu(self.norm2(h)).to(dtype))
        return x + h


class Upsample(nn.Module):
    """Convolution to eight times the channels, shuffled into twice the resolution."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 8 * outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, X, Y, Z) to (B, outputs, 2 X, 2 Y, 2 Z), float32."""
        return shuffle_voxels(self.conv(x.to(self.conv.weight.dtype)).float())


def shuffle_voxels(x: Tensor) -> Tensor:
    """Move channels (B, 8 C, X, Y, Z) into space, (B, C, 2 X, 2 Y, 2 Z).

    Channel 8 c + 4 i + 2 j + k becomes channel c of the child at offset (i, j, k).
    """
    batch, channels, *size = x.shape
    x = x.view(batch, channels // 8, 2, 2, 2, *size)  # (B, C, i, j, k, X, Y, Z)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)  # (B, C, X, i, Y, j, Z, k)
    return x.reshape(batch, channels // 8, *(2 * n for n in size))


class StructureDecoder(nn.Module):
    """Shape latent to occupancy logits; parameters carry the published names."""

    def __init__(self, config: StructureDecoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.input_layer = nn.Conv3d(config.channels, widths[0], 3, padding=1)
        self.middle_block = nn.Sequential(
            *(ResidualBlock(widths[0]) for _ in range(config.middle_blocks))
        )
        self.blocks = nn.Sequential()
        for level, width in enumerate(widths):
            self.blocks.extend(ResidualBlock(width) for _ in range(config.level_blocks))
            if level + 1 < len(widths):
                self.blocks.append(Upsample(width, widths[level + 1]))
        self.out_layer = nn.Sequential(
            ChannelNorm(widths[-1]), nn.SiLU(), nn.Conv3d(widths[-1], config.outputs, 3, padding=1)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits (B, 1, s X, s Y, s Z), float32, of the latent cube (B, channels, X, Y, Z).

        s is 2 for every level but the first. Raises `InputError` for another shape.
        """
        if latent.dim() != 5 or latent.shape[1] != self.config.channels or 0 in latent.shape:
            raise InputError(
                f"shape latent must be (B, {self.config.channels}, X, Y, Z), "
                f"got {tuple(latent.shape)}"
            )
        h = self.input_layer(latent.to(self.input_layer.weight.dtype)).float()
        h = self.blocks(self.middle_block(h))
        norm, activation, conv = self.out_layer
        return conv(activation(norm(h)).to(conv.weight.dtype)).float()


def latent_cube(tokens: Tensor) -> Tensor:
    """Turn shape tokens (B, R³, channels) into the cube (B, channels, R, R, R).

    Raises `InputError` where the token count is not a cube.
    """
    count = tokens.shape[1] if tokens.dim() == 3 else 0
    side = round(count ** (1 / 3))
    if side < 1 or side**3 != count:
        raise InputError(f"shape tokens must be (B, R³, channels), got {tuple(tokens.shape)}")
    return tokens.transpose(1, 2).unflatten(2, (side, side, side))


@torch.no_grad()
def decode_structure(decoder: StructureDecoder, tokens: Tensor) -> Tensor:
    """Return occupancy logits (B, 1, s R, s R, s R), float32, of shape tokens (B, R³, channels).

    Raises `InputError` for another shape or values that are not finite.
    """
    cube = latent_cube(tokens)
    check_finite({"shape": tokens})
    return decoder(cube)


def build_structure_decoder(
    config: StructureDecoderConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> StructureDecoder:
    """Return the decoder without weights, ready for `load_state_dict`.

    The convolutions inside run in `dtype`; norms, residual sums, and the first and last
    convolution stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        decoder = StructureDecoder(config or StructureDecoderConfig())
    set_linear_dtype([decoder.middle_block, decoder.blocks], dtype)
    return decoder.eval()
