"""Which cells of a grid lie inside a mesh, also where the mesh has holes, and the overlap of two.

Rays through the cells' centers along the three axes meet the triangles (exactly, by scan
conversion). Where all three axes tell the same winding numbers, as for closed meshes that face
one way, those decide. Otherwise each connected part is filled by itself: by its own winding
number where every ray leaves it as often as it enters, else by a vote: a cell is inside where more
axes find it between an odd and an even crossing than find it outside; rays with an odd number of
crossings have gone through a hole and do not vote.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.places import places
from sam3d_nb.view.scan import scan

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
    cell = np.maximum(high - low, 1e-9 * max(float((high - low).max()), 1e-30)) / resolution
    points = (mesh.vertices - low) / cell  # (V, 3), in cells
    faces = places(mesh.vertices)[mesh.faces]  # (F, 3), corners at one place joined
    part = _parts(faces, len(points))  # (F,)
    kept = _kept(faces, part)
    faces, part = faces[kept], part[kept]
    rays = [_crossings(points[faces], axis, resolution) for axis in range(3)]
    winding = np.stack([r.winding() for r in rays])  # (3, R, R, R)
    allowed = DISAGREEMENT * (winding != 0).any(0).sum()
    differing = (winding != winding[0]).any(0).sum()
    if differing <= allowed and sum(r.unbalanced() for r in rays) <= allowed:
        return np.median(winding, axis=0) != 0
    return _fill_parts(rays, part)


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


def _kept(faces: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return which faces (F, 3) count, (F,) bool: each once, and one side of double-sided parts.

    A part is double-sided where most of its faces are there both ways round. Where only some are,
    two solids touch, and both ways belong.
    """
    first = np.argmin(faces, axis=1)[:, None]
    turned = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
    once = np.zeros(len(faces), dtype=bool)
    once[np.unique(turned, axis=0, return_index=True)[1]] = True
    _, index, twins, counts = np.unique(
        np.sort(faces, axis=1)[once],
        axis=0,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    paired = counts[twins.reshape(-1)] > 1
    size = int(part.max(initial=-1)) + 1
    double = np.bincount(part[once], paired, size) > 0.5 * np.bincount(part[once], minlength=size)
    front = np.zeros(len(paired), dtype=bool)
    front[index] = True
    kept = once.copy()
    kept[once] = front | ~double[part[once]]
    return kept


@dataclass(frozen=True, eq=False)
class _PartRays:
    """The rays of one direction, each parted by the connected parts that it meets: R rows.

    part, column: (R,). winding, crossed: (R, resolution + 1), after every step, how often a cell
    is enclosed and how many triangles lie before it; the last step is behind everything.
    """

    along: _Crossings
    part: np.ndarray
    column: np.ndarray
    winding: np.ndarray
    crossed: np.ndarray

    @staticmethod
    def of(along: _Crossings, part: np.ndarray) -> _PartRays:
        """Sort the crossings by part (F,) and ray."""
        steps, columns = along.resolution + 1, along.resolution**2
        rows, row = np.unique(part[along.face] * columns + along.column, return_inverse=True)
        place, size = row * steps + along.step, len(rows) * steps
        winding = np.bincount(place, along.enters, size).reshape(-1, steps).cumsum(1)
        crossed = np.bincount(place, minlength=size).reshape(-1, steps).cumsum(1)
        return _PartRays(along, rows // columns, rows % columns, winding.round(), crossed)


def _fill_parts(rays: list[_Crossings], part: np.ndarray) -> np.ndarray:
    """Fill every connected part (F,) by itself, (R, R, R) bool."""
    r = rays[0].resolution
    tables = [_PartRays.of(along, part) for along in rays]
    count = int(part.max(initial=-1)) + 1
    met = sum(np.bincount(t.part, minlength=count) for t in tables)
    open_rays = sum(np.bincount(t.part, t.winding[:, r] != 0, count) for t in tables)
    closed = np.asarray(open_rays) <= DISAGREEMENT * np.asarray(met)  # (parts,)

    found, holes = [], []
    for t in tables:
        whole = closed[t.part]
        hole = ~whole & (t.crossed[:, r] % 2 == 1)
        holes.append(t.part[hole] * r**2 + t.column[hole])
        enclosed = np.where(whole[:, None], t.winding != 0, t.crossed % 2 == 1)[:, :r]
        row, step = np.nonzero(enclosed & ~hole[:, None])
        found.append(t.part[row] * r**3 + t.along.cells(t.column[row], step))
    keys, votes = np.unique(np.concatenate(found), return_counts=True)
    owner, cells = keys // r**3, keys % r**3
    abstaining = np.zeros(len(keys), dtype=np.int64)
    for along, gone in zip(rays, holes, strict=True):
        abstaining += np.isin(owner * r**2 + along.column_of(cells), gone)
    inside = np.zeros(r**3, dtype=bool)
    inside[cells[votes > 3 - votes - abstaining]] = True
    return inside.reshape(r, r, r)
