"""Colors into a texture: of a finer mesh, or of gaussians, onto an unwrapped mesh.

Every texel of a chart looks up the color at its place on the surface; all others repeat the
nearest texel, so that neither filtering nor smaller copies of the texture (mips) mix in anything
that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.nearest import Surface, blended
from sam3d_nb.mesh.places import places
from sam3d_nb.mesh.topology import collapsed
from sam3d_nb.mesh.unwrap import check_size
from sam3d_nb.splats import Gaussians
from sam3d_nb.view.scan import scan

NEIGHBORS = 16  # gaussians that a place is colored by
FAINTEST = 1e-6  # opacity
CHUNK = 1 << 16  # places at once; bounds the temporaries to about 100 MB


@dataclass(frozen=True, eq=False)
class Texels:
    """The pixels of a texture that show some of the surface.

    pixel: (N,) int64, row * size + column. face: (N,) int64, of the mesh. points, normals: (N, 3)
    float64, of the surface there.
    """

    pixel: np.ndarray
    face: np.ndarray
    points: np.ndarray
    normals: np.ndarray


def bake(mesh: Mesh, source: Mesh | Gaussians, size: int = 1024) -> Mesh:
    """Return the mesh with a texture of `size` by `size` pixels that shows the colors of `source`.

    mesh: with uv coordinates that do not overlap, as `unwrap` gives them; its own colors go.
    source: a mesh (its texture, else its vertex colors) or gaussians in the same frame, of about
    the same shape; each texel takes the color of the closest place that faces the same way.

    Raises InputError where the mesh has no uv coordinates, the source no colors, or for a size
    that no texture has.
    """
    check_size(size)
    check_colors(source)
    texels = find_texels(mesh, size)
    if isinstance(source, Mesh):
        surface = Surface(source)
        guess = _same_triangles(mesh, source, texels.face)
        found = surface.colors(surface.closest(texels.points, texels.normals, guess))
        colors = to_srgb(found.clip(0, 1))
    else:
        colors = gaussian_colors(source, texels.points)
    texture = np.zeros((size * size, 3), dtype=np.uint8)
    texture[texels.pixel] = np.round(colors.clip(0, 1) * 255)
    empty = np.ones((size, size), dtype=bool)
    empty.reshape(-1)[texels.pixel] = False
    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
    filled = texture.reshape(size, size, 3)[tuple(nearest)]
    return Mesh(mesh.vertices, mesh.faces, uv=mesh.uv, texture=filled)


def check_colors(source: Mesh | Gaussians) -> None:
    """Raise InputError unless `source` has colors to bake."""
    if isinstance(source, Mesh):
        if not source.has_colors:
            raise InputError(
                "there is nothing to bake: the mesh has neither vertex colors nor a texture; "
                "leave the texture off, or give gaussians"
            )
    elif not len(source):
        raise InputError("there is nothing to bake: there are 0 gaussians")


def find_texels(mesh: Mesh, size: int) -> Texels:
    """Return the texels of a mesh with uv coordinates: those whose center lies in a triangle.

    Where that leaves out a triangle's corner, the texel under the corner shows the corner; so
    triangles narrower than a texel have their colors too. Where triangles overlap, the first one
    counts.
    """
    if mesh.uv is None:
        raise InputError("the mesh has no uv coordinates to bake a texture for; unwrap it first")
    position = mesh.uv.astype(np.float64) * size  # (V, 2)
    plane = np.stack([*position.T, np.ones(len(position)), np.zeros(len(position))], axis=1)
    corners = torch.from_numpy(plane[mesh.faces])  # (F, 3, 4)
    owner = torch.full((size * size,), len(corners), dtype=torch.int64)
    for face, pixel, _ in scan(corners, size, size):
        owner.scatter_reduce_(0, pixel, face, "amin")
    pixel = (owner < len(corners)).nonzero()[:, 0]
    face = owner[pixel]
    center = torch.stack([pixel % size, torch.div(pixel, size, rounding_mode="floor")], 1) + 0.5
    weights = _barycentric(corners[face, :, :2], center)  # (N, 3)

    under = np.floor(position).astype(np.int64).clip(0, size - 1) @ (1, size)  # (V,)
    vertex = np.unique(mesh.faces)
    vertex = vertex[(owner[under[vertex]] == len(corners)).numpy()]
    lone, first = np.unique(under[vertex], return_index=True)
    vertex = vertex[first]

    index, share = mesh.faces.take(face.numpy(), axis=0), weights.numpy()
    points, normals = mesh.vertices.astype(np.float64), mesh.normals.astype(np.float64)
    beside = np.zeros(len(points), dtype=np.int64)  # a face of each vertex
    beside[mesh.faces] = np.arange(len(mesh.faces))[:, None]
    return Texels(
        np.concatenate([pixel.numpy(), lone]),
        np.concatenate([face.numpy(), beside[vertex]]),
        np.concatenate([blended(points, index, share), points[vertex]]),
        np.concatenate([blended(normals, index, share), normals[vertex]]),
    )


def _same_triangles(mesh: Mesh, source: Mesh, face: np.ndarray) -> np.ndarray | None:
    """Return the faces (N,) of `source` that faces (N,) of `mesh` probably are, if they are any.

    `unwrap` leaves out triangles that have lost a corner, and keeps the order of the others.
    """
    sound = np.flatnonzero(~collapsed(places(source.vertices)[source.faces]))
    if not 0 < len(sound) <= len(mesh.faces):
        return None
    return sound[np.minimum(face, len(sound) - 1)]


def gaussian_colors(gaussians: Gaussians, points: np.ndarray) -> np.ndarray:
    """Return sRGB colors (N, 3) at points (N, 3): the mean of the nearest gaussians' colors.

    Weighted by opacity and by exp(-d^2 / 2 s^2), with the distance d to a gaussian's center and
    its spread s, the geometric mean of its two longer axes. Blended as screens show them, which
    is how gaussians are trained and rendered.
    """
    check_colors(gaussians)
    tree, count = cKDTree(gaussians.centers), min(NEIGHBORS, len(gaussians))
    spread = torch.from_numpy(np.sort(gaussians.scales, axis=1)[:, 1:]).double().prod(1).sqrt()
    spread = spread.clamp(min=torch.finfo(torch.float32).tiny)
    visible = torch.from_numpy(gaussians.opacities).double().clamp(min=FAINTEST).log()
    colors = torch.from_numpy(gaussians.colors).double()
    found = np.empty((len(points), 3))
    for begin in range(0, len(points), CHUNK):
        part = slice(begin, begin + CHUNK)
        distance, index = tree.query(points[part], range(1, count + 1), workers=-1)
        near, row = torch.from_numpy(distance), torch.from_numpy(index)  # (n, k)
        weight = torch.softmax(visible[row] - (near / spread[row]).square() / 2, dim=1)
        found[part] = (colors[row] * weight[..., None]).sum(1)
    return found


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Return the weights (N, 3) of flat corners (N, 3, 2) at points (N, 2) inside."""
    x, y = ((corners[..., i] - points[:, i, None]).unbind(1) for i in range(2))  # 3 times (N,)
    a, b, c = (x[j] * y[k] - y[j] * x[k] for j, k in ((1, 2), (2, 0), (0, 1)))
    total = a + b + c
    shares = [torch.nan_to_num(side / total, 1.0, 1.0, 0.0).clamp(0, 1) for side in (a, b, c)]
    return torch.stack(shares, 1) / (shares[0] + shares[1] + shares[2])[:, None]
