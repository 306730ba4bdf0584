"""The view cube made to hold what is seen of the object, where its depth is known.

Stage 1 may place the cube too small or beside the object; voxels cannot be where it is not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sam3d_nb.frames import Array, Pose
from sam3d_nb.tiny.observe import within

STRAY = 0.001  # share of the points that may lie beyond on each side
MARGIN = 1.03  # of the cube's side, around the points
FEWEST = 50  # points without those at the mask's border, which may be of what is behind
MOST = 2.0  # by which the cube may grow: else point map and mask do not go together


def holding(pose: Pose, pointmap: Array, mask: np.ndarray) -> Pose:
    """Return the pose of the smallest cube, moved the least, that holds the points of the mask.

    pose: of the view cube, its translation the center and one scale. pointmap: (H, W, 3) OpenCV,
    NaN where unknown; mask: (H, W) bool. A cube that holds them stays as it is.
    """
    points = _points(pointmap, mask)
    if not len(points):
        return pose
    low, high = np.quantile(points, [STRAY, 1 - STRAY], axis=0)
    side = max(pose.scale[0], MARGIN * float((high - low).max()))
    if side > MOST * pose.scale[0]:
        return pose
    x, y, z = np.clip(pose.translation, high - side / 2, low + side / 2).tolist()
    return replace(pose, translation=(x, y, z), scale=(side, side, side))


def _points(pointmap: Array, mask: np.ndarray) -> Array:
    """Return the known points (N, 3) of the mask, without those at its border if there are many."""
    if not mask.any():
        return np.zeros((0, 3))
    points = within(pointmap, mask)
    if len(points) < FEWEST:
        points = pointmap[mask]
        points = points[np.isfinite(points).all(1)]
    return points.astype(np.float64)
