"""Brush strokes: a round tip along a line of points, exact to the pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam3d_nb.errors import InputError

MAX_POINTS = 5_000
"""A stroke with more points than this is no stroke of a hand."""


@dataclass(frozen=True)
class Stroke:
    """One stroke. points: x, y in pixels. radius: of the tip in pixels. erase: take away."""

    points: tuple[tuple[float, float], ...]
    radius: float
    erase: bool = False


def make_stroke(
    points: Sequence[Sequence[float]] | np.ndarray, radius: float, erase: bool = False
) -> Stroke:
    """Return the checked stroke; raises InputError for no points, too many, or no numbers."""
    try:
        line = np.asarray(points, dtype=np.float64)
        tip = float(radius)
    except (TypeError, ValueError) as error:
        raise InputError(f"a stroke is a list of points x, y but got {points!r}") from error
    if line.ndim != 2 or line.shape[1] != 2 or not 1 <= len(line) <= MAX_POINTS:
        raise InputError(
            f"a stroke has 1 to {MAX_POINTS} points (N, 2) but got an array of {line.shape}"
        )
    if not np.isfinite(line).all() or not math.isfinite(tip) or tip <= 0:
        raise InputError(f"a stroke needs finite points and a radius above 0, not {radius!r}")
    return Stroke(tuple((float(x), float(y)) for x, y in line), tip, bool(erase))


def paint(mask: np.ndarray, stroke: Stroke) -> None:
    """Set or, for an eraser, unset the pixels of `mask` (H, W) bool that the stroke covers.

    Those are the pixels whose center is within the radius of the line; a stroke of one point is a
    disk, and always covers the pixel that it lies in.
    """
    height, width = mask.shape
    points = stroke.points
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points, strict=False):
        left = max(0, math.floor(min(x0, x1) - stroke.radius))
        right = min(width, math.ceil(max(x0, x1) + stroke.radius) + 1)
        top = max(0, math.floor(min(y0, y1) - stroke.radius))
        bottom = min(height, math.ceil(max(y0, y1) + stroke.radius) + 1)
        if left >= right or top >= bottom:
            continue
        near = _near((x0, y0), (x1, y1), stroke.radius, (left, top, right, bottom))
        mask[top:bottom, left:right][near] = not stroke.erase
    for x, y in points:
        if 0 <= x < width and 0 <= y < height:
            mask[int(y), int(x)] = not stroke.erase


def _near(
    start: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    box: tuple[int, int, int, int],
) -> np.ndarray:
    """Return which pixels of `box` (left, top, right, bottom) are within reach of the segment."""
    left, top, right, bottom = box
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - start[0])  # (w,)
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - start[1]))[:, None]  # (h, 1)
    dx, dy = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    length = dx * dx + dy * dy
    reach = np.float32(radius * radius)
    if length == 0:
        return x * x + y * y <= reach  # (h, w)
    along = np.clip((x * dx + y * dy) / length, 0, 1)  # (h, w), share of the segment
    return (x - along * dx) ** 2 + (y - along * dy) ** 2 <= reach
