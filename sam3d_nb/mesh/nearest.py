"""The closest point of a surface to many points, and the surface's color there."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from scipy.spatial import cKDTree

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.view.shading import LINEAR_OF_SRGB, sample_texture

CANDIDATES = (12, 64, 512)  # triangles looked at, more where fewer do not settle it
BLOCK = 1 << 13  # points that a thread works on
PAIRS = 1 << 15  # of point and triangle at once, so that they stay in the cache
SPREAD = 1.5  # largest radius of a piece of triangle, in mean triangle sides
REACH = 0.02  # of the longest side: how much farther a triangle that faces the right way may be
TOUCHING = 1e-12  # of the longest side: a point on a triangle, but for rounding

Best = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of n points: face (n,), place on it (n, 2), distance (n,) and cost (n,), which decides."""


@dataclass(frozen=True, eq=False)
class Spots:
    """Places on the triangles of a mesh.

    face: (N,) int64. weights: (N, 3) float64 of the face's corners, which sum to 1.
    distance: (N,) float64 from the points that were asked for.
    """

    face: np.ndarray
    weights: np.ndarray
    distance: np.ndarray


class Surface:
    """The triangles of a mesh, ready to be asked for closest points.

    Raises InputError where there are none.
    """

    def __init__(self, mesh: Mesh) -> None:
        if not len(mesh.faces):
            raise InputError("a mesh without triangles has no closest points")
        self.mesh = mesh
        corners = mesh.vertices[mesh.faces].astype(np.float64)  # (F, 3, 3)
        a, b, c = corners.transpose(1, 0, 2)
        self.triangles = np.stack([a, b - a, c - a], 1)  # (F, 3, 3) first corner, two sides
        self.normals = np.cross(b - a, c - a)  # (F, 3), not unit
        size = float(np.ptp(mesh.bounds, axis=0).max())
        self.reach, self.touching = REACH * size, TOUCHING * size

    @cached_property
    def _pieces(self) -> _Pieces:
        return _Pieces(self.mesh.vertices[self.mesh.faces].astype(np.float64))

    def closest(
        self,
        points: np.ndarray,
        normals: np.ndarray | None = None,
        guess: np.ndarray | None = None,
    ) -> Spots:
        """Return the closest place to each of `points` (N, 3), looking at up to 512 triangles.

        normals: (N, 3), any length; where given, a triangle that faces away is taken only where
        none that faces the same way lies within `REACH`: so the sides of a thin wall are told
        apart. guess: (N,) a triangle that each point may lie on; where it does, nothing is nearer,
        and nothing is searched.

        Works on all cores, in Python threads: these steps are too short for PyTorch's own.
        """
        points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 3)
        ways = None if normals is None else np.asarray(normals, dtype=np.float64)
        count = len(points)
        face, share = np.zeros(count, dtype=np.int64), np.zeros((count, 2))
        distance, cost = np.zeros(count), np.zeros(count)

        def settle(find: Callable[..., Best], rows: np.ndarray, *more: np.ndarray) -> None:
            way = None if ways is None else ways[rows]
            found = find(points[rows], way, *more)
            face[rows], share[rows], distance[rows], cost[rows] = found

        rest = np.arange(count)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            if guess is not None:
                only = guess[:, None]  # (N, 1) candidates
                tried = _blocks(rest, PAIRS)
                list(pool.map(lambda rows: settle(self._best, rows, only[rows]), tried))
                rest = rest[cost > self.touching]
            if len(rest):
                search = partial(self._search, self._pieces)
                list(pool.map(lambda rows: settle(search, rows), _blocks(rest, BLOCK)))
        return Spots(face, np.stack([1 - share.sum(1), *share.T], 1), distance)

    def colors(self, spots: Spots) -> np.ndarray:
        """Return the surface's colors (N, 3) float32 linear.

        The texture's, if there is one, else interpolated between the vertices. Raises InputError
        where there are neither.
        """
        mesh = self.mesh
        values = mesh.colors if mesh.texture is None else mesh.uv
        if values is None:
            raise InputError("the mesh has neither vertex colors nor a texture to take colors from")
        blend = blended(values, mesh.faces.take(spots.face, axis=0), spots.weights)
        if mesh.texture is None:
            return blend.astype(np.float32)
        texture = LINEAR_OF_SRGB[torch.tensor(mesh.texture, dtype=torch.int64)]
        return sample_texture(texture, torch.from_numpy(blend).float()).numpy()

    def _search(self, pieces: _Pieces, points: np.ndarray, ways: np.ndarray | None) -> Best:
        """Return the best places for points (n, 3) among all triangles."""
        face, share = np.zeros(len(points), dtype=np.int64), np.zeros((len(points), 2))
        distance, cost = np.zeros(len(points)), np.zeros(len(points))
        rest = np.arange(len(points))
        for k in CANDIDATES:
            near, piece = pieces.tree.query(points[rest], range(1, k + 1))
            known = near[:, -1] - pieces.radius  # no triangle left out is nearer than this
            candidate = pieces.owner[np.minimum(piece, pieces.tree.n - 1)]  # may be fewer than k
            for part in _blocks(np.arange(len(rest)), max(PAIRS // k, 1)):
                rows = rest[part]
                way = None if ways is None else ways[rows]
                found = self._best(points[rows], way, candidate[part])
                face[rows], share[rows], distance[rows], cost[rows] = found
            rest = rest[cost[rest] > known]
            if not len(rest):
                break
        return face, share, distance, cost

    def _best(
        self,
        points: np.ndarray,  # (n, 3)
        ways: np.ndarray | None,  # (n, 3)
        candidate: np.ndarray,  # (n, k) faces
    ) -> Best:
        """Return each point's best place on its candidates."""
        origin, *sides = (self.triangles[candidate, i] for i in range(3))  # (n, k, 3) each
        v, w, square = _on_triangles(points[:, None] - origin, *sides)
        distance = np.sqrt(square)  # (n, k)
        cost = distance
        if ways is not None:
            cost = distance + self.reach * (_dot(self.normals[candidate], ways[:, None]) < 0)
        best = cost.argmin(1)
        row = np.arange(len(points))
        share = np.stack([v[row, best], w[row, best]], 1)
        return candidate[row, best], share, distance[row, best], cost[row, best]


class _Pieces:
    """Triangles (F, 3, 3) cut into small ones, in a tree of their centers.

    owner: (P,) the triangle of each. radius: of the largest one.
    """

    def __init__(self, corners: np.ndarray) -> None:
        pieces, self.owner = _cut(corners)
        centers = pieces.mean(1)  # (P, 3)
        self.radius = float(np.linalg.norm(pieces - centers[:, None], axis=-1).max())
        self.tree = cKDTree(centers)


def blended(values: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values (V, n) of vertices at places on faces (N, 3), by weights (N, 3): (N, n)."""
    a, b, c = (values.take(faces[:, k], axis=0) * weights[:, k, None] for k in range(3))
    return a + b + c


def _blocks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _on_triangles(
    offset: np.ndarray,  # (..., 3) from a triangle's first corner
    p: np.ndarray,  # (..., 3) sides from there to the other two
    q: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the closest place on triangles, in shares v (...) of p and w of q, and distance²."""
    pp, qq, pq = _dot(p, p), _dot(q, q), _dot(p, q)
    op, oq = _dot(offset, p), _dot(offset, q)
    tiny = np.finfo(np.float64).tiny
    determinant = pp * qq - pq * pq
    flat = determinant <= 0
    determinant[flat] = 1
    v, w = (qq * op - pq * oq) / determinant, (pp * oq - pq * op) / determinant
    outside = flat | (v < 0) | (w < 0) | (v + w > 1)

    # There the closest place is on one of the three sides.
    s = (op / np.maximum(pp, tiny)).clip(0, 1)
    t = (oq / np.maximum(qq, tiny)).clip(0, 1)
    u = ((oq - op - pq + pp) / np.maximum(pp + qq - 2 * pq, tiny)).clip(0, 1)
    on_p, on_q = s * (s * pp - 2 * op), t * (t * qq - 2 * oq)  # distance², up to a constant
    r = 1 - u
    on_r = r * (r * pp - 2 * op) + u * (u * qq - 2 * oq) + 2 * r * u * pq
    side_v, side_w = np.where(on_p <= on_q, s, 0), np.where(on_p <= on_q, 0, t)
    third = on_r < np.minimum(on_p, on_q)
    v = np.where(outside, np.where(third, r, side_v), v)
    w = np.where(outside, np.where(third, u, side_w), w)
    gap = offset - p * v[..., None] - q * w[..., None]
    return v, w, _dot(gap, gap)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the dot products (...) of vectors (..., 3); quicker than summing an axis of 3."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _cut(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (F, 3, 3) cut into small ones (P, 3, 3), and the triangle of each (P,).

    The longest side is halved until no piece is wider than `SPREAD` times what triangles of the
    same area in all would be.
    """
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1)  # (F, 3)
    area = np.linalg.norm(normals, axis=1).sum() / 2
    limit = SPREAD * max(np.sqrt(area / len(corners)), sides.max() / 1000)
    owner, small, small_owner = np.arange(len(corners)), [], []
    while len(corners):
        radius = np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=-1).max(1)
        wide = radius > limit
        small.append(corners[~wide])
        small_owner.append(owner[~wide])
        corners, owner = corners[wide], owner[wide].repeat(2)
        longest = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1).argmax(1)
        turn = (longest[:, None] + np.arange(3)) % 3
        a, b, c = np.take_along_axis(corners, turn[..., None], axis=1).transpose(1, 0, 2)
        middle = (a + b) / 2
        corners = np.stack([a, middle, c, middle, b, c], 1).reshape(-1, 3, 3)
    return np.concatenate(small), np.concatenate(small_owner)
