"""Placement by the point map: medians first, then the visible surface onto the points (ICP)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sam3d_nb.frames import Pose
from sam3d_nb.refine.motion import moved
from sam3d_nb.refine.shape import Seen, Shape
from sam3d_nb.refine.window import Window

FEWEST = 16
"""Points of the surface and of the point map that a step needs."""
ROUNDS_OF_MEDIANS = 4
ROUNDS = 15
KEPT = 0.8
"""Share of pairs, the closest ones, that count: the rest are edges and what one side lacks."""
SIDEWAYS = 0.1
"""Weight of distance along the surface, against sliding; distance from the surface has 1."""
HOLD = 1e-3
"""What a motion costs, as a share of the pairs' weight, so that those that nothing asks for stay
small."""
LARGEST_TURN = np.radians(3)
"""Of one round."""
STILL = 1e-4


def by_medians(shape: Shape, pose: Pose, window: Window) -> Pose | None:
    """Return `pose` with scale and translation that match the observed points.

    The median of the visible surface moves onto that of the points, and the median distances from
    there become equal. None where there are too few points.
    """
    observed = window.observed
    if len(observed) < FEWEST:
        return None
    goal, wanted = _middle_and_spread(observed)
    for _ in range(ROUNDS_OF_MEDIANS):
        visible = shape.seen(pose, window).points
        if len(visible) < FEWEST:  # not in the window yet
            visible = pose.apply(shape.vertices)
        middle, own = _middle_and_spread(visible)
        if min(own, wanted) <= 0:
            return None
        pose = moved(pose, middle, np.zeros(3), goal - middle, float(np.log(wanted / own)))
    return pose


def _middle_and_spread(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the median (3,) of `points` (N, 3) and the median distance from there."""
    middle = np.median(points, axis=0)
    return middle, float(np.median(np.linalg.norm(points - middle, axis=1)))


def by_icp(shape: Shape, pose: Pose, window: Window) -> Pose | None:
    """Return `pose` turned, moved and scaled so that the visible surface lies on the points.

    Each round pairs points and visible surface, nearest with nearest and both ways, drops the
    farthest fifth of either (trimmed ICP), and solves for the small motion that brings the rest
    together, mostly across the surface (Chen and Medioni 1992). None where there are too few
    points, or where the surface leaves the window.
    """
    observed = window.observed
    if len(observed) < FEWEST:
        return None
    tree = cKDTree(observed)
    for _ in range(ROUNDS):
        seen = shape.seen(pose, window)
        if len(seen.points) < FEWEST:
            return None
        center, size = shape.center(pose), shape.size(pose)
        motion = _motion(seen, observed, tree, center, size)
        pose = moved(pose, center, motion[:3], motion[3:6] * size, float(motion[6]))
        if np.abs(motion).max() < STILL:
            break
    return pose


def _motion(
    seen: Seen, observed: np.ndarray, tree: cKDTree, center: np.ndarray, size: float
) -> np.ndarray:
    """Return turn (3,), shift (3,) and growth that bring surface and points together, (7,).

    Least squares over the pairs, with lengths in units of `size`, for the motion of the surface
    x -> x + turn x (x - center) + shift + growth (x - center).
    """
    distance, pair = cKDTree(seen.points).query(observed)
    back_distance, twin = tree.query(seen.points)
    near = distance <= np.quantile(distance, KEPT)
    back = back_distance <= np.quantile(back_distance, KEPT)
    source = np.concatenate([seen.points[pair[near]], seen.points[back]])
    normal = np.concatenate([seen.normals[pair[near]], seen.normals[back]])
    goal = np.concatenate([observed[near], observed[twin[back]]])
    arm, gap = (source - center) / size, (goal - source) / size  # (N, 3)
    square, right = HOLD * len(arm) * np.eye(7), np.zeros(7)
    sideways = [np.broadcast_to(SIDEWAYS * axis, arm.shape) for axis in np.eye(3)]
    for weight in (normal, *sideways):  # one row a pair each
        rows = np.column_stack([np.cross(arm, weight), weight, (arm * weight).sum(1)])  # (N, 7)
        square += rows.T @ rows
        right += rows.T @ (gap * weight).sum(1)
    found = np.linalg.solve(square, right)
    return found * min(1.0, LARGEST_TURN / max(float(np.linalg.norm(found[:3])), 1e-12))
