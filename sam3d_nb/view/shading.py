"""Colors and normals of surfaces: sRGB and linear light, creases, textures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear

CREASE = 35.0  # degrees; flatter edges are shaded smooth
GREY = 0.5  # linear light of a surface that has no color
LINEAR_OF_SRGB = torch.from_numpy(to_linear(np.arange(256) / 255)).float()  # (256,)


def to_srgb(linear: Tensor) -> Tensor:
    """Return sRGB values of linear light, both in [0, 1], any shape (IEC 61966-2-1)."""
    linear = linear.clamp(0, 1)
    bright = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, bright)


def with_normals(mesh: Mesh, crease: float = CREASE) -> tuple[Mesh, np.ndarray]:
    """Return the mesh with vertices doubled at creases, and their unit normals (V', 3) float32.

    A corner takes the mean normal of the faces that meet at its position (weighted by area, also
    across texture seams), unless its own face leans away from that by more than `crease` degrees:
    then it gets a vertex of its own with the face's normal.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # (F, 3, 3)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = _unit(areas)  # (F, 3)
    place = positions(mesh.vertices)  # (V,)
    total = np.zeros((len(mesh.vertices), 3))
    for axis in range(3):
        total[:, axis] = np.bincount(
            place[mesh.faces].ravel(), np.repeat(areas[:, axis], 3), minlength=len(total)
        )
    smooth = _unit(total)[place]  # (V, 3)
    leaning = (smooth[mesh.faces] * flat[:, None]).sum(-1) < np.cos(np.radians(crease))  # (F, 3)
    face, corner = np.nonzero(leaning)
    source = np.concatenate([np.arange(len(mesh.vertices)), mesh.faces[face, corner]])
    faces = mesh.faces.copy()
    faces[face, corner] = np.arange(len(mesh.vertices), len(source))
    normals = np.concatenate([smooth, flat[face]]).astype(np.float32)
    colors = None if mesh.colors is None else mesh.colors[source]
    uv = None if mesh.uv is None else mesh.uv[source]
    return Mesh(mesh.vertices[source], faces, colors, uv, mesh.texture), normals


def positions(vertices: np.ndarray) -> np.ndarray:
    """Return (V,) integers that are equal where `vertices` (V, 3) float32 are at one place."""
    rows = np.ascontiguousarray(vertices + np.float32(0))  # -0 and 0 are one place
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * 3))).ravel()
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Return bilinear values (N, 3) of `texture` (h, w, 3) at `uv` (N, 2), repeating as in glTF.

    uv: origin at the texture's upper left corner; texel (i, j) has its center at
    ((j + 0.5) / w, (i + 0.5) / h).
    """
    height, width = texture.shape[:2]
    place = uv * uv.new_tensor([width, height]) - 0.5  # (N, 2)
    corner = place.floor()
    share = (place - corner).unsqueeze(-1)  # (N, 2, 1)
    left, top = corner.to(torch.int64).unbind(1)

    def texel(dx: int, dy: int) -> Tensor:
        return texture[(top + dy) % height, (left + dx) % width]

    upper = torch.lerp(texel(0, 0), texel(1, 0), share[:, 0])
    lower = torch.lerp(texel(0, 1), texel(1, 1), share[:, 0])
    return torch.lerp(upper, lower, share[:, 1])


def shrink(texture: Tensor, factor: int) -> Tensor:
    """Return `texture` (h, w, 3) with every `factor` by `factor` texels averaged into one."""
    height, width = texture.shape[:2]
    size = max(1, height // factor), max(1, width // factor)
    return F.interpolate(texture.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
