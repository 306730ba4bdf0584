"""Of nested masks those that together make a scene: no part of the photo belongs to two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from sam3d_nb.masks.filters import shared_pixels
from sam3d_nb.masks.segmenter import Segment

SHARED = 0.2
"""Two masks exclude each other if they share more than this of the smaller one."""
LIKELY: dict[str, tuple[float, float]] = {"embedded": (3.09, -2.52)}
"""Slope and constant of the logistic function from a segmenter's score to the probability that the
mask is an object (IoU of 0.5). Fitted to the rendered rooms in `data`, by
`benchmarks/segmenters.py --fit`; scores of the other segmenters are taken as they are."""
COST = 0.2
"""A mask is worth its probability of being an object less this: without it two unlikely parts
outweigh a likely whole."""
GRID = 1000  # pixels of the longer side at which masks are compared


def likely(segmenter: str, scores: np.ndarray, line: Sequence[float] | None = None) -> np.ndarray:
    """Return for scores (N,) of the segmenter called so the probability of being an object.

    line: slope and constant instead of those of `LIKELY`.
    """
    if line is None and segmenter not in LIKELY:
        return scores
    slope, constant = LIKELY[segmenter] if line is None else line
    return 1 / (1 + np.exp(-(slope * scores + constant)))


def conflicts(segments: Sequence[Segment]) -> np.ndarray:
    """Return which of N segments exclude each other, (N, N) bool."""
    shared = shared_pixels(segments, GRID)
    area = np.diag(shared)
    found: np.ndarray = shared > SHARED * np.minimum(area[:, None], area)
    np.fill_diagonal(found, val=False)
    return found


def scene_of(segments: Sequence[Segment], segmenter: str) -> list[int]:
    """Return the numbers of the proposals that make a scene, see `disjoint`; best first.

    segmenter: the name of the one that proposes objects, their parts and groups of them.
    """
    scores = np.array([segment.score for segment in segments])
    return disjoint(segments, likely(segmenter, scores))


def disjoint(
    segments: Sequence[Segment], probability: np.ndarray | None = None, cost: float = COST
) -> list[int]:
    """Return the numbers of the segments that are worth most together and do not overlap.

    probability: (N,) of each being an object, by default its score. The worth of a set is the sum
    of probability less `cost`; no two of it share more than `SHARED` of the smaller one. The set is
    the best there is (an integer program); segments that are not worth their cost are left out,
    unless that leaves none: then it is the most probable one.
    """
    if not segments:
        return []
    if probability is None:
        probability = np.array([segment.score for segment in segments])
    first, second = np.nonzero(np.triu(conflicts(segments)))
    rows = np.tile(np.arange(len(first)), 2)
    ones = np.ones(len(rows))
    shape = len(first), len(segments)
    excluded = csr_array((ones, (rows, np.concatenate([first, second]))), shape=shape)
    found = milp(
        cost - probability,
        integrality=np.ones(len(segments)),
        bounds=Bounds(0, probability > cost),
        constraints=LinearConstraint(excluded, ub=1) if len(first) else (),
    )
    chosen = np.flatnonzero(found.x > 0.5).tolist()
    return chosen or [int(np.argmax(probability))]
