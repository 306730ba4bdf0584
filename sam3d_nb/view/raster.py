"""A small z-buffer rasterizer in PyTorch: which triangle a pixel sees, where on it, how far away.

Headless and deterministic; runs on the CPU and on CUDA. On Apple's MPS, which has no 64-bit
floats, it computes on the CPU and hands the result back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.scan import scan

EMPTY = torch.iinfo(torch.int64).max


@dataclass(frozen=True, eq=False)
class Raster:
    """What every pixel's center sees.

    face: (H, W) int64, -1 where nothing. barycentric: (H, W, 3) float32 weights of the face's
    corners in space (perspective-correct), which sum to 1, or to 0 where nothing is seen.
    depth: (H, W) float32, z in the camera frame, infinite where nothing is seen.
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def covered(self) -> Tensor:
        """Return which pixels see a triangle, (H, W) bool."""
        return self.face >= 0


def rasterize(vertices: Tensor, faces: Tensor, camera: Camera) -> Raster:
    """Return the nearest triangle at every pixel center, at (u + 0.5, v + 0.5).

    vertices: (V, 3) float in the camera's world. faces: (F, 3) integer; both sides are seen.
    Triangles are cut where they pass behind the camera. Of equally near triangles the one with
    the lowest index is seen.

    Raises InputError for other shapes.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(
            f"vertices are (V, 3) and faces (F, 3) but got {tuple(vertices.shape)}"
            f" and {tuple(faces.shape)}"
        )
    device = vertices.device
    if device.type == "mps":
        vertices = vertices.cpu()
    faces = faces.to(device=vertices.device, dtype=torch.int64)
    height, width = camera.height, camera.width

    corners = camera.corners(vertices, faces)  # (F, 3, 4)
    nearest = torch.full((height * width,), EMPTY, dtype=torch.int64, device=vertices.device)
    for face, pixel, depth in scan(corners, height, width):
        nearest.scatter_reduce_(0, pixel, (_ordered(depth) << 32) | face, "amin")
    seen = (nearest != EMPTY).nonzero()[:, 0]  # (N,)
    face = nearest[seen] & 0xFFFFFFFF

    weights = _barycentric(corners[face, :, :3], seen, width)  # (N, 3)
    z = (weights * camera.to_camera(vertices)[faces[face], 2]).sum(1)
    raster = Raster(
        torch.full_like(nearest, -1).index_copy_(0, seen, face).view(height, width),
        weights.new_zeros(height * width, 3, dtype=torch.float32)
        .index_copy_(0, seen, weights.float())
        .view(height, width, 3),
        z.new_full((height * width,), torch.inf, dtype=torch.float32)
        .index_copy_(0, seen, z.float())
        .view(height, width),
    )
    if device.type == "mps":
        return Raster(*(x.to(device) for x in (raster.face, raster.barycentric, raster.depth)))
    return raster


def _ordered(depth: Tensor) -> Tensor:
    """Return 32-bit integers, as int64, that sort like `depth` in float32."""
    bits = depth.float().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)


def _barycentric(corners: Tensor, pixel: Tensor, width: int) -> Tensor:
    """Return the weights (N, 3) of the corners (N, 3, 3), rows (X, Y, W), seen at `pixel` (N,).

    The weights w solve w @ corners = z (u, v, 1), up to scale (homogeneous rasterization, Olano
    and Greer 1997), which also holds for triangles that reach behind the camera.
    """
    u, v = pixel % width + 0.5, torch.div(pixel, width, rounding_mode="floor") + 0.5
    ray = torch.stack([u, v, torch.ones_like(u)], 1).to(corners.dtype)  # (N, 3)
    opposite = torch.linalg.cross(corners[:, (1, 2, 0)], corners[:, (2, 0, 1)])  # (N, 3, 3)
    weights = (opposite * ray[:, None]).sum(-1)
    weights = weights / weights.sum(1, keepdim=True)
    weights = torch.nan_to_num(weights, nan=1.0, posinf=1.0, neginf=0.0).clamp(0, 1)  # thin slivers
    return weights / weights.sum(1, keepdim=True)
