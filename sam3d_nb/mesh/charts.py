"""Cutting a surface into charts that lie flat without folds: seen along the six axes.

Each triangle goes to the axis that it faces most, after its normal was smoothed; what hangs
together becomes a chart and is projected along its mean normal or, where a triangle would fold
over, along its axis. Where a chart covers itself, the farther layer becomes a chart of its own.
Coarser than angle-preserving charts, but quick and the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from sam3d_nb.mesh.pack import pack
from sam3d_nb.mesh.subdivide import unique_edges
from sam3d_nb.mesh.topology import components, face_normals, paired
from sam3d_nb.view.scan import scan

AXES = np.concatenate([np.eye(3), -np.eye(3)])
SMOOTHING = 10  # times that normals are averaged with those of the neighbors
STEEPEST = 0.15  # smallest cosine between a triangle's normal and the way that it is seen
SMALL = 0.002  # of all area: charts below it join a neighbor where they can
ROUNDS = 4  # of joining small charts
LAYERS = 12  # times that charts which cover themselves are parted
TINY = 4.0  # pixels: an area that may lie on either side of such a cut
ANGLES = np.radians(np.arange(0, 90, 7.5))  # turns of a chart that are tried


@dataclass(frozen=True, eq=False)
class Flat:
    """A mesh cut open and laid out in a square of `side` pixels.

    faces: (F, 3) into the new vertices. source: (W,) the old vertex of each. position: (W, 2) in
    pixels, from the upper left corner. depth: (W,) pixels away from who looks at the chart.
    scale: pixels a unit of the mesh.
    """

    faces: np.ndarray
    source: np.ndarray
    position: np.ndarray
    depth: np.ndarray
    scale: float


def planar_charts(vertices: np.ndarray, faces: np.ndarray, side: int, gap: int) -> Flat:
    """Return the faces (F, 3) laid out as planar charts, `gap` pixels apart."""
    triangles = _Triangles(vertices, faces)
    axis = triangles.axes()
    chart = triangles.pieces(axis)
    for _ in range(LAYERS):
        flat = triangles.lay_out(chart, axis, side, gap)
        buried = _buried(flat, side)
        if not buried.any():
            break
        chart = triangles.parted(chart, buried, TINY / flat.scale**2)
    return flat


class _Triangles:
    """Triangles with their neighbors."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.vertices, self.faces = vertices.astype(np.float64), faces
        normals = face_normals(vertices, faces)
        length = np.linalg.norm(normals, axis=1)
        self.area = length / 2
        self.normals = normals / np.where(length > 0, length, 1)[:, None]
        first, second = paired(unique_edges(faces)[1])
        self.first, self.second = first // 3, second // 3
        pairs = np.concatenate([self.first, self.second]), np.concatenate([self.second, self.first])
        self.beside = csr_array((np.ones(len(pairs[0])), pairs), shape=(len(faces),) * 2)

    def pieces(self, label: np.ndarray) -> np.ndarray:
        """Return the component (F,) of each face among neighbors of the same label (F,)."""
        same = label[self.first] == label[self.second]
        return components(len(self.faces), self.first[same], self.second[same])

    def axes(self) -> np.ndarray:
        """Return the axis (F,), into `AXES`, that each face is seen along."""
        smooth = self.normals * self.area[:, None]
        for _ in range(SMOOTHING):
            smooth = smooth + self.beside @ smooth
            smooth /= np.maximum(np.linalg.norm(smooth, axis=1), 1e-30)[:, None]
        visible = self.normals @ AXES.T > STEEPEST  # (F, 6)
        visible |= ~visible.any(1, keepdims=True)  # of no area: any
        label = np.where(visible, smooth @ AXES.T, -2).argmax(1)
        for _ in range(ROUNDS):
            chart = self.pieces(label)
            small = np.bincount(chart, self.area) < SMALL * self.area.sum()  # (C,)
            votes = self.beside @ (np.eye(6)[label] * ~small[chart][:, None])  # (F, 6)
            votes = _summed(votes, chart)
            votes[_summed(~visible, chart) > 0] = 0
            moved = small & votes.any(1)
            if not moved.any():
                break
            label = np.where(moved[chart], votes.argmax(1)[chart], label)
        return label

    def parted(self, chart: np.ndarray, buried: np.ndarray, smallest: float) -> np.ndarray:
        """Return the charts after their buried faces (F,) became charts of their own.

        Pieces below the area `smallest` go with most of their neighbors in the same chart.
        """
        inside = chart[self.first] == chart[self.second]
        a, b = self.first[inside], self.second[inside]
        for _ in range(ROUNDS):
            piece = self.pieces(2 * chart + buried)
            small = (np.bincount(piece, self.area) < smallest)[piece]  # (F,)
            votes = np.zeros(len(chart))
            for one, other in ((a, b), (b, a)):
                known = ~small[other]
                side = np.where(buried[other[known]], 1, -1)
                votes += np.bincount(one[known], side, minlength=len(chart))
            votes = _summed(votes, piece)[piece]
            moved = small & (votes != 0) & ((votes > 0) != buried)
            if not moved.any():
                break
            buried = buried ^ moved
        return self.pieces(2 * chart + buried)

    def lay_out(self, chart: np.ndarray, axis: np.ndarray, side: int, gap: int) -> Flat:
        """Return the charts projected, turned and packed."""
        frames = self.frames(chart, axis)  # (C, 3, 3)
        size = len(self.vertices)
        key, compact = np.unique(chart[:, None] * size + self.faces, return_inverse=True)
        owner, source = key // size, key % size  # (W,)
        placed = np.einsum("wij,wj->wi", frames[owner], self.vertices[source])
        flat = _turned(placed[:, :2], owner)
        low, high = _bounds(flat, owner)
        corners, scale = pack(high - low, side, gap)
        position = (flat - low[owner]) * scale + corners[owner]
        return Flat(compact.reshape(-1, 3), source, position, -placed[:, 2] * scale, scale)

    def frames(self, chart: np.ndarray, axis: np.ndarray) -> np.ndarray:
        """Return each chart's view (C, 3, 3): unit vectors right, down and towards the viewer."""
        mean = _summed(self.normals * self.area[:, None], chart)
        length = np.linalg.norm(mean, axis=1)
        mean /= np.where(length > 0, length, 1)[:, None]
        facing = (mean[chart] * self.normals).sum(1)
        folded = _summed((facing < STEEPEST) & (self.area > 0), chart) > 0
        folded |= length == 0
        own = np.empty((len(mean), 3))
        own[chart] = AXES[axis]
        toward = np.where(folded[:, None], own, mean)
        aside = np.eye(3)[np.abs(toward).argmin(1)]
        right = np.cross(aside, toward)
        right /= np.linalg.norm(right, axis=1)[:, None]
        return np.stack([right, np.cross(right, toward), toward], axis=1)


def _buried(flat: Flat, side: int) -> np.ndarray:
    """Return which faces (F,) lie under one that is no neighbor, at some pixel's center."""
    plane = np.stack([*flat.position.T, np.ones(len(flat.depth)), flat.depth], axis=1)
    buried = np.zeros(len(flat.faces), dtype=bool)
    seen = list(scan(torch.from_numpy(plane[flat.faces]), side, side))
    if not seen:
        return buried
    face, pixel, depth = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
    shared = np.bincount(pixel)[pixel] > 1
    face, pixel, depth = face[shared], pixel[shared], depth[shared]
    order = np.lexsort((face, depth, pixel))
    face, pixel = face[order], pixel[order]
    start = np.r_[True, np.diff(pixel) > 0][: len(pixel)]
    top = face[start][np.cumsum(start) - 1]  # the face in front, (N,)
    corners = flat.source[flat.faces]  # (F, 3)
    touching = (corners[face][:, :, None] == corners[top][:, None]).any((1, 2))
    buried[face[~touching]] = True
    return buried


def _summed(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the sums over groups, (G,) or (G, n), of values (F,) or (F, n)."""
    count = int(group.max(initial=-1)) + 1
    if values.ndim == 1:
        return np.bincount(group, values, minlength=count)
    return np.stack([np.bincount(group, column, minlength=count) for column in values.T], axis=1)


def _bounds(points: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest corner, (G, 2) each, of points (W, 2); groups ascend."""
    first = np.flatnonzero(np.r_[True, np.diff(group) > 0])
    return np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)


def _turned(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return points (W, 2) turned, group by group, so that their box is smallest, and not tall."""
    areas = []
    for angle in ANGLES:
        low, high = _bounds(points @ _rotation(angle), group)
        areas.append((high - low).prod(1))
    best = ANGLES[np.argmin(areas, axis=0)]
    turned = np.einsum("wi,wij->wj", points, _rotation(best)[group])
    low, high = _bounds(turned, group)
    tall = (high - low)[:, 1] > (high - low)[:, 0]
    best = np.where(tall, best + np.pi / 2, best)
    return np.einsum("wi,wij->wj", points, _rotation(best)[group])


def _rotation(angle: np.ndarray) -> np.ndarray:
    """Return matrices (..., 2, 2) that turn row vectors by `angle` (...)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)
