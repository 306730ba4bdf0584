"""Oriented boxes around points: the tightest ones, in a fixed order, without chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from sam3d_nb.frames import Pose, rotation_matrix
from sam3d_nb.mesh.topology import face_areas

MOST_DIRECTIONS = 60
"""How many directions of flat hull faces are tried, the largest faces first."""
MOST_EDGES = 100
"""How many edges of a flat outline are tried, the longest first."""
SAME_DIRECTION = float(np.cos(np.radians(2)))


@dataclass(frozen=True, eq=False)
class Box:
    """A box that need not stand along the coordinate axes.

    center: (3,). axes: (3, 3), unit columns, right-handed. size: (3,), lengths along the axes.
    """

    center: np.ndarray
    axes: np.ndarray
    size: np.ndarray

    @property
    def volume(self) -> float:
        """Product of the three lengths."""
        return float(self.size.prod())

    @property
    def face_areas(self) -> np.ndarray:
        """Area of the face across each axis, (3,)."""
        return self.size[[1, 0, 0]] * self.size[[2, 2, 1]]

    def moved(self, pose: Pose) -> Box:
        """Return the box in the frame into which `pose` carries it; its scale must be 1."""
        return Box(
            pose.apply([self.center])[0], rotation_matrix(pose.rotation) @ self.axes, self.size
        )


def fitted_boxes(points: np.ndarray, directions: np.ndarray | None = None) -> list[Box]:
    """Return boxes that hold all `points` (N, 3), the one of least volume first.

    Each has one axis along a flat face of the convex hull, along a principal axis of the points,
    or along one of `directions` (D, 3), and the other two so that its volume is least. The box of
    least volume is found where one of its faces lies on a face of the hull, as at most things that
    stand on something. The same points give the same boxes.
    """
    points = np.asarray(points, dtype=np.float64)
    normals, corners = _hull(points)
    tried = [principal_axes(points).T, normals]
    if directions is not None:
        tried.insert(0, np.asarray(directions, dtype=np.float64))
    boxes = [_box_along(n, corners) for n in _distinct(np.concatenate(tried))]
    return sorted(boxes, key=lambda box: box.volume)


def principal_axes(points: np.ndarray) -> np.ndarray:
    """Return the principal axes of points (N, 3) as columns (3, 3), the longest first."""
    return np.linalg.svd(np.cov(points.T, bias=True))[0] if len(points) > 1 else np.eye(3)


def _hull(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return normals (D, 3) of the hull's faces, the largest first, and its corners (M, 3)."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # all in one plane, or on one line
        return np.zeros((0, 3)), points
    area = face_areas(points, hull.simplices)
    normals = hull.equations[:, :3]
    _, first, group = np.unique(
        np.round(normals, 3), axis=0, return_index=True, return_inverse=True
    )
    total = np.bincount(group.ravel(), weights=area)
    order = np.lexsort((first, -np.round(total / area.sum(), 9)))[:MOST_DIRECTIONS]
    return normals[first[order]], points[hull.vertices]


def _distinct(directions: np.ndarray) -> np.ndarray:
    """Return `directions` (D, 3) without those that repeat an earlier one or its opposite."""
    kept: list[np.ndarray] = []
    for direction in directions:
        if all(abs(direction @ other) < SAME_DIRECTION for other in kept):
            kept.append(direction)
    return np.array(kept)


def _box_along(normal: np.ndarray, corners: np.ndarray) -> Box:
    """Return the box of least volume around `corners` (M, 3) with an axis along `normal` (3,)."""
    normal = normal / np.linalg.norm(normal)
    across = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    u = across / np.linalg.norm(across)
    v = np.cross(normal, u)
    angle = _tightest_turn(corners @ np.stack([u, v], axis=1))
    u, v = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    axes = np.stack([u, normal, np.cross(u, normal)], axis=1)
    local = corners @ axes
    low, high = local.min(0), local.max(0)
    return Box(axes @ ((low + high) / 2), axes, high - low)


def _tightest_turn(points: np.ndarray) -> float:
    """Return the angle of the rectangle of least area around `points` (M, 2).

    It has a side along an edge of their hull.
    """
    try:
        corners = points[ConvexHull(points).vertices]  # in order around
    except QhullError:
        longest = np.linalg.svd(np.cov(points.T, bias=True))[0][:, 0]
        return float(np.arctan2(longest[1], longest[0]))
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.round(np.linalg.norm(edges, axis=1) / np.ptp(corners), 9)
    edges = edges[np.argsort(-lengths, kind="stable")[:MOST_EDGES]]
    angles = np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2)  # (E,)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = corners.T
    areas = np.ptp(cos * x + sin * y, axis=1) * np.ptp(cos * y - sin * x, axis=1)
    return float(angles[areas.argmin()])
