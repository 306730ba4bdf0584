"""Meshes of analytic fields, painted: what a reconstruction looks like, at any resolution."""

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.flexicubes import WEIGHTS, Cells, extract
from sam3d_nb.model.flexicubes_tables import CORNERS
from sam3d_nb.object3d import Object3D, Provenance


def chair(resolution: int, bumps: float = 0.003) -> Mesh:
    """A wavy chair with a ring on its seat, painted in checkers; longest side about 1.

    Two components, thin parts, 4.1 resolution² triangles, closed.
    """
    axis = torch.linspace(-0.5, 0.5, resolution + 1)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)  # (n, n, n, 3)
    distance = torch.stack([_chair(plane, bumps) for plane in points])  # (n, n, n)
    shape = (resolution,) * 3
    negative = torch.zeros(shape, dtype=torch.int64)
    rows = torch.arange(distance.numel()).view(distance.shape)
    windows = [tuple(slice(d, d + resolution) for d in corner) for corner in CORNERS]
    for window in windows:
        negative += distance[window] < 0
    coords = ((negative > 0) & (negative < 8)).nonzero()
    corners = torch.stack([rows[window][tuple(coords.T)] for window in windows], 1)  # (M, 8)
    used, corners = corners.unique(return_inverse=True)
    surface = extract(
        Cells(shape, coords, corners),
        points.view(-1, 3)[used],
        distance.view(-1)[used],
        torch.zeros(len(used), 0),
        torch.zeros(len(coords), WEIGHTS),
    )
    return painted(Mesh(surface.vertices.numpy(), surface.faces.numpy()))


def painted(mesh: Mesh) -> Mesh:
    """The mesh with procedural vertex colors of its places."""
    return Mesh(mesh.vertices, mesh.faces, paint(mesh.vertices))


def paint(points: np.ndarray) -> np.ndarray:
    """Linear colors (N, 3): smooth waves, darker in every second cube."""
    x, y, z = points.T
    waves = np.sin(np.stack([9 * x + 4 * y, 7 * y - 5 * z + 1, 8 * z + 3 * x + 2], 1))
    odd = np.floor(points * 8).sum(1) % 2
    return ((0.5 + 0.35 * waves) * (0.6 + 0.4 * odd[:, None])).astype(np.float32)


def grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat square in x and y around 0, side 1, of 2 (count - 1)² triangles that face +z."""
    axis = np.linspace(-0.5, 0.5, count)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    i = np.arange(count * count).reshape(count, count)
    a, b, c, d = i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return np.stack([x, y, 0 * x], -1).reshape(-1, 3), faces


def cut(mesh: Mesh, keep: np.ndarray) -> Mesh:
    """The mesh with only those faces (F,) bool."""
    return Mesh(mesh.vertices, mesh.faces[keep], mesh.colors)


def object_of(mesh: Mesh) -> Object3D:
    """The mesh as a result that can be saved."""
    pose = Pose((1, 0, 0, 0), (0, 0, 2), (1, 1, 1))
    provenance = Provenance("field", "1", "0.1.0", image_sha256="ab" * 32)
    return Object3D(mesh, pose, provenance, name="chair")


def _chair(p: Tensor, bumps: float) -> Tensor:
    """Signed distances (...) of places (..., 3), about."""
    parts = [_board(p, (0, -0.05, 0), (0.3, 0.03, 0.28), 0.02)]
    parts.append(_board(p, (0, 0.42, -0.32), (0.3, 0.05, 0.02), 0.015))
    for x in (-0.25, 0.25):
        for z in (-0.23, 0.23):
            parts.append(_rod(p, (1.1 * x, -0.47, 1.1 * z), (x, -0.05, z), 0.025))
    for x in (-0.25, -0.125, 0.0, 0.125, 0.25):
        parts.append(_rod(p, (x, -0.05, -0.25), (1.1 * x, 0.42, -0.32), 0.018))
    q = p - p.new_tensor([0, 0.08, 0.05])
    ring = torch.stack([q[..., [0, 2]].norm(dim=-1) - 0.13, q[..., 1]], -1).norm(dim=-1) - 0.05
    waves = (60 * p + p.new_tensor([0, 1, 2])).sin().prod(-1)
    return torch.stack([*parts, ring]).amin(0) + bumps * waves


def _board(
    p: Tensor,
    center: tuple[float, float, float],
    half: tuple[float, float, float],
    radius: float,
) -> Tensor:
    q = (p - p.new_tensor(center)).abs() - p.new_tensor(half) + radius
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0) - radius


def _rod(
    p: Tensor, start: tuple[float, float, float], end: tuple[float, float, float], radius: float
) -> Tensor:
    a, along = p.new_tensor(start), p.new_tensor(end) - p.new_tensor(start)
    share = ((p - a) @ along / along.square().sum()).clamp(0, 1)
    return (p - a - share[..., None] * along).norm(dim=-1) - radius
