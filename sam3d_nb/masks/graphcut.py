"""The object in a frame, by a graph cut over regions with color models of both sides.

GrabCut (Rother, Kolmogorov and Blake, 2004) on regions instead of pixels, with two priors: regions
that belong to something larger which leaves the frame are background (Alexe, Deselaers and
Ferrari, What is an object?, 2010), and the object touches all four sides of its frame (Lempitsky
et al., Image Segmentation with a Bounding Box Prior, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from sam3d_nb.masks.merging import APART, Tree
from sam3d_nb.masks.mixture import fit_mixture
from sam3d_nb.masks.regions import Regions
from sam3d_nb.masks.segmenter import Box


@dataclass(frozen=True)
class CutSettings:
    """Numbers of the cut; the defaults were chosen on the rendered rooms in `data`.

    object_colors, other_colors: Gaussians of each side. smooth: cost of a border pixel without
    contrast; contrast: at which it falls to 1/e. margin: how far around the frame the background
    is learned, in frame sides. prior, neutral: log odds between the regions that leave the frame
    most and least, and the rank at which they are even. gap: share of a side that the object may
    keep away from it; bonus: log odds for the regions in a larger gap. tries: cuts, with and
    without that. rounds: of cutting and learning colors. limit: of the log odds by color.
    """

    object_colors: int = 2
    other_colors: int = 8
    smooth: float = 50.0
    contrast: float = 5.0
    margin: float = 0.15
    prior: float = 2.0
    neutral: float = 0.3
    gap: float = 0.06
    bonus: float = 2.0
    tries: int = 3
    rounds: int = 5
    limit: float = 8.0


MARGIN = 10  # pixels around the frame that are looked at, at least
FLOW_UNITS = 100.0
MAX_FLOW = 2e8
FORCED = 1e4  # log odds of regions that a person marked
INSIDE = 0.5  # a region with less of its pixels in the frame is background
CANDIDATES = 0.6  # quantile of rank above which regions of a gap get the bonus


def frame_mask(regions: Regions, box: Box) -> np.ndarray:
    """Return (h, w) bool, the pixels whose centers lie in `box`, in pixels of `regions`."""
    height, width = regions.labels.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (x > box[0]) & (x < box[2])
    rows = (y > box[1]) & (y < box[3])
    return rows[:, None] & columns[None]


def cut_object(
    regions: Regions,
    tree: Tree,
    box: Box,
    marked: np.ndarray | None = None,
    settings: CutSettings = CutSettings(),
) -> np.ndarray:
    """Return (N,) bool, the regions of the object that `box` frames, in pixels of `regions`.

    marked: (N,) int, 1 for regions that are known to be the object's, -1 for those that are not,
    0 for all others.
    """
    inside = regions.share(frame_mask(regions, box))
    rank = _ranks(regions.area * inside * (inside > INSIDE), _stays(tree, regions, inside))
    odds = settings.prior * (rank - settings.neutral)
    marked = np.zeros(regions.count) if marked is None else marked
    cut = _Cut(regions, box, inside, marked, settings)
    for attempt in range(settings.tries):
        chosen = cut.solve(odds)
        if attempt < settings.tries - 1:
            missing = _in_gaps(regions, box, inside, chosen, settings.gap)
            if not missing.any():
                break
            odds = odds + settings.bonus * (missing & (rank > _quantile(rank[missing])))
    return chosen


def _quantile(values: np.ndarray) -> float:
    return float(np.quantile(values, CANDIDATES))


def _stays(tree: Tree, regions: Regions, inside: np.ndarray) -> np.ndarray:
    """Return (N,), how far what each region is a part of stays in the frame.

    The share in the frame of each node above a region, over all levels of the tree; a level counts
    by the logarithm of the costs between which it lasts.
    """
    share = tree.total(regions.area * inside) / tree.total(regions.area)
    level = np.log(np.clip(tree.cost, 1.0, APART))
    value = np.zeros(len(share))
    for node in range(len(share) - 2, -1, -1):
        above = tree.parent[node]
        value[node] = value[above] + share[node] * (level[above] - level[node])
    result = np.zeros(regions.count)
    result[tree.leaves] = value[tree.nodes_of_leaves()]
    return result


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (N,), the share of all weight that has at most this value."""
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values))
    rank[order] = np.cumsum(weights[order]) / max(weights.sum(), 1e-9)
    return rank


def _in_gaps(
    regions: Regions, box: Box, inside: np.ndarray, chosen: np.ndarray, limit: float
) -> np.ndarray:
    """Return (N,) bool, the regions between a side of the frame and an object too far from it."""
    if not chosen.any():
        return inside > INSIDE
    low, high = np.array(box[:2]), np.array(box[2:])
    bounds, size = regions.bounds[chosen], np.tile(high - low, 2)
    first = np.maximum(bounds[:, :2].min(axis=0), low)
    last = np.minimum(bounds[:, 2:].max(axis=0), high)
    gaps = np.concatenate([first - low, high - last]) / size  # (4,)
    center = regions.center
    away = np.concatenate([center - low, high - center], axis=1) / size  # (N, 4)
    return ((gaps > limit) & (away < gaps)).any(axis=1) & (inside > INSIDE)


class _Cut:
    """The graph of one frame: a node a region inside, the rest is background."""

    def __init__(
        self,
        regions: Regions,
        box: Box,
        inside: np.ndarray,
        marked: np.ndarray,
        settings: CutSettings,
    ) -> None:
        self.settings = settings
        self.regions = regions
        self.within = regions.area * inside
        self.ids = np.flatnonzero((inside > INSIDE) & (marked >= 0) | (marked > 0))
        self.forced = FORCED * np.maximum(marked[self.ids], 0)
        low, high = np.array(box[:2]), np.array(box[2:])
        margin = settings.margin * (high - low).max() + MARGIN
        near = ((regions.center > low - margin) & (regions.center < high + margin)).all(axis=1)
        self.beyond = np.where(near | (inside > 0), regions.area - self.within, 0.0)
        self.beyond = np.where(marked < 0, regions.area, self.beyond)
        place = np.full(regions.count, -1)
        place[self.ids] = np.arange(len(self.ids))
        ends = place[regions.pairs]  # (E, 2)
        weight = (
            settings.smooth
            * regions.length
            * np.exp(-((regions.contrast / settings.contrast) ** 2))
        )
        both = (ends >= 0).all(axis=1)
        self.ends, self.weight = ends[both], weight[both]
        self.bias = np.zeros(len(self.ids))  # towards the background, from edges that leave
        for first, second in ((0, 1), (1, 0)):
            leaves = (ends[:, first] >= 0) & (ends[:, second] < 0)
            np.add.at(self.bias, ends[leaves, first], -weight[leaves])

    def solve(self, odds: np.ndarray) -> np.ndarray:
        """Return (N,) bool, the object, beginning with all that is inside."""
        chosen = np.zeros(self.regions.count, bool)
        chosen[self.ids] = True
        for _ in range(self.settings.rounds):
            color = self._color_odds(chosen)
            if color is None:
                break
            gain = (color + odds[self.ids]) * self.within[self.ids] + self.bias + self.forced
            before = chosen
            chosen = np.zeros(self.regions.count, bool)
            chosen[self.ids[minimum_cut(gain, self.ends, self.weight)]] = True
            if (chosen == before).all():
                break
        return chosen

    def _color_odds(self, chosen: np.ndarray) -> np.ndarray | None:
        """Return the log odds of the inner regions by color; None where a side is empty."""
        own = np.where(chosen, self.within, 0.0)
        other = self.beyond + np.where(chosen, 0.0, self.within)
        if not own.any() or not other.any():
            return None
        colors, settings = self.regions.color, self.settings
        models = [
            fit_mixture(colors[weight > 0], weight[weight > 0], count)
            for weight, count in ((own, settings.object_colors), (other, settings.other_colors))
        ]
        mine, theirs = (model.log_density(colors[self.ids]) for model in models)
        return np.clip(mine - theirs, -settings.limit, settings.limit)


def minimum_cut(gain: np.ndarray, ends: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (n,) bool, the labels with the largest gain less the weight of edges between labels.

    gain: (n,) of label true over false. ends: (E, 2) nodes. weight: (E,), at least 0.
    """
    count = len(gain)
    source, sink = count, count + 1
    yes, no = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    first = np.concatenate([ends[:, 0], ends[:, 1], np.full(len(yes), source), no])
    second = np.concatenate([ends[:, 1], ends[:, 0], yes, np.full(len(no), sink)])
    capacity = np.concatenate([weight, weight, gain[yes], -gain[no]])
    units = np.clip(capacity * FLOW_UNITS, 0, MAX_FLOW).round().astype(np.int32)
    shape = (count + 2, count + 2)
    graph = sparse.csr_matrix((units, (first, second)), shape=shape)
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = np.zeros(count + 2, bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return reached[:count]
