"""What is no object of its own: near-duplicates, slivers, background. Nothing goes unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sam3d_nb.images import MIN_MASK_PIXELS
from sam3d_nb.masks.segmenter import Segment

SAME = 0.8
"""Of two masks whose IoU exceeds this, the one with the lower score goes."""
BACKGROUND_SIDES = 3
"""A mask that touches so many sides of the photo is background."""
THIN = 0.002
"""A mask that is nowhere farther from its outline than this share of the photo is a sliver."""

FINE = 2000
"""Pixels of the longer side at which widths are measured."""
INSIDE, COARSE = 0.9, 500
"""A mask lies within a larger one if it shares so much of itself, on a grid of so many pixels."""
Frame = tuple[slice, slice]
"""Rows and columns around a mask."""


@dataclass(frozen=True, eq=False)
class Dropped:
    """A segment that was left out. reason: why, in words."""

    segment: Segment
    reason: str


def clean(segments: Sequence[Segment], same: float = SAME) -> tuple[list[Segment], list[Dropped]]:
    """Return the segments to keep, the best first, and those dropped with their reasons.

    Background touches three sides of the photo; slivers are thin everywhere or tiny; of
    near-duplicates (IoU above `same`) the best one stays.
    """
    kept: list[Segment] = []
    dropped: list[Dropped] = []
    frames: list[Frame] = []
    for segment in sorted(segments, key=lambda segment: -segment.score):
        reason = _flaw(segment.mask)
        if not reason:
            frame = _frame(segment.mask)
            reason = _twin(segment.mask, frame, kept, frames, same)
        if reason:
            dropped.append(Dropped(segment, reason))
        else:
            kept.append(segment)
            frames.append(frame)
    return kept, dropped


def shared_pixels(segments: Sequence[Segment], longest: int) -> np.ndarray:
    """Return how many pixels each two of N masks share, (N, N); on the diagonal their areas.

    Counted on a grid of about `longest` pixels along the photo's longer side.
    """
    step = max(1, max(segments[0].mask.shape) // longest)
    sampled = np.stack([s.mask[::step, ::step].reshape(-1) for s in segments]).astype(np.float32)
    shared: np.ndarray = sampled @ sampled.T
    return shared


def count_nested(segments: Sequence[Segment]) -> int:
    """Return how many of the masks lie within a larger one: parts of it, or it is a group."""
    if not segments:
        return 0
    shared = shared_pixels(segments, COARSE)
    area = np.diag(shared)
    within = (shared > INSIDE * area[:, None]) & (area > area[:, None])
    return int(within.any(axis=1).sum())


def _twin(
    mask: np.ndarray, frame: Frame, kept: list[Segment], frames: list[Frame], same: float
) -> str:
    """Return which of `kept` the mask nearly equals, empty for none."""
    for number, (other, place) in enumerate(zip(kept, frames, strict=True)):
        overlap = _iou(mask, other.mask, frame, place)
        if overlap > same:
            return f"near-duplicate of mask {number} (IoU {overlap:.2f})"
    return ""


def _flaw(mask: np.ndarray) -> str:
    """Return why a mask (H, W) bool is no object, empty where it may be one."""
    count = int(np.count_nonzero(mask))
    if count < MIN_MASK_PIXELS:
        return f"sliver of {count} pixels"
    sides = sum(bool(side.any()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    if sides >= BACKGROUND_SIDES:
        return f"background: it touches {sides} sides of the photo"
    rows, columns = _frame(mask)
    step = max(1, max(mask.shape) // FINE)
    coarse = np.pad(mask[rows, columns][::step, ::step], 1)
    reach = step * float(ndimage.distance_transform_edt(coarse).max())
    if reach < max(1.5, THIN * max(mask.shape)):
        return f"sliver, at most {2 * reach:.0f} pixels wide"
    return ""


def _frame(mask: np.ndarray) -> Frame:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _iou(one: np.ndarray, two: np.ndarray, frame: Frame, other: Frame) -> float:
    """Return the IoU of two masks that lie in these frames."""
    both = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(frame, other, strict=True)
    )
    if any(side.start >= side.stop for side in both):
        return 0.0
    shared = np.count_nonzero(one[both] & two[both])
    union = np.count_nonzero(one[frame]) + np.count_nonzero(two[other]) - shared
    return shared / union
