"""Fewer triangles for the screen: a coarser copy of a mesh by clustering its vertices."""

from __future__ import annotations

import numpy as np

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.formats import vertex_colors


def thinned(mesh: Mesh, budget: int) -> Mesh:
    """Return `mesh` with at most `budget` triangles, for looking at it and for nothing else.

    The mesh itself where it is small enough. Otherwise vertices in one cell of a grid become one
    at their mean (Rossignac and Borrel 1993), and a texture becomes vertex colors.
    """
    if len(mesh.faces) <= budget:
        return mesh
    colors = vertex_colors(mesh)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1).sum() / 2
    cell = float(np.sqrt(2 * area / budget))  # a flat grid of such cells has `budget` triangles
    while True:
        owner = _cells(mesh.vertices, cell)
        faces = owner[mesh.faces]
        distinct = (faces != np.roll(faces, 1, axis=1)).all(1)
        faces = faces[distinct]
        order = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1]
        if len(order) <= budget:
            return Mesh(
                _means(mesh.vertices, owner),
                faces[np.sort(order)],
                None if colors is None else _means(colors, owner),
            )
        cell *= 1.1


def _cells(vertices: np.ndarray, cell: float) -> np.ndarray:
    """Return which non-empty cell of a grid each vertex (V, 3) is in, (V,)."""
    place = np.floor((vertices - vertices.min(0)) / max(cell, 1e-30)).astype(np.int64)
    count = place.max(0) + 1
    key = (place[:, 0] * count[1] + place[:, 1]) * count[2] + place[:, 2]
    return np.unique(key, return_inverse=True)[1].reshape(-1)


def _means(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the mean of `values` (V, 3) in every cell, (C, 3)."""
    counts = np.bincount(owner)
    sums = [np.bincount(owner, values[:, k]) for k in range(values.shape[1])]
    return np.stack(sums, axis=1) / counts[:, None]
