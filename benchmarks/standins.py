"""Stand-in weights, and a field with a surface in place of what they decode to."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.model.grid import Grid
from sam3d_nb.model.surface import SDF, VoxelFeatures

M = TypeVar("M", bound=nn.Module)


def fill(module: M, seed: int = 0) -> M:
    """Give every parameter a random stand-in, the same numbers for every dtype."""
    device = next(module.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(
                scaled(name, torch.randn(parameter.shape, generator=generator, device=device))
            )
    return module.eval().requires_grad_(False)


def drawn(name: str, shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """Return a random stand-in for the parameter `name`, float32."""
    generator = torch.Generator(device).manual_seed(seed)
    return scaled(name, torch.randn(shape, generator=generator, device=device))


def scaled(name: str, noise: Tensor) -> Tensor:
    """Return standard-normal noise with the distribution that suits the parameter `name`."""
    if noise.dim() >= 2:
        return noise / math.sqrt(math.prod(noise.shape[1:]))
    if name.endswith(("weight", "gamma")):
        return 1 + 0.1 * noise
    return 0.1 * noise


def with_distance(head: VoxelFeatures, distance: Tensor) -> VoxelFeatures:
    """Evaluate the last layer as ever, but replace the signed distance (N, 8)."""

    def evaluate(rows: Tensor, channels: slice) -> Tensor:
        values = head(rows, channels)
        return distance[rows] if channels == SDF else values

    return evaluate


def shape_distance(fine: Grid) -> Tensor:
    """Return a smooth field that is negative two voxels inside the set, (N, 8)."""
    side = fine.resolution
    x, y, z = fine.xyz.long().unbind(1)
    inside = torch.zeros(1, 1, side, side, side, device=fine.device)
    inside[0, 0, x, y, z] = 1
    for _ in range(4):
        inside = F.avg_pool3d(inside, 3, stride=1, padding=1)
    points = F.avg_pool3d(inside, 2, stride=1, padding=1)[0, 0]  # (side + 1)³: at the vertices
    corners = [points[x + (c & 1), y + (c >> 1 & 1), z + (c >> 2 & 1)] for c in range(8)]
    return 0.8 - torch.stack(corners, dim=1)
