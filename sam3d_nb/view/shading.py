"""Colors and normals of surfaces: sRGB and linear light, creases, textures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear
from sam3d_nb.mesh.places import places

CREASE = 35.0  # degrees; flatter edges are shaded smooth
MOST_CORNERS = 128
GREY = 0.5  # linear light of a surface that has no color
LINEAR_OF_SRGB = torch.from_numpy(to_linear(np.arange(256) / 255)).float()  # (256,)


def to_srgb(linear: Tensor) -> Tensor:
    """Return sRGB values of linear light, both in [0, 1], any shape (IEC 61966-2-1)."""
    linear = linear.clamp(0, 1)
    bright = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, bright)


def with_normals(mesh: Mesh, crease: float = CREASE) -> tuple[Mesh, np.ndarray]:
    """Return the mesh with vertices doubled at creases, and their unit normals (V', 3) float32.

    A corner's normal is the mean, weighted by area, over the faces that meet at its position (also
    across texture seams) and lean away from its own face by no more than `crease` degrees.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # (F, 3, 3)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat, limit = _unit(areas), float(np.cos(np.radians(crease)))  # (F, 3)
    place = places(mesh.vertices)[mesh.faces]  # (F, 3), equal where positions are
    count = int(place.max(initial=-1)) + 1
    smooth = _unit(_sums(place.ravel(), np.repeat(areas, 3, axis=0), count))  # (P, 3)

    along = (smooth[place] * flat[:, None]).sum(-1)  # (F, 3)
    along[~flat.any(1)] = 1  # faces without area have no say
    flattest = np.ones(count)
    np.minimum.at(flattest, place.ravel(), along.ravel())
    face, corner = np.nonzero(flattest[place] < limit)
    own = _crease_normals(place[face, corner], areas[face], flat[face], limit)

    normals = np.zeros((len(mesh.vertices), 3))
    normals[mesh.faces] = smooth[place]
    source = np.concatenate([np.arange(len(mesh.vertices)), mesh.faces[face, corner]])
    faces = mesh.faces.copy()
    faces[face, corner] = np.arange(len(mesh.vertices), len(source))
    colors = None if mesh.colors is None else mesh.colors[source]
    uv = None if mesh.uv is None else mesh.uv[source]
    split = Mesh(mesh.vertices[source], faces, colors, uv, mesh.texture)
    return split, np.concatenate([normals, own]).astype(np.float32)


def _crease_normals(
    place: np.ndarray, areas: np.ndarray, flat: np.ndarray, limit: float
) -> np.ndarray:
    """Return unit normals (N, 3) of corners, each over those at its place that lean little.

    place: (N,); areas, flat: (N, 3) of each corner's face; limit: cosine of the crease angle. At a
    place where more than MOST_CORNERS meet, a corner takes its face's normal.
    """
    order = np.argsort(place, kind="stable")
    _, start, size = np.unique(place[order], return_index=True, return_counts=True)
    group = np.empty(len(place), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(size)), size)
    few = np.nonzero(size[group] <= MOST_CORNERS)[0]
    sizes = size[group[few]]
    one = np.repeat(few, sizes)  # every corner with every corner at its place
    step = np.arange(len(one)) - np.repeat(sizes.cumsum() - sizes, sizes)
    other = order[start[group[one]] + step]
    near = (flat[one] * flat[other]).sum(1) >= limit
    normals = _unit(_sums(one[near], areas[other[near]], len(place)))
    alone = ~normals.any(1)
    normals[alone] = flat[alone]
    return normals


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


def _sums(owner: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the sums (count, 3) of `values` (N, 3) by their `owner` (N,)."""
    sums = [np.bincount(owner, values[:, k], minlength=count) for k in range(3)]
    return np.stack(sums, axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
