"""Placement by the outline: the small motion under which the object covers its mask best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sam3d_nb.frames import Pose
from sam3d_nb.refine.motion import moved, pushed
from sam3d_nb.refine.shape import Shape
from sam3d_nb.refine.window import Window

UNITS = np.array([np.radians(4)] * 3 + [0.03] * 2 + [0.04])
"""Of the six numbers: turn (3,), shift across the view (2,) in object sizes, log of the size."""


class Level(NamedTuple):
    """blur: of outlines, in pixels. step: by which slopes are measured. rounds: at most."""

    blur: float
    step: float
    rounds: int


LEVELS = (Level(3.0, 0.5, 5), Level(1.0, 0.25, 5))
HOLD = 0.0005
"""What a number of 1 costs, so that turns that the outline does not show stay small."""
DEPTH_WEIGHT = 0.5
"""Of a surface that is wrong in depth, beside one that is beyond the mask."""
DEPTH_LIMIT = 0.1
"""A point that is off by this share of the object's size, or more, is simply wrong."""
DEPTH_BLUR = 1.0
TRIES = 3
"""Ever shorter motions of one round."""
LARGEST = 2.0
ENOUGH = 1e-3
"""A round that gains less than this share is the last one."""


def by_outline(shape: Shape, pose: Pose, window: Window) -> Pose | None:
    """Return the pose near `pose` whose outline fits the mask best, by damped Gauss-Newton.

    What is made small is the blurred difference of outline and mask, where it counts. Six numbers
    are sought: a turn, a shift across the view, and the size in the picture. The seventh, moving
    away and growing at once, leaves the outline as it is: it follows from the point map (the
    median of what both see), whose other differences in depth count too, and stays without one.
    None where nothing of the mask is in the window.
    """
    if not window.mask.any():
        return None
    fit = _Fit(shape, pose, window)
    numbers = np.zeros(len(UNITS))
    for level in LEVELS:
        numbers = _descend(fit, numbers, level)
    return fit.place(numbers).pose


def _descend(fit: _Fit, numbers: np.ndarray, level: Level) -> np.ndarray:
    """Return better numbers (6,), by Levenberg's and Marquardt's rule."""
    damping = 0.01
    rest = fit.rest(numbers, level.blur)
    for _ in range(level.rounds):
        before = float(rest @ rest)
        moves = numbers + level.step * np.eye(len(numbers))
        slopes = np.stack([fit.rest(move, level.blur) - rest for move in moves]) / level.step
        square, slope = slopes @ slopes.T, slopes @ rest
        for _ in range(TRIES):
            damped = square + damping * np.diag(np.diag(square))
            tried = numbers - np.linalg.solve(damped, slope).clip(-LARGEST, LARGEST)
            left = fit.rest(tried, level.blur)
            if left @ left < before:
                numbers, rest, damping = tried, left, damping / 5
                break
            damping = max(damping, 0.05) * 8
        if rest @ rest > before * (1 - ENOUGH):
            break
    return numbers


class _Placed(NamedTuple):
    pose: Pose
    covered: np.ndarray  # (h, w) bool
    depth_gap: np.ndarray  # (h, w) from -1 to 1, 0 where not both are known


class _Fit:
    """The pose and what is left to mend, as functions of six numbers in `UNITS`."""

    def __init__(self, shape: Shape, pose: Pose, window: Window) -> None:
        self.shape, self.pose, self.window = shape, pose, window
        self.center, self.size = shape.center(pose), shape.size(pose)
        self.share = 1 / np.sqrt(window.mask.sum())
        self.depth = np.full(window.mask.shape, np.nan)
        if window.points is not None:
            self.depth[window.mask] = window.points[window.mask][:, 2]

    def place(self, numbers: np.ndarray) -> _Placed:
        """Return the pose that the numbers mean, and what it looks like."""
        steps = numbers * UNITS
        shift = np.array([steps[3], steps[4], 0.0]) * self.size
        pose = moved(self.pose, self.center, steps[:3], shift, float(steps[5]))
        raster = self.shape.render(pose, self.window)
        own = raster.depth.numpy().astype(np.float64)
        gap = np.zeros(own.shape)
        both = np.isfinite(own) & np.isfinite(self.depth)
        if both.any():
            factor = float(np.median(self.depth[both] / own[both]))
            off = (factor * own[both] - self.depth[both]) / (DEPTH_LIMIT * self.size)
            gap[both] = off.clip(-1, 1)
            pose = pushed(pose, factor)
        return _Placed(pose, raster.covered.numpy(), gap)

    def rest(self, numbers: np.ndarray, blur: float) -> np.ndarray:
        """Return what shall become small, as one vector."""
        placed = self.place(numbers)
        beyond = (placed.covered.astype(np.float64) - self.window.mask) * self.window.counted
        parts = (
            self.share * _blurred(beyond, blur),
            np.sqrt(DEPTH_WEIGHT) * self.share * _blurred(placed.depth_gap, DEPTH_BLUR),
            np.sqrt(HOLD) * numbers,
        )
        return np.concatenate([part.reshape(-1) for part in parts])


def _blurred(values: np.ndarray, blur: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, blur, truncate=2.5)
