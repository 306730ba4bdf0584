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
