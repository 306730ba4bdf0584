"""Regions merged two at a time, the most alike first, into a tree of ever larger ones."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from sam3d_nb.masks.regions import Regions

MIN_COST = 1e-3
APART = 1e6
"""Cost of joining what does not touch, which makes one tree of several."""


@dataclass(frozen=True)
class MergeRule:
    """What makes two regions alike.

    color, border: weights of the difference of their mean colors, and of the contrast across what
    they share. shape: how much more two cost that share little of their outlines. growth: exponent
    of the smaller one's area, by which large ones merge later.
    """

    color: float = 1.0
    border: float = 1.0
    shape: float = 0.0
    growth: float = 0.3


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes of a merge tree: the n leaves first, each later one after its parts; 2 n - 1 in all.

    leaves: (n,) regions that are merged, in an order in which every node is one stretch: from
    start[k] to end[k]. parent: (nodes,), that of the last, the root, is -1. parts: (nodes, 2), -1
    for leaves. cost: (nodes,) at which the parts merged, never less than that of either.
    """

    leaves: np.ndarray
    start: np.ndarray
    end: np.ndarray
    parent: np.ndarray
    parts: np.ndarray
    cost: np.ndarray

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self.leaves)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over the regions of every node, from `values` (N,) of all regions."""
        sums = np.concatenate([[0.0], np.cumsum(values[self.leaves])])
        return sums[self.end] - sums[self.start]

    def nodes_of_leaves(self) -> np.ndarray:
        """Return (n,), the node that each of `leaves` is by itself."""
        single = np.flatnonzero(self.parts[:, 0] < 0)
        return single[np.argsort(self.start[single])]

    def members(self, node: int) -> np.ndarray:
        """Return the regions of `node`."""
        return self.leaves[self.start[node] : self.end[node]]


def merge(regions: Regions, rule: MergeRule, chosen: np.ndarray | None = None) -> Tree:
    """Return the merge tree of the regions in `chosen` (N,) bool, by default all.

    One region at least has to be chosen.
    """
    ids = np.flatnonzero(np.ones(regions.count, bool) if chosen is None else chosen)
    work = _Merging(regions, rule, ids)
    work.run()
    return work.tree(ids)


class _Merging:
    """The state while merging, in plain lists, which are quicker than arrays for single numbers."""

    def __init__(self, regions: Regions, rule: MergeRule, ids: np.ndarray) -> None:
        self.rule = rule
        self.size = len(ids)
        nodes = 2 * self.size - 1
        place = np.full(regions.count, -1)
        place[ids] = np.arange(self.size)
        self.photo = float(regions.labels.size)
        self.area = regions.area[ids].tolist() + [0.0] * (self.size - 1)
        self.color = regions.color[ids].tolist() + [[]] * (self.size - 1)
        self.outline = [0.0] * nodes  # what it shares with others, in pixels
        self.near: list[dict[int, tuple[float, float]]] = [{} for _ in range(nodes)]
        self.parent = [-1] * nodes
        self.parts = [(-1, -1)] * nodes
        self.cost = [0.0] * nodes
        edges = zip(
            place[regions.pairs].tolist(),
            regions.length.tolist(),
            regions.contrast.tolist(),
            strict=True,
        )
        for (i, j), length, contrast in edges:
            if i >= 0 and j >= 0:
                self.near[i][j] = self.near[j][i] = (length, contrast)
        for i in range(self.size):
            self.outline[i] = sum(length for length, _ in self.near[i].values())

    def difference(self, i: int, j: int) -> float:
        """Return how unlike two nodes that touch are."""
        length, contrast = self.near[i][j]
        rule, value = self.rule, self.rule.border * contrast
        if rule.color:
            value += rule.color * math.dist(self.color[i], self.color[j])
        if rule.shape:
            value *= 1 + rule.shape * (1 - length / min(self.outline[i], self.outline[j]))
        return value * (min(self.area[i], self.area[j]) / self.photo) ** rule.growth

    def run(self) -> None:
        """Merge until one node is left."""
        queue = [
            (self.difference(i, j), i, j) for i in range(self.size) for j in self.near[i] if i < j
        ]
        heapq.heapify(queue)
        new = self.size
        while queue:
            cost, i, j = heapq.heappop(queue)
            if self.parent[i] >= 0 or self.parent[j] >= 0:
                continue
            self.join(i, j, new, cost)
            for other in self.near[new]:
                heapq.heappush(queue, (self.difference(other, new), other, new))
            new += 1
        apart = [node for node in range(new) if self.parent[node] < 0]
        while len(apart) > 1:
            self.join(apart.pop(), apart.pop(), new, APART)
            apart.append(new)
            new += 1

    def join(self, i: int, j: int, new: int, cost: float) -> None:
        """Make the node `new` of `i` and `j`."""
        total = self.area[i] + self.area[j]
        share = self.area[i] / total
        self.area[new] = total
        self.color[new] = [
            share * a + (1 - share) * b for a, b in zip(self.color[i], self.color[j], strict=True)
        ]
        shared = self.near[i].get(j, (0.0, 0.0))[0]
        self.outline[new] = self.outline[i] + self.outline[j] - 2 * shared
        self.parent[i] = self.parent[j] = new
        self.parts[new] = (i, j)
        self.cost[new] = max(cost, self.cost[i], self.cost[j], MIN_COST)
        near = self.near[new]
        for part in (i, j):
            for other, (length, contrast) in self.near[part].items():
                if other in (i, j):
                    continue
                there, before = near.get(other, (0.0, 0.0))
                whole = there + length
                near[other] = (whole, (there * before + length * contrast) / whole)
                del self.near[other][part]
            self.near[part] = {}
        for other, edge in near.items():
            self.near[other][new] = edge

    def tree(self, ids: np.ndarray) -> Tree:
        """Return the nodes as arrays."""
        nodes = len(self.parent)
        start, end = [0] * nodes, [0] * nodes
        order: list[int] = []
        stack = [(nodes - 1, False)]
        while stack:
            node, done = stack.pop()
            first, second = self.parts[node]
            if done:
                end[node] = len(order)
                continue
            start[node] = len(order)
            if first < 0:
                order.append(node)
                end[node] = len(order)
            else:
                stack += [(node, True), (second, False), (first, False)]
        return Tree(
            ids[np.array(order)],
            np.array(start),
            np.array(end),
            np.array(self.parent),
            np.array(self.parts),
            np.array(self.cost),
        )


def clusters(tree: Tree, count: int, alike: float = 0.0) -> np.ndarray:
    """Return (n,) for the tree's `leaves`: the node each belongs to when `count` are left.

    Fewer are left where merging them costs no more than `alike`.
    """
    inner = np.sort(tree.cost[tree.size :])
    limit = max(alike, inner[-count] if count <= len(inner) else -1.0)
    owner = np.arange(len(tree.parent))
    for node in range(len(owner) - 2, -1, -1):
        above = tree.parent[node]
        if tree.cost[above] <= limit:
            owner[node] = owner[above]
    return owner[tree.nodes_of_leaves()]
