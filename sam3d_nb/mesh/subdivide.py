"""Splitting chosen edges of a triangle mesh without tearing it."""

from __future__ import annotations

import numpy as np


def unique_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges (E, 2), smaller index first, and each face's edges (F, 3) into them.

    Edge k of a face runs from its corner k to its corner k + 1.
    """
    directed = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1)  # (F, 3, 2)
    ordered = np.sort(directed.reshape(-1, 2), axis=1).astype(np.int64)  # (3F, 2)
    key = ordered[:, 0] * (int(faces.max(initial=0)) + 1) + ordered[:, 1]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return ordered[first], inverse.reshape(-1, 3)


def split_edges(faces: np.ndarray, face_edges: np.ndarray, midpoint: np.ndarray) -> np.ndarray:
    """Return the faces (G, 3) after new vertices were put on some of the edges.

    faces: (F, 3); face_edges: (F, 3) from `unique_edges`; midpoint: (E,) the new vertex's index
    on each edge, or -1 where the edge stays whole. Winding is kept; neighbors stay connected,
    since both see the same new vertex on the edge that they share.
    """
    new = midpoint[face_edges]  # (F, 3)
    count = (new >= 0).sum(1)
    pieces = [faces[count == 0]]

    a, b, c, ab, _, _ = _rotated(faces, new, count == 1, first=new >= 0)
    pieces += [_stack(a, ab, c), _stack(ab, b, c)]

    a, b, c, _, bc, ca = _rotated(faces, new, count == 2, first=new < 0)
    pieces += [_stack(ca, bc, c), _stack(a, b, bc), _stack(a, bc, ca)]

    a, b, c, ab, bc, ca = _rotated(faces, new, count == 3, first=new >= 0)
    pieces += [_stack(a, ab, ca), _stack(ab, b, bc), _stack(ca, bc, c), _stack(ab, bc, ca)]
    return np.concatenate(pieces)


def _rotated(
    faces: np.ndarray, new: np.ndarray, chosen: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return corners a, b, c and edge points ab, bc, ca of the chosen faces, each (N,).

    Each face is turned so that its first edge with `first` (F, 3) true becomes ab.
    """
    order = (first[chosen].argmax(1)[:, None] + np.arange(3)) % 3  # (N, 3)
    corners = np.take_along_axis(faces[chosen], order, axis=1)
    points = np.take_along_axis(new[chosen], order, axis=1)
    return (*corners.T, *points.T)


def _stack(*corners: np.ndarray) -> np.ndarray:
    return np.stack(corners, axis=-1)  # (N, 3)
