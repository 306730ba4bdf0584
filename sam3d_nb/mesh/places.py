"""Vertices at the same place, as seams of textures and creases have them."""

from __future__ import annotations

import numpy as np


def places(vertices: np.ndarray) -> np.ndarray:
    """Return for each vertex the first one (V,) at exactly the same position (V, 3), -0 being 0."""
    rows = np.ascontiguousarray(vertices) + np.zeros(1, dtype=vertices.dtype)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * 3))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]
