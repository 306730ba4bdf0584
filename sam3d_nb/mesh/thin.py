"""A mesh made coarser by clustering: quick whatever the mesh is like, with rougher edges.

For looking at it, and for meshes that quadric error takes apart.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.topology import face_areas

FINEST = 1e-5
"""Of the longest side: the smallest cell, for meshes of next to no area."""


def thinned(mesh: Mesh, budget: int) -> Mesh:
    """Return `mesh` with at most `budget` triangles.

    The mesh itself where it is small enough. Otherwise vertices in one cell of a grid move to
    their mean (Rossignac and Borrel 1993). Those of one piece of the surface become one, with the
    mean of their colors and of their places in the texture: the pieces of a texture stay apart.
    """
    if len(mesh.faces) <= budget:
        return mesh
    area = face_areas(mesh.vertices, mesh.faces).sum()
    cell = float(np.sqrt(2 * area / max(budget, 1)))  # a flat grid of such cells has `budget`
    cell = max(cell, FINEST * float(np.ptp(mesh.bounds, axis=0).max()))
    while True:
        owner = _cells(mesh.vertices, cell)
        faces = owner[mesh.faces]
        distinct = np.flatnonzero((faces != np.roll(faces, 1, axis=1)).all(1))
        order = np.unique(np.sort(faces[distinct], axis=1), axis=0, return_index=True)[1]
        if len(order) <= budget:
            return _merged(mesh, owner, mesh.faces[distinct[np.sort(order)]])
        cell *= 1.1


def _merged(mesh: Mesh, owner: np.ndarray, faces: np.ndarray) -> Mesh:
    """Return `faces` (F, 3) of the mesh with the vertices of one cell and piece made one.

    owner: the cell of each vertex (V,).
    """
    v = len(mesh.vertices)
    pieces = np.zeros(v, dtype=np.int64)
    if mesh.uv is not None:
        a, b, c = mesh.faces.T
        edges = np.concatenate([a, b]), np.concatenate([b, c])
        links = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(v, v))
        pieces = connected_components(links.tocsr(), directed=False)[1].astype(np.int64)
    key = owner * (pieces.max(initial=0) + 1) + pieces
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    used, compact = np.unique(group[faces], return_inverse=True)

    def mean(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else _means(values, group)[used]

    return Mesh(
        _means(mesh.vertices, owner)[owner[first[used]]],
        compact.reshape(-1, 3),
        mean(mesh.colors),
        mean(mesh.uv),
        mesh.texture,
    )


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
