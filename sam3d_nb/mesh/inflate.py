"""A flat mesh blown up to a closed surface, thick in the middle and round at the rim."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from sam3d_nb.mesh.subdivide import split_edges, unique_edges

ROUNDS = 4
"""How often steep edges at the rim are halved."""


def inflate(
    points: np.ndarray, faces: np.ndarray, border: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the flat mesh with a height a point: points (Q, 2), faces (G, 3), border (Q,), height.

    points: (P, 2) in any unit; faces: (F, 3); border: (P,) bool; spacing: mean edge length.
    The height h (Q,) in the same unit solves -laplace(h^2) = 4 with h = 0 on the border, so that
    a disc becomes a half ball. Near the border, where h rises steeply, edges are split.
    """
    squared = _solve_poisson(points, faces, border)
    height = np.sqrt(np.maximum(squared, (1e-3 * spacing) ** 2)) * ~border
    for _ in range(ROUNDS):
        edges, face_edges = unique_edges(faces)
        low, high = _ordered_by(height, edges)
        steep = height[high] - height[low] > 2.5 * spacing
        if not steep.any():
            break
        low, high = low[steep], high[steep]
        # h^2 is linear along an edge, so the point at half the height is not halfway.
        middle = (height[low] + height[high]) / 2
        share = (middle**2 - height[low] ** 2) / (height[high] ** 2 - height[low] ** 2)
        midpoint = np.full(len(edges), -1)
        midpoint[steep] = len(points) + np.arange(len(low))
        faces = split_edges(faces, face_edges, midpoint)
        new = points[low] + share[:, None] * (points[high] - points[low])
        points = np.concatenate([points, new])
        height = np.concatenate([height, middle])
        border = np.concatenate([border, np.zeros(len(low), dtype=bool)])
    return points, faces, border, height


def _ordered_by(height: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the higher end (E,) of each edge."""
    start, end = edges.T
    rising = height[start] <= height[end]
    return np.where(rising, start, end), np.where(rising, end, start)


def _solve_poisson(points: np.ndarray, faces: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Return u (P,) with -laplace(u) = 4 and u = 0 on the border; linear finite elements."""
    corners = points[faces]  # (F, 3, 2)
    opposite = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)  # edge facing corner k
    first, second = opposite[:, 0], opposite[:, 1]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2  # (F,)
    stiffness = opposite @ opposite.transpose(0, 2, 1) / (4 * area[:, None, None])  # (F, 3, 3)
    load = np.bincount(faces.reshape(-1), np.repeat(4 * area / 3, 3), minlength=len(points))

    row = np.repeat(faces, 3, axis=1).reshape(-1)
    column = np.tile(faces, (1, 3)).reshape(-1)
    matrix = coo_array((stiffness.reshape(-1), (row, column)), shape=(len(points),) * 2).tocsc()
    free = np.flatnonzero(~border)
    factors = splu(
        matrix[free][:, free], permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
    )
    solution = np.zeros(len(points))
    solution[free] = factors.solve(load[free])
    return solution


def close(
    front: np.ndarray, back: np.ndarray, faces: np.ndarray, border: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the closed surface of two sheets: vertices (V, 3), faces (2 F, 3), source (V,).

    front, back: (P, 3), the same on the border, where they are joined; faces: (F, 3),
    counter-clockwise seen from the front. source: the point that each vertex came from.
    """
    inner = np.flatnonzero(~border)
    mirror = np.arange(len(front))
    mirror[inner] = len(front) + np.arange(len(inner))
    vertices = np.concatenate([front, back[inner]])
    source = np.concatenate([np.arange(len(front)), inner])
    return vertices, np.concatenate([faces, mirror[faces][:, ::-1]]), source
