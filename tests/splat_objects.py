"""Gaussians for tests: flat ones all over the surface of a colored mesh."""

import numpy as np

from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.formats import vertex_colors
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.splats import Gaussians


def surface_gaussians(mesh: Mesh, count: int, seed: int = 0) -> Gaussians:
    """Gaussians that lie flat on random places of the mesh and cover it."""
    generator = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # (F, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1) / 2
    face = np.sort(generator.choice(len(area), count, p=area / area.sum()))
    weights = generator.dirichlet((1, 1, 1), count)[..., None]  # (N, 3, 1)
    normal = normals[face] / (2 * area[face, None])
    wide = np.sqrt(area.sum() / count)
    turn = np.cross([0, 0, 1], normal)
    rotations = np.column_stack([1 + normal[:, 2], turn])  # carries z to the normal
    rotations[np.linalg.norm(rotations, axis=1) < 1e-6] = (0, 1, 0, 0)
    known = vertex_colors(mesh)
    linear = np.full((len(mesh.vertices), 3), 0.5) if known is None else known
    return Gaussians(
        (corners[face] * weights).sum(1),
        np.tile([wide, wide, wide / 10], (count, 1)),
        rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        generator.uniform(0.6, 1, count),
        to_srgb((linear[mesh.faces[face]] * weights).sum(1)),
    )


def splat_object(mesh: Mesh, count: int, pose: Pose, *, with_mesh: bool = True) -> Object3D:
    """An object of gaussians on `mesh`, which it keeps or not."""
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    source = Provenance("sam-3d-objects", "1", "0.1", "0" * 64, mask_index=0)
    return Object3D(
        mesh if with_mesh else empty, pose, source, "splats", surface_gaussians(mesh, count)
    )
