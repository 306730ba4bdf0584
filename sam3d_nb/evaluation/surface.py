"""Points on a surface, and how far two surfaces lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.topology import face_areas

THRESHOLD = 0.05
"""Distance up to which a point counts as right for the F-score, in true longest sides."""


@dataclass(frozen=True)
class SurfaceError:
    """How far apart two surfaces are.

    f_score: harmonic mean of precision and recall at `THRESHOLD`, in [0, 1] (Knapitsch et al.
    2017). chamfer: mean of the mean distances in both directions, not squared.
    """

    f_score: float
    chamfer: float


def sample_surface(mesh: Mesh, count: int, seed: int) -> np.ndarray:
    """Return `count` points (count, 3) float64, uniform over the area of the mesh.

    Raises InputError where the mesh has no area.
    """
    return surface_points(mesh, *sample_places(mesh, count, seed))


def sample_places(mesh: Mesh, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places uniform over the area of the mesh: faces (count,), weights (count, 3).

    The weights are barycentric. Raises InputError where the mesh has no area.
    """
    area = face_areas(mesh.vertices, mesh.faces)
    if not area.sum() > 0:
        raise InputError(f"a mesh of {len(mesh.faces)} faces has no area to sample points from")
    generator = np.random.default_rng(seed)
    face = generator.choice(len(area), size=count, p=area / area.sum())
    root, share = np.sqrt(generator.random(count))[:, None], generator.random(count)[:, None]
    return face, np.concatenate([1 - root, root * (1 - share), root * share], axis=1)


def surface_points(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the points (N, 3) float64 at `face` (N,) and barycentric `weights` (N, 3)."""
    a, b, c = (mesh.vertices[mesh.faces[face, i]].astype(np.float64) for i in range(3))
    return weights[:, :1] * a + weights[:, 1:2] * b + weights[:, 2:] * c


def compare_surfaces(predicted: np.ndarray, true: np.ndarray) -> SurfaceError:
    """Compare points (N, 3) and (M, 3) that share one frame whose unit is the true longest side."""
    to_true = cKDTree(true).query(predicted)[0]  # (N,)
    to_predicted = cKDTree(predicted).query(true)[0]  # (M,)
    precision, recall = (to_true <= THRESHOLD).mean(), (to_predicted <= THRESHOLD).mean()
    f_score = 2 * precision * recall / max(precision + recall, 1e-12)
    return SurfaceError(float(f_score), float((to_true.mean() + to_predicted.mean()) / 2))
