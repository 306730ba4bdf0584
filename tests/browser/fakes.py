"""A segmenter for notebooks under test, whose masks can be told in advance."""

from __future__ import annotations

import numpy as np

from sam3d_nb.masks.segmenter import Prompt, Segment, Segmenter

RADIUS = 60


class Disks(Segmenter):
    """Finds a disk around every point on the object, less those beside it; a box is filled."""

    name = "disks"

    def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
        """Return the one mask of the prompt."""
        height, width = image.shape[:2]
        checked = prompt.checked((height, width))
        mask = np.zeros((height, width), dtype=bool)
        if checked.box is not None:
            x0, y0, x1, y1 = (round(side) for side in checked.box)
            mask[y0:y1, x0:x1] = True
        for (x, y), positive in zip(checked.points, checked.labels, strict=True):
            near = disk(x, y, RADIUS, (height, width))
            mask = mask | near if positive else mask & ~near
        return [Segment(mask, 0.9)]

    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        """Return two disks."""
        height, width = image.shape[:2]
        return [
            Segment(disk(x, height / 2, height / 6, (height, width)), 0.9, name)
            for x, name in ((width / 4, "left"), (3 * width / 4, "right"))
        ]


def disk(x: float, y: float, radius: float, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) of a disk."""
    v, u = np.ogrid[: shape[0], : shape[1]]
    return (u + 0.5 - x) ** 2 + (v + 0.5 - y) ** 2 <= radius**2
