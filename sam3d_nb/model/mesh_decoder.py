"""The mesh decoder: structured latents to voxels of four times the resolution, and to a mesh.

The windowed trunk is followed by two subdivision blocks; a linear layer then gives 101 channels a
fine voxel, from which `surface` extracts the mesh. At the released size that is 1.65 million fine
voxels, so the last layer is evaluated in parts.
"""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import MeshDecoderConfig
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layers import Stack
from sam3d_nb.model.sparse_conv import (
    PointwiseConv,
    SparseConv,
    VoxelGroupNorm,
    set_torso_dtype,
)
from sam3d_nb.model.surface import (
    CHANNELS,
    Sculpt,
    SurfaceError,
    VoxelFeatures,
    mesh_from_features,
)
from sam3d_nb.model.trunk import Trunk


class SubdivisionBlock(nn.Module):
    """A residual block that splits each voxel into eight."""

    def __init__(self, width: int, out_width: int, groups: int) -> None:
        super().__init__()
        self.act_layers = nn.ModuleList([VoxelGroupNorm(width, groups), nn.SiLU()])
        self.out_layers = nn.ModuleList(
            [
                SparseConv(width, out_width),
                VoxelGroupNorm(out_width, groups),
                nn.SiLU(),
                SparseConv(out_width, out_width),
            ]
        )
        self.skip_connection = PointwiseConv(width, out_width)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Map (N, C) on `grid` to (8 N, out width) on `grid.subdivided`."""
        first_norm, first_conv = self.act_layers[0], cast(SparseConv, self.out_layers[0])
        second_norm, second_conv = self.out_layers[1], self.out_layers[3]
        fine = grid.subdivided
        y = first_conv.subdivided(_silu(first_norm(x, grid)), grid)  # (8 N, out)
        y = _silu(second_norm(y, fine))
        y = second_conv(y, fine)
        skip = self.skip_connection(x)[:, None]  # (N, 1, out), the same for all 8 children
        y.view(len(grid), 8, -1).add_(skip)
        return y


class MeshDecoder(Trunk):
    """Structured latents to a mesh. Convolutions run in the dtype of their weights."""

    def __init__(self, config: MeshDecoderConfig) -> None:
        super().__init__(config.trunk)
        self.interior = config.interior
        widths = [config.trunk.width, *(config.trunk.width // d for d in config.divisors)]
        self.upsample: Stack[SubdivisionBlock] = Stack(
            SubdivisionBlock(width, narrower, config.groups) for width, narrower in pairwise(widths)
        )
        self.out_layer = nn.Linear(widths[-1], CHANNELS)

    def forward(self, latent: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Map latents (N, 8) to the fine voxels' channels (64 N, 101), float32, and their grid.

        `decode` needs a fraction of the memory, since it never holds all channels at once.
        """
        hidden, fine = self.hidden(latent, grid)
        return self.out_layer(hidden.to(self.out_layer.weight.dtype)).float(), fine

    @torch.no_grad()
    def decode(self, latent: Tensor, grid: Grid, sculpt: Sculpt | None = None) -> Surface:
        """Decode latents (N, 8), de-normalized, on the voxels of one object to a mesh.

        Vertices are in the z-up object frame, in about [-0.5, 0.5]. The six attributes in (0, 1)
        are red, green, blue and three normal-like channels. Gradients are not kept: train through
        `forward`. sculpt: changes the distances before the surface is extracted.

        Raises:
            InputError: where the latent does not fit the grid or is not finite, or the grid holds
                more than one batch item.
            SurfaceError: where the decoded field crosses no surface or is not finite.
        """
        if len(grid.items) != 1:
            raise InputError(f"the grid holds {len(grid.items)} batch items; decode one at a time")
        hidden, fine = self.hidden(latent, grid)
        filled = self.interior == "filled"
        mesh = mesh_from_features(
            fine.xyz, self.head(hidden), fine.resolution, filled=filled, sculpt=sculpt
        )
        if not len(mesh.faces):
            raise SurfaceError(
                f"no surface crosses the {len(fine)} fine voxels decoded from {len(grid)} voxels; "
                "try another seed or mask"
            )
        return mesh

    def hidden(self, latent: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Map latents (N, 8) to what the last layer reads: (64 N, width / 8), and its grid."""
        h = self.features(latent, grid)
        for block in self.upsample:
            h, grid = block(h, grid), grid.subdivided
        grid.forget_tables()  # 180 MB of neighbors at full size, and nobody reads them again
        return h, grid

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Turn the weights of blocks and convolutions to `dtype`; norms and heads stay."""
        set_torso_dtype([self.blocks, self.upsample], dtype)

    def head(self, hidden: Tensor) -> VoxelFeatures:
        """Return the last layer as a function of rows and channels, computed in its own dtype."""
        weight, bias = self.out_layer.weight, self.out_layer.bias

        def evaluate(rows: Tensor, channels: slice) -> Tensor:
            part = hidden[rows].to(weight.dtype)
            return F.linear(part, weight[channels], bias[channels]).float()

        return evaluate


def _silu(x: Tensor) -> Tensor:
    """Apply SiLU to a tensor that nothing else holds: in place, unless gradients need it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def build_mesh_decoder(
    config: MeshDecoderConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> MeshDecoder:
    """Return the decoder without weights, ready for `load_state_dict`.

    The matrix products of blocks and subdivisions run in `dtype`; input and output layer, norms
    and the extraction of the surface stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        decoder = MeshDecoder(config or MeshDecoderConfig())
    decoder.set_torso_dtype(dtype)
    return decoder.eval()
