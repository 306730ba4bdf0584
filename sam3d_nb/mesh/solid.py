"""Closed components: which way they face, and which of them enclose anything."""

from __future__ import annotations

import numpy as np

from sam3d_nb.mesh.subdivide import unique_edges
from sam3d_nb.mesh.topology import face_components, face_normals, face_volumes, paired

THINNEST = 1e-6  # volume over area to the power 3/2; a ball has 0.094


def without_sheets(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces (G, 3) of those closed components that enclose a volume."""
    part = _parts(faces)
    volume = np.abs(np.bincount(part, face_volumes(vertices, faces)))
    area = np.bincount(part, np.linalg.norm(face_normals(vertices, faces), axis=1)) / 2
    return faces[(volume > THINNEST * area**1.5)[part]]


def facing_out(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces of closed components, turned outward where they are inside out.

    A component that is inside out and lies within another one is a cavity and stays.
    """
    part = _parts(faces)
    volume = np.bincount(part, face_volumes(vertices, faces))
    if (volume >= 0).all():
        return faces
    corners = vertices[faces]  # (F, 3, 3)
    low, high = (np.full((len(volume), 3), s * np.inf) for s in (1, -1))
    np.minimum.at(low, part, corners.min(1))
    np.maximum.at(high, part, corners.max(1))
    turn = np.zeros(len(volume), dtype=bool)
    for inner in np.flatnonzero(volume < 0):
        around = (low <= low[inner]).all(1) & (high >= high[inner]).all(1)
        around[inner] = False
        shells = corners[around[part]]
        point = corners[np.argmax(part == inner), 0]
        turn[inner] = abs(_winding_number(point, shells)) < 0.5
    if not turn.any():
        return faces
    return np.where(turn[part][:, None], faces[:, ::-1], faces)


def _parts(faces: np.ndarray) -> np.ndarray:
    """Return the component (F,) of each face."""
    return face_components(len(faces), *paired(unique_edges(faces)[1]))


def _winding_number(point: np.ndarray, corners: np.ndarray) -> float:
    """Return how often closed triangles (F, 3, 3) go around a point (3,).

    From the solid angle of each (van Oosterom and Strackee 1983).
    """
    if not len(corners):
        return 0.0
    a, b, c = np.moveaxis(corners - point, 1, 0)  # each (F, 3)
    na, nb, nc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    above = (a * np.cross(b, c)).sum(1)
    below = na * nb * nc + (a * b).sum(1) * nc + (b * c).sum(1) * na + (c * a).sum(1) * nb
    return float(np.arctan2(above, below).sum() / (2 * np.pi))
