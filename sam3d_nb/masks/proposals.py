"""Nodes of merge trees that may be whole objects, each with a guess of how well it fits one."""

from __future__ import annotations

import numpy as np

from sam3d_nb.masks.merging import Tree, clusters
from sam3d_nb.masks.regions import SIDES, Regions

MIN_AREA, MAX_AREA = 0.0015, 0.35  # of the photo
MAX_SIDES = 2  # an object touches at most so many sides of the photo
MAX_BACKGROUND = 0.5  # share of a node that may be background
BACKGROUND_CLUSTERS = 80
ALIKE = 0.5  # cost of merging what nobody would tell apart
BACKGROUND_AREA, BACKGROUND_RIM = 0.02, 0.05  # of the photo, of its rim

WEIGHTS: dict[str, float] = {
    "log area": 0.0414,
    "log area squared": -0.0049,
    "contact": 0.2785,
    "contact squared": -0.0643,
    "log contrast": 0.0581,
    "log outline": -0.0036,
    "fill": 0.2526,
    "sides": -0.1089,
    "parent cost": 0.0241,
    "persistence": 0.0381,
    "constant": 0.2336,
}
"""What `describe` says of a node, and its weight in the guess of the IoU with an object.

Ridge regression on the rendered rooms in `data`, by `benchmarks/segmenters.py --fit`.
"""


def background(regions: Regions, tree: Tree) -> np.ndarray:
    """Return (N,) bool, the regions of walls, floor and ceiling: large and along the rim."""
    _, owner = np.unique(clusters(tree, BACKGROUND_CLUSTERS, ALIKE), return_inverse=True)
    area = np.bincount(owner, regions.area[tree.leaves]) / regions.labels.size
    rim = np.bincount(owner, regions.rim.sum(axis=1)[tree.leaves]) / regions.rim.sum()
    large = (area > BACKGROUND_AREA) & (rim > BACKGROUND_RIM)
    result = np.zeros(regions.count, bool)
    result[tree.leaves] = large[owner]
    return result


def describe(regions: Regions, tree: Tree, behind: np.ndarray) -> np.ndarray:
    """Return (nodes, len(WEIGHTS)) of a merge tree; behind: (N,) bool, the background.

    Area is a share of the photo, the outline is divided by the square root of the area. contact:
    share of the outline that touches background. contrast: across the outline. fill: of the
    bounding box. sides: of the photo that are touched. parent cost: logarithm of what the next
    merge costs; persistence: by how much that exceeds the node's own, up to 1.
    """
    area = tree.total(regions.area)
    outline, contrast = _outline(regions, tree)
    edge = behind[regions.pairs[:, 0]] != behind[regions.pairs[:, 1]]
    contact = tree.total(_per_region(regions, regions.length * edge) * ~behind)
    contact = np.minimum(contact / np.maximum(outline, 1), 1.0)
    own = np.clip(tree.cost, 1e-2, 1e2)
    above = np.append(own[tree.parent[:-1]], own[-1])
    log_area = np.log(area / regions.labels.size)
    columns = {
        "log area": log_area,
        "log area squared": log_area**2,
        "contact": contact,
        "contact squared": contact**2,
        "log contrast": np.log1p(contrast),
        "log outline": np.log(np.maximum(outline / np.sqrt(area), 1e-3)),
        "fill": area / _box_area(regions, tree),
        "sides": _sides(regions, tree),
        "parent cost": np.log(above),
        "persistence": np.minimum(np.log(above / own), 1),
        "constant": np.ones(len(area)),
    }
    return np.stack([columns[name] for name in WEIGHTS], axis=1)


def guess(described: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return (nodes,), the guessed IoU of each node with the object that it fits best, 0 to 1."""
    weights = np.array(list(WEIGHTS.values())) if weights is None else weights
    return np.clip(described @ weights, 0.0, 1.0)


def eligible(regions: Regions, tree: Tree, behind: np.ndarray) -> np.ndarray:
    """Return the nodes whose size and place an object may have."""
    area = tree.total(regions.area)
    share = area / regions.labels.size
    covered = tree.total(regions.area * behind) / area
    fits = (share > MIN_AREA) & (share < MAX_AREA) & (_sides(regions, tree) <= MAX_SIDES)
    return np.flatnonzero(fits & (covered < MAX_BACKGROUND))


def distinct(regions: Regions, masks: np.ndarray, count: int, limit: float) -> list[int]:
    """Return which of `masks` (P, N) bool to keep, at most `count`, the earlier ones first.

    Of two whose IoU exceeds `limit`, the later one goes.
    """
    kept: list[int] = []
    for index, mask in enumerate(masks):
        if len(kept) == count:
            break
        if all(_overlap(regions, mask, masks[other]) <= limit for other in kept):
            kept.append(index)
    return kept


def _overlap(regions: Regions, one: np.ndarray, two: np.ndarray) -> float:
    return float(regions.area[one & two].sum() / max(regions.area[one | two].sum(), 1))


def _sides(regions: Regions, tree: Tree) -> np.ndarray:
    """Return how many sides of the photo each node touches."""
    touched = [tree.total(regions.rim[:, side]) > 0 for side in range(SIDES)]
    return np.sum(touched, axis=0)


def _per_region(regions: Regions, values: np.ndarray) -> np.ndarray:
    """Return (N,), the sum of `values` (E,) over the borders of each region."""
    first, second = regions.pairs.T
    count = regions.count
    return np.bincount(first, values, count) + np.bincount(second, values, count)


def _outline(regions: Regions, tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of each node's outline within the photo, and the mean contrast there."""
    weighted = regions.length * regions.contrast
    length, contrast = (
        tree.total(_per_region(regions, values)) - 2 * _within(regions, tree, values)
        for values in (regions.length, weighted)
    )
    return length, contrast / np.maximum(length, 1)


def _within(regions: Regions, tree: Tree, values: np.ndarray) -> np.ndarray:
    """Return of every node the sum of `values` (E,) over borders between two of its regions."""
    node_of = np.full(regions.count, -1)
    node_of[tree.leaves] = tree.nodes_of_leaves()
    ends = node_of[regions.pairs]
    known = (ends >= 0).all(axis=1)
    one, two = ends[known].T
    # a parent's number is larger than those of its parts: climb from the smaller one
    while (one != two).any():
        low, high = one < two, two < one
        one, two = np.where(low, tree.parent[one], one), np.where(high, tree.parent[two], two)
    total = np.bincount(one, values[known], len(tree.parent))
    for node in range(tree.size, len(total)):
        total[node] += total[tree.parts[node]].sum()
    return total


def _box_area(regions: Regions, tree: Tree) -> np.ndarray:
    """Return (nodes,), the area of each node's bounding box."""
    low = np.full((len(tree.parent), 2), np.inf)
    high = np.zeros((len(tree.parent), 2))
    leaves = tree.nodes_of_leaves()
    low[leaves], high[leaves] = np.split(regions.bounds[tree.leaves], 2, axis=1)
    for node in range(tree.size, len(low)):
        low[node] = low[tree.parts[node]].min(axis=0)
        high[node] = high[tree.parts[node]].max(axis=0)
    return (high - low).prod(axis=1)
