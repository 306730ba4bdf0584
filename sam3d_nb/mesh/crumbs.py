"""Crumbs: closed parts of a mesh that are too small to matter, dropped."""

from __future__ import annotations

import numpy as np

from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.places import places
from sam3d_nb.mesh.topology import components, face_volumes

VOLUME = 0.001
"""Of the volume of the largest part: a crumb has less."""
LENGTH = 0.1
"""Of the longest side of the mesh: a crumb is shorter. So thin legs, cords and leaves are none."""


def without_crumbs(mesh: Mesh) -> Mesh:
    """Return `mesh`, which is watertight, without parts that are crumbs; as it is without any.

    A crumb has less than `VOLUME` of the largest part's volume, and its box is shorter than
    `LENGTH` of the mesh's; small cavities are crumbs too. The largest part always stays, and
    colors and texture of what stays are as they were.
    """
    if not len(mesh.faces):
        return mesh
    a, b, c = places(mesh.vertices)[mesh.faces].T  # seams of a texture do not divide
    label = components(len(mesh.vertices), np.concatenate([a, b]), np.concatenate([b, c]))[a]
    part = (np.bincount(label) > 0).cumsum()[label] - 1  # (F,), from 0 on without gaps
    volume = np.abs(np.bincount(part, face_volumes(mesh.vertices, mesh.faces)))  # (P,)
    crumb = volume < VOLUME * volume.max()
    crumb &= _lengths(mesh, part, crumb[part]) < LENGTH * np.ptp(mesh.bounds, axis=0).max()
    if not crumb.any():
        return mesh
    faces = mesh.faces[~crumb[part]]
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[faces] = True
    colors, uv = (None if rows is None else rows[used] for rows in (mesh.colors, mesh.uv))
    return Mesh(mesh.vertices[used], (used.cumsum() - 1)[faces], colors, uv, mesh.texture)


def _lengths(mesh: Mesh, part: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the longest side (P,) of the box of each part that has `chosen` faces (F,) bool."""
    corners = mesh.vertices[mesh.faces[chosen]]  # (G, 3, 3)
    low = np.full((part.max() + 1, 3), np.inf)
    high = -low
    np.minimum.at(low, part[chosen], corners.min(1))
    np.maximum.at(high, part[chosen], corners.max(1))
    return (high - low).max(1)
