"""The rims of holes in a mesh, and triangles that close them."""

from __future__ import annotations

import heapq

import numpy as np

Edge = tuple[int, int]


def rims(directed: np.ndarray) -> list[np.ndarray]:
    """Return the closed loops that open edges form, each (n,) vertices, in the lid's direction.

    directed: (N, 2) open edges as their faces run along them; at most one enters each vertex.
    Loops start at their lowest vertex and are ordered by it. What does not close is left out.
    """
    before = dict(zip(directed[:, 1].tolist(), directed[:, 0].tolist(), strict=True))
    loops = []
    for start in sorted(before):
        loop, vertex = [], start
        while vertex in before:  # backwards, since a lid runs against the faces beside it
            loop.append(vertex)
            vertex = before.pop(vertex)
        if len(loop) > 2 and vertex == start:
            loops.append(np.array(loop))
    return loops


def lid(points: np.ndarray, taken: set[Edge]) -> np.ndarray | None:
    """Return triangles (n - 2, 3) between the corners of a loop, wound as the loop is.

    points: (n, 3) in order around the hole. taken: pairs (i, j), i < j, of corners that must not
    be joined across the hole, since the mesh joins them already. None where that leaves no way.

    Cuts ears, the shortest new edge first: those that are convex and hold no other corner, seen
    along the loop's mean normal. A loop that is too twisted for that loses its other ears too.
    """
    polygon = _Polygon(points, taken)
    for careful in (True, False):
        while polygon.left > 3 and polygon.cut_ears(careful):
            pass
    return polygon.triangles() if polygon.left == 3 else None


class _Polygon:
    """A loop that loses its corners one after another, each with the triangle at it."""

    def __init__(self, points: np.ndarray, taken: set[Edge]) -> None:
        self.points, self.taken = points, taken
        self.flat = _flattened(points)  # (n, 2)
        self.left = count = len(points)
        self.alive = np.ones(count, dtype=bool)
        self.after = [*range(1, count), 0]
        self.before = [count - 1, *range(count - 1)]
        self.ears: list[tuple[int, int, int]] = []

    def cut_ears(self, careful: bool) -> bool:
        """Go once through all corners, and again through those beside a cut; tell if any was."""
        queue = [self._offer(tip) for tip in np.flatnonzero(self.alive).tolist()]
        heapq.heapify(queue)
        start = self.left
        while queue and self.left > 3:
            _, tip, a, b = heapq.heappop(queue)
            changed = not self.alive[tip] or self.before[tip] != a or self.after[tip] != b
            if changed or (min(a, b), max(a, b)) in self.taken:
                continue
            if careful and not self._is_ear(a, tip, b):
                continue
            self.ears.append((a, tip, b))
            self.alive[tip] = False
            self.left -= 1
            self.after[a], self.before[b] = b, a
            heapq.heappush(queue, self._offer(a))
            heapq.heappush(queue, self._offer(b))
        return self.left < start

    def triangles(self) -> np.ndarray:
        """Return the ears that were cut and the triangle that is left, (n - 2, 3)."""
        last = np.flatnonzero(self.alive)
        return np.array([*self.ears, tuple(last)], dtype=np.int64)

    def _offer(self, tip: int) -> tuple[float, int, int, int]:
        a, b = self.before[tip], self.after[tip]
        return float(((self.points[a] - self.points[b]) ** 2).sum()), tip, a, b

    def _is_ear(self, a: int, tip: int, b: int) -> bool:
        """Tell if the corner at `tip` is convex and its triangle holds no other corner."""
        p, q, r = self.flat[a], self.flat[tip], self.flat[b]
        if not _turn(p, q, r) > 0:
            return False
        inside = (_turn(p, q, self.flat) > 0) & (_turn(q, r, self.flat) > 0)
        inside &= self.alive & (_turn(r, p, self.flat) >= 0)
        return not inside.any()


def _flattened(points: np.ndarray) -> np.ndarray:
    """Return the loop (n, 2) seen along its mean normal (Newell's), counter-clockwise."""
    centered = points - points.mean(0)
    normal = np.cross(centered, np.roll(centered, -1, axis=0)).sum(0)
    length = np.linalg.norm(normal)
    normal = normal / length if length > 0 else np.array([0.0, 0, 1])
    aside = np.eye(3)[np.abs(normal).argmin()]
    x = np.cross(aside, normal)
    x /= np.linalg.norm(x)
    return centered @ np.stack([x, np.cross(normal, x)], axis=1)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return twice the signed area of the triangle a, b, c; the points are (..., 2)."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )
