"""The set of masks without overlaps that is worth most, beside trying all sets."""

from itertools import combinations

import numpy as np
import pytest

from sam3d_nb.masks.disjoint import COST, SHARED, disjoint, likely
from sam3d_nb.masks.segmenter import Segment


def box(random, score):
    mask = np.zeros((40, 50), bool)
    (top, left), (height, width) = random.integers(0, 30, 2), random.integers(4, 20, 2)
    mask[top : top + height, left : left + width] = True
    return Segment(mask, score)


def fits(segments):
    return all(
        (a.mask & b.mask).sum() <= SHARED * min(a.mask.sum(), b.mask.sum())
        for a, b in combinations(segments, 2)
    )


def by_trying_all(segments, cost):
    sets = (
        [segments[k] for k in range(len(segments)) if number >> k & 1]
        for number in range(2 ** len(segments))
    )
    return max(sum(s.score - cost for s in some) for some in sets if fits(some))


@pytest.mark.parametrize("cost", [0.0, COST])
def test_it_is_the_best_of_all_sets(cost):
    random = np.random.default_rng(0)
    for _ in range(10):
        segments = [box(random, score) for score in random.random(9)]
        chosen = [segments[number] for number in disjoint(segments, cost=cost)]
        assert fits(chosen)
        assert sum(s.score - cost for s in chosen) == pytest.approx(by_trying_all(segments, cost))


def test_masks_apart_are_all_taken_and_none_of_none():
    segments = [Segment(np.eye(4, dtype=bool)[[k]].repeat(4, 0), 0.5) for k in range(4)]
    assert disjoint(segments) == [0, 1, 2, 3]
    assert disjoint([]) == []


def test_the_likeliest_one_stays_where_none_is_worth_its_cost():
    random = np.random.default_rng(1)
    assert disjoint([box(random, 0.05), box(random, 0.1), box(random, 0.01)]) == [1]


def test_scores_become_probabilities_where_that_was_fitted():
    scores = np.array([0.2, 0.5, 0.8])
    fitted = likely("embedded", scores)
    assert (np.diff(fitted) > 0).all()
    assert (fitted > 0).all()
    assert (fitted < 1).all()
    assert (likely("sam2", scores) == scores).all()
