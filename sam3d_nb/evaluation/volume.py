"""Which cells of a grid lie inside a mesh, also where the mesh has holes, and the overlap of two.

Rays through the cells' centers along the three axes meet the triangles (exactly, by scan
conversion). Where all three axes tell the same winding numbers, as for closed meshes that face
one way, those decide. Otherwise each connected part is filled by itself: a cell is inside where
more axes find it between an odd and an even crossing than find it outside; rays with an odd
number of crossings have gone through a hole and do not vote.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam3d_nb.mesh import Mesh
from sam3d_nb.view.scan import scan
from sam3d_nb.view.shading import positions

RESOLUTION = 64
DISAGREEMENT = 0.01  # share of the cells; rounding may flip a few


def volume_iou(predicted: Mesh, true: Mesh, resolution: int = RESOLUTION) -> float:
    """Return intersection over union of two volumes, both meshes in one frame.

    The grid of resolution³ cells spans the box around both. NaN where the truth has no volume.
    """
    low = np.minimum(predicted.bounds[0], true.bounds[0]).astype(np.float64)
    high = np.maximum(predicted.bounds[1], true.bounds[1]).astype(np.float64)
    inside = occupancy(true, low, high, resolution)
    if not inside.any():
        return float("nan")
    other = occupancy(predicted, low, high, resolution)
    return float((inside & other).sum() / (inside | other).sum())


def occupancy(mesh: Mesh, low: np.ndarray, high: np.ndarray, resolution: int) -> np.ndarray:
    """Return which cells' centers lie inside `mesh`, (R, R, R) bool, indexed x, y, z.

    low, high: (3,) corners of the grid in the mesh's frame.
    """
    place = positions(mesh.vertices)  # (V,)
    cell = np.maximum(high - low, 1e-9 * max(float((high - low).max()), 1e-30)) / resolution
    points = np.empty((int(place.max(initial=-1)) + 1, 3))
    points[place] = (mesh.vertices - low) / cell  # in cells
    faces = place[mesh.faces]  # (F, 3)
    faces = faces[np.unique(np.sort(faces, 1), axis=0, return_index=True)[1]]  # each once

    rays = [_crossings(points[faces], axis, resolution) for axis in range(3)]
    winding = np.stack([r.winding() for r in rays])  # (3, R, R, R)
    allowed = DISAGREEMENT * (winding != 0).any(0).sum()
    differing = (winding != winding[0]).any(0).sum()
    if differing <= allowed and sum(r.unbalanced() for r in rays) <= allowed:
        return np.median(winding, axis=0) != 0
    return _vote(rays, _parts(faces, len(points)))


@dataclass(frozen=True, eq=False)
class _Crossings:
    """Where the rays along `axis` meet triangles, (N,) each.

    column: which ray, v * R + u, with u along the next axis and v along the one after. step: the
    first cell behind the crossing, 0 to R. enters: 1 where the triangle faces the ray, else -1.
    """

    axis: int
    resolution: int
    face: np.ndarray
    column: np.ndarray
    step: np.ndarray
    enters: np.ndarray

    def winding(self) -> np.ndarray:
        """Return how often each cell is enclosed, (R, R, R) indexed x, y, z."""
        r = self.resolution
        place = self.column * (r + 1) + self.step
        change = np.bincount(place, self.enters, minlength=r * r * (r + 1))
        along = change.reshape(r, r, r + 1).cumsum(-1)[..., :r].round().astype(np.int32)
        u, v = (self.axis + 1) % 3, (self.axis + 2) % 3
        return np.moveaxis(along, (0, 1, 2), (v, u, self.axis))

    def unbalanced(self) -> int:
        """Return how many rays do not leave as often as they enter."""
        return int((np.bincount(self.column, self.enters).round() != 0).sum())

    def column_of(self, cells: np.ndarray) -> np.ndarray:
        """Return the column (N,) of cells (N,), numbered (x R + y) R + z."""
        r = self.resolution
        xyz = (cells // r**2, cells // r % r, cells % r)
        return xyz[(self.axis + 2) % 3] * r + xyz[(self.axis + 1) % 3]

    def cells(self, column: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return the numbers (N,) of the cells at `step` of `column`."""
        r = self.resolution
        weight = (r * r, r, 1)
        u, v = weight[(self.axis + 1) % 3], weight[(self.axis + 2) % 3]
        return column // r * v + column % r * u + step * weight[self.axis]


def _crossings(corners: np.ndarray, axis: int, resolution: int) -> _Crossings:
    """Shoot rays along `axis` through triangles (F, 3, 3) in cells."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    one = np.ones_like(corners[..., :1])
    screen = np.concatenate([corners[..., [u, v]], one, corners[..., [axis]]], -1)  # (F, 3, 4)
    found = [
        torch.stack([face.double(), column.double(), depth], 1)
        for face, column, depth in scan(torch.from_numpy(screen), resolution, resolution)
    ]
    hits = torch.cat(found).numpy() if found else np.empty((0, 3))
    face, column = hits[:, 0].astype(np.int64), hits[:, 1].astype(np.int64)
    step = np.clip(np.floor(hits[:, 2] - 0.5).astype(np.int64) + 1, 0, resolution)
    p, q = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = p[:, u] * q[:, v] - p[:, v] * q[:, u]  # along the ray
    return _Crossings(axis, resolution, face, column, step, np.where(normal < 0, 1, -1)[face])


def _parts(faces: np.ndarray, count: int) -> np.ndarray:
    """Return which connected part each face (F, 3) belongs to, (F,)."""
    start, end = faces[:, (0, 1)].ravel(), faces[:, (1, 2)].ravel()
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1][faces[:, 0]].astype(np.int64)


def _vote(rays: list[_Crossings], part: np.ndarray) -> np.ndarray:
    """Fill every part by itself by the majority of the axes that can tell, (R, R, R) bool."""
    r = rays[0].resolution
    found, holes = [], []
    for along in rays:
        rows, row = np.unique(part[along.face] * r**2 + along.column, return_inverse=True)
        crossed = np.bincount(row * (r + 1) + along.step, minlength=len(rows) * (r + 1))
        odd = crossed.reshape(len(rows), r + 1).cumsum(1) % 2 == 1
        holes.append(rows[odd[:, r]])
        where, step = np.nonzero(odd[:, :r] & ~odd[:, r:])
        found.append(rows[where] // r**2 * r**3 + along.cells(rows[where] % r**2, step))
    keys, votes = np.unique(np.concatenate(found), return_counts=True)
    owner, cells = keys // r**3, keys % r**3
    abstaining = np.zeros(len(keys), dtype=np.int64)
    for along, hole in zip(rays, holes, strict=True):
        abstaining += np.isin(owner * r**2 + along.column_of(cells), hole)
    inside = np.zeros(r**3, dtype=bool)
    inside[cells[votes > 3 - votes - abstaining]] = True
    return inside.reshape(r, r, r)
