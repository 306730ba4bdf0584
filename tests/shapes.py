"""Plain shapes for tests: vertices (V, 3) float64 and faces (F, 3), closed, turned outward."""

import numpy as np

from sam3d_nb.mesh import Mesh


def icosphere(subdivisions: int, radius: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A ball around 0 with 20 * 4 ** subdivisions triangles."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions, radius)
    return np.array(ball.vertices), np.array(ball.faces, dtype=np.int64)


def box(size: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An axis-aligned box around 0."""
    import trimesh

    cuboid = trimesh.creation.box(size)
    return np.array(cuboid.vertices), np.array(cuboid.faces, dtype=np.int64)


def mesh(
    shape: tuple[np.ndarray, np.ndarray], shift: tuple[float, float, float] = (0, 0, 0)
) -> Mesh:
    """The shape as a mesh, moved by `shift`."""
    return Mesh((shape[0] + np.asarray(shift)).astype(np.float32), shape[1].astype(np.int32))


def winding_numbers(shape: Mesh, points: np.ndarray) -> np.ndarray:
    """Generalized winding numbers (Jacobson et al. 2013) by summing solid angles."""
    corners = shape.vertices[shape.faces].astype(np.float64)
    result = np.zeros(len(points))
    for a, b, c in corners:
        u, v, w = a - points, b - points, c - points
        x, y, z = (np.linalg.norm(k, axis=1) for k in (u, v, w))
        volume = np.einsum("ij,ij->i", u, np.cross(v, w))
        flat = x * y * z + (u * v).sum(1) * z + (v * w).sum(1) * x + (w * u).sum(1) * y
        result += np.arctan2(volume, flat) / (2 * np.pi)
    return result
