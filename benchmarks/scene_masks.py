"""What becomes of proposed masks in a scene: how many are objects, with overlaps and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from sam3d_nb.masks.disjoint import LIKELY, disjoint, likely
from sam3d_nb.masks.filters import clean
from sam3d_nb.masks.segmenter import Segment

FOUND = 0.5  # IoU from which an object counts as found
RIDGE = 0.005


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.count_nonzero(one & two) / max(np.count_nonzero(one | two), 1))


@dataclass(frozen=True, eq=False)
class Proposed:
    """Masks of one photo after cleaning. scores: (N,). fit: (N, objects), the IoU with each."""

    kept: list[Segment]
    scores: np.ndarray
    fit: np.ndarray


def propose(found: Sequence[Segment], masks: Sequence[np.ndarray]) -> Proposed:
    kept, _ = clean(found)
    fit = np.array([[iou(segment.mask, mask) for mask in masks] for segment in kept])
    return Proposed(kept, np.array([s.score for s in kept]), fit.reshape(-1, len(masks)))


def without_overlaps(photo: Proposed, line: Sequence[float] = LIKELY["embedded"]) -> list[int]:
    return disjoint(photo.kept, likely("embedded", photo.scores, line))


def fit_line(photos: Sequence[Proposed]) -> list[float]:
    """Return slope and constant of LIKELY by logistic regression: is the mask an object?"""
    scores = np.concatenate([photo.scores for photo in photos])
    right = np.concatenate([photo.fit.max(axis=1) >= FOUND for photo in photos])
    design = np.stack([scores, np.ones(len(scores))], axis=1)

    def loss(line: np.ndarray) -> float:
        wrong = np.logaddexp(0, -np.where(right, 1, -1) * (design @ line)).sum()
        return float(wrong + RIDGE * (line**2).sum())

    return [round(float(v), 2) for v in minimize(loss, [1.0, 0.0]).x]


def quality(photos: Sequence[Proposed], chosen: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return how many of the chosen masks are objects, and how many objects are among them."""
    fits = [photo.fit[list(some)] for photo, some in zip(photos, chosen, strict=True)]
    count, objects = sum(len(fit) for fit in fits), sum(fit.shape[1] for fit in fits)
    right = sum(int((fit.max(axis=1) >= FOUND).sum()) for fit in fits)
    found = sum(int((fit.max(axis=0, initial=0) >= FOUND).sum()) for fit in fits)
    return {
        "masks": count,
        "precision": round(right / max(count, 1), 3),
        "recall": round(found / max(objects, 1), 3),
        "objects found a mask": round(found / max(count, 1), 3),
    }


def scene(photos: Sequence[Proposed]) -> dict[str, Any]:
    """Return this for all masks and for the set that MaskFinder ticks at first."""
    return {
        "all masks": quality(photos, [range(len(photo.kept)) for photo in photos]),
        "without overlaps": quality(photos, [without_overlaps(photo) for photo in photos]),
    }
