"""Closed components: which way they face, and which of them enclose anything."""

from __future__ import annotations

import numpy as np

from sam3d_nb.mesh.subdivide import unique_edges
from sam3d_nb.mesh.topology import face_areas, face_components, face_volumes, paired

THINNEST = 1e-6  # volume over area to the power 3/2; a ball has 0.094
WITNESSES = 16  # faces of a component, at most, that tell whether it lies within others
SMALLER = 1.001  # times its volume has what holds a cavity, at least: its twin does not


def without_sheets(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces (G, 3) of those closed components that enclose a volume."""
    part = _parts(faces)
    volume = np.abs(np.bincount(part, face_volumes(vertices, faces)))
    area = np.bincount(part, face_areas(vertices, faces))
    return faces[(volume > THINNEST * area**1.5)[part]]


def facing_out(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces of closed components, turned outward where they are inside out.

    A component that is inside out and lies wholly within larger ones is a cavity and stays.
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
    bottom, top = corners[:, :, 2].min(1), corners[:, :, 2].max(1)  # (F,)
    order = np.argsort(part, kind="stable")
    start = np.searchsorted(part[order], np.arange(len(volume) + 1))
    for inner in np.flatnonzero(volume < 0):
        around = (low <= low[inner]).all(1) & (high >= high[inner]).all(1)
        around &= np.abs(volume) > SMALLER * abs(volume[inner])
        own = order[start[inner] : start[inner + 1]]
        points = corners[own[:: -(-len(own) // WITNESSES)]].mean(1)  # (W, 3)
        level = (bottom <= points[:, 2].max()) & (top >= points[:, 2].min())
        shells = corners[around[part] & level]  # others take time only
        turn[inner] = any(winding_number(point, shells) == 0 for point in points)
    if not turn.any():
        return faces
    return np.where(turn[part][:, None], faces[:, ::-1], faces)


def _parts(faces: np.ndarray) -> np.ndarray:
    """Return the component (F,) of each face."""
    return face_components(len(faces), *paired(unique_edges(faces)[1]))


def winding_number(point: np.ndarray, corners: np.ndarray) -> int:
    """Return how often closed triangles (F, 3, 3) go around a point (3,) that is not on them.

    From the triangles that a ray from the point along x passes through. Where it passes an edge is
    found alike for both triangles there, so that none is counted twice or missed.
    """
    above = corners[:, :, 2] > point[2]  # (F, 3)
    level = above.any(1) & ~above.all(1)
    start, above = corners[level] - point, above[level]  # (G, 3, 3), (G, 3)
    end, then = np.roll(start, -1, axis=1), np.roll(above, -1, axis=1)
    rising, falling = ~above & then, above & ~then  # (G, 3), one edge of a triangle each
    up, down = _at_level(start[rising], end[rising]), _at_level(end[falling], start[falling])
    across = (up[:, 1] > 0) != (down[:, 1] > 0)
    up, down = up[across], down[across]
    share = up[:, 1] / (up[:, 1] - down[:, 1])
    ahead = up[:, 0] + share * (down[:, 0] - up[:, 0]) > 0
    return int(np.where(up[:, 1] > 0, 1, -1)[ahead].sum())


def _at_level(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return x and y (N, 2) where z is 0 on the way from `low` to `high` (N, 3)."""
    share = -low[:, 2] / (high[:, 2] - low[:, 2])
    return low[:, :2] + share[:, None] * (high - low)[:, :2]
