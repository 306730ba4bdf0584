"""The segmenter that needs no weights: regions of even color, merge trees, graph cuts."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sam3d_nb.masks.graphcut import cut_object, frame_mask
from sam3d_nb.masks.merging import MergeRule, Tree, merge
from sam3d_nb.masks.proposals import background, describe, distinct, eligible, guess
from sam3d_nb.masks.regions import Regions, make_regions
from sam3d_nb.masks.segmenter import Box, Prompt, Segment, Segmenter, check_photo
from sam3d_nb.masks.sharpen import enlarge, sharpen

EVERYTHING = 25
"""At most so many segments of a photo are returned."""
CHOICES = 3
"""For points alone: the whole, a part, a part of that."""
SAME = 0.7
"""Of two candidates that overlap more than this (IoU) only the better one is kept."""
PHOTO_RULE = MergeRule(border=3.0)
OBJECT_RULE = MergeRule(shape=3.0)  # where the background is gone, compact things merge first
MAX_CLICKED = 0.6  # of the photo
USUAL, SMALLER = 0.02, 0.1  # share of the photo; score for a node that is e times smaller
EDGE = 5.0  # color difference of an edge that is seen


class Embedded(Segmenter):
    """Finds objects by points, a box or a scribble, or all of them; knows no words.

    The first call with a photo takes a second or two, further ones a fraction of that.
    """

    name = "embedded"

    def __init__(self) -> None:
        self._known: tuple[np.ndarray, Knowledge] | None = None

    def prepare(self, image: np.ndarray) -> None:
        """Do now what the first prompt on this photo would wait for."""
        check_photo(image)
        self._knowledge(image).complete()

    def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
        """Return what the prompt means: one segment for a box or scribble, else up to three.

        Scores are the share of the outline that lies on visible edges, or for points alone the
        guessed IoU with a whole object. Raises InputError for words and for an empty prompt.
        """
        check_photo(image)
        asked = prompt.wordless((image.shape[0], image.shape[1]), self.name)
        known = self._knowledge(image)
        marked = known.marks(asked)
        box = asked.box
        if box is None and asked.scribble is None:
            return self._clicked(image, known, marked)
        box = known.surroundings(marked) if box is None else known.scaled(box)
        chosen = cut_object(known.regions, known.tree, box, marked)
        allowed = frame_mask(known.regions, box) if asked.box is not None else None
        return _segments([(chosen, known.edge_share(chosen))], known, image, allowed)

    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        """Return up to 25 candidates for objects; some are parts of others.

        Scores are the guessed IoU with a whole object. The point map is not made use of.
        """
        check_photo(image)
        known = self._knowledge(image)
        if known.front is None:
            return []
        nodes = eligible(known.regions, known.front, known.behind)
        scores = guess(describe(known.regions, known.front, known.behind)[nodes])
        order = np.argsort(-scores, kind="stable")
        found = known.node_masks(known.front, nodes[order])
        kept = distinct(known.regions, found, EVERYTHING, SAME)
        return _segments([(found[k], float(scores[order[k]])) for k in kept], known, image)

    def _knowledge(self, image: np.ndarray) -> Knowledge:
        if self._known is None or self._known[0] is not image:
            check_photo(image)
            self._known = (image, Knowledge(make_regions(image)))
        return self._known[1]

    def _clicked(self, image: np.ndarray, known: Knowledge, marked: np.ndarray) -> list[Segment]:
        """Return the nodes that hold all points on the object and none beside it."""
        found, scores = known.nodes_with(marked, CHOICES)
        if not len(found):
            chosen = cut_object(known.regions, known.tree, known.surroundings(marked), marked)
            return _segments([(chosen, known.edge_share(chosen))], known, image)
        return _segments(list(zip(found, scores.tolist(), strict=True)), known, image)


class Knowledge:
    """What is known about one photo, whatever the prompt.

    regions: of the photo. tree: of all regions. behind: (N,) bool, the background. front: the tree
    of the rest, None where there is none.
    """

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.tree = merge(regions, PHOTO_RULE)
        self.behind = background(regions, self.tree)
        some = not self.behind.all()
        self.front = merge(regions, OBJECT_RULE, ~self.behind) if some else None

    @cached_property
    def _guesses(self) -> list[tuple[Tree, np.ndarray, np.ndarray]]:
        """Trees, those of their nodes that a person may point at, and the nodes' guessed IoU."""
        found = []
        for tree in (self.front, self.tree):
            if tree is not None:
                guesses = guess(describe(self.regions, tree, self.behind))
                if tree is self.front:
                    nodes = eligible(self.regions, tree, self.behind)
                else:
                    share = tree.total(self.regions.area) / self.regions.labels.size
                    nodes = np.flatnonzero(share < MAX_CLICKED)
                found.append((tree, nodes, guesses[nodes]))
        return found

    def complete(self) -> None:
        """Compute all that is kept."""
        _ = self._guesses

    def scaled(self, box: Box) -> Box:
        """Return a box of the photo in pixels of the regions."""
        x, y = self.regions.scale
        return box[0] * x, box[1] * y, box[2] * x, box[3] * y

    def marks(self, prompt: Prompt) -> np.ndarray:
        """Return (N,): 1 for regions marked as the object, -1 for those marked as not, else 0."""
        height, width = self.regions.labels.shape
        result = np.zeros(self.regions.count)
        if prompt.scribble is not None:
            rows, columns = np.nonzero(prompt.scribble)
            y = np.minimum((rows + 0.5) * self.regions.scale[1], height - 1).astype(int)
            x = np.minimum((columns + 0.5) * self.regions.scale[0], width - 1).astype(int)
            result[np.unique(self.regions.labels[y, x])] = 1
        places = (prompt.points * self.regions.scale).astype(int)
        for (x, y), label in zip(places, prompt.labels, strict=True):
            at = self.regions.labels[min(y, height - 1), min(x, width - 1)]
            result[at] = 1 if label else -1
        return result

    def nodes_with(self, marked: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (P, N) bool and (P,): the `count` best nodes that agree with marks, and scores.

        Nodes apart from the background are preferred; scores are the guessed IoU, more for those
        smaller than usual.
        """
        for tree, nodes, guesses in self._guesses:
            wanted, unwanted = tree.total(1.0 * (marked > 0)), tree.total(1.0 * (marked < 0))
            agrees = ((wanted > 0) & (wanted == (marked > 0).sum()) & (unwanted == 0))[nodes]
            if agrees.any():
                share = tree.total(self.regions.area)[nodes[agrees]] / self.regions.labels.size
                scores = guesses[agrees] + SMALLER * np.log(USUAL / share)
                order = np.argsort(-scores, kind="stable")
                masks = self.node_masks(tree, nodes[agrees][order])
                kept = distinct(self.regions, masks, count, SAME)
                return masks[kept], np.clip(scores[order[kept]], 0, 1)
        return np.zeros((0, self.regions.count), bool), np.zeros(0)

    def node_masks(self, tree: Tree, nodes: np.ndarray) -> np.ndarray:
        """Return (P, N) bool, the regions of each node."""
        result = np.zeros((len(nodes), self.regions.count), bool)
        for row, node in zip(result, nodes, strict=True):
            row[tree.members(node)] = True
        return result

    def surroundings(self, marked: np.ndarray) -> Box:
        """Return a box around the best node that holds all that is marked as the object."""
        found, _ = self.nodes_with(np.maximum(marked, 0), 1)
        chosen = found[0] if len(found) else np.ones(self.regions.count, bool)
        bounds = self.regions.bounds[chosen]
        low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def edge_share(self, chosen: np.ndarray) -> float:
        """Return how much of the outline of regions `chosen` (N,) lies on visible edges, 0 to 1."""
        first, second = self.regions.pairs.T
        outline = self.regions.length * (chosen[first] != chosen[second])
        seen = 1 - np.exp(-((self.regions.contrast / EDGE) ** 2))
        return float((outline * seen).sum() / max(outline.sum(), 1.0))


def _segments(
    found: list[tuple[np.ndarray, float]],
    known: Knowledge,
    image: np.ndarray,
    allowed: np.ndarray | None = None,
) -> list[Segment]:
    """Return masks of the photo's size, those that hold any pixel."""
    size = image.shape[0], image.shape[1]
    result = []
    for chosen, score in found:
        mask = enlarge(sharpen(known.regions, chosen, allowed), size)
        if mask.any():
            result.append(Segment(mask, score))
    return result
