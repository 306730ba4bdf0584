"""A photo as a few thousand small regions of even color, and which of them touch.

Regions by Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation, 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

WORK_SIZE = 1024
"""Photos are looked at with at most so many pixels on the longer side."""
LIGHTNESS = 0.6
"""Weight of lightness against the two color axes: shadows matter less than another color."""
SIDES = 4
"""Left, right, top, bottom of the photo."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a photo that was scaled to (h, w).

    labels: (h, w) int, the region of every pixel, 0 to N - 1. lab: (h, w, 3) float32, color in
    CIELAB with weighted lightness. scale: (x, y), pixels here a pixel of the photo. area: (N,) in
    pixels. color: (N, 3) mean of lab. center: (N, 2) x, y. bounds: (N, 4) left, top, right,
    bottom. rim: (N, 4) pixels along each side of the photo. pairs: (E, 2) regions that touch, the
    smaller number first; length: (E,) of what they share, in pixels; contrast: (E,) the color
    difference across it, or that of their means, whichever is less.
    """

    labels: np.ndarray
    lab: np.ndarray
    scale: tuple[float, float]
    area: np.ndarray
    color: np.ndarray
    center: np.ndarray
    bounds: np.ndarray
    rim: np.ndarray
    pairs: np.ndarray
    length: np.ndarray
    contrast: np.ndarray

    @property
    def count(self) -> int:
        """How many regions there are."""
        return len(self.area)

    def paint(self, chosen: np.ndarray) -> np.ndarray:
        """Return (h, w) of what `chosen` (N,) says about each pixel's region."""
        return chosen[self.labels]

    def share(self, mask: np.ndarray) -> np.ndarray:
        """Return (N,), how much of each region lies in `mask` (h, w) bool, from 0 to 1."""
        return np.bincount(self.labels[mask], minlength=self.count) / self.area


def make_regions(image: np.ndarray) -> Regions:
    """Return the regions of a photo (H, W, 3) uint8; takes about a second."""
    from skimage.color import rgb2lab
    from skimage.segmentation import felzenszwalb

    small = shrink(image)
    labels = felzenszwalb(small, scale=20, sigma=0.5, min_size=15).astype(np.int64)  # (h, w)
    lab = rgb2lab(small).astype(np.float32)  # (h, w, 3)
    lab[..., 0] *= LIGHTNESS
    count = int(labels.max()) + 1
    flat = labels.ravel()
    area = np.bincount(flat, minlength=count).astype(float)
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(flat, values.ravel(), count) / area

    slices = ndimage.find_objects(labels + 1)
    rims = (labels[:, 0], labels[:, -1], labels[0], labels[-1])
    color = np.stack([mean(lab[..., axis]) for axis in range(3)], axis=1)
    pairs, length, contrast = _touching(labels, lab, count)
    # A thin region has its neighbors' edges close by: it differs by no more than its color does.
    contrast = np.minimum(contrast, np.linalg.norm(color[pairs[:, 0]] - color[pairs[:, 1]], axis=1))
    return Regions(
        labels,
        lab,
        scale=(small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]),
        area=area,
        color=color,
        center=np.stack([mean(columns + 0.5), mean(rows + 0.5)], axis=1),
        bounds=np.array([(x.start, y.start, x.stop, y.stop) for y, x in slices], dtype=float),
        rim=np.stack([np.bincount(rim, minlength=count) for rim in rims], axis=1).astype(float),
        pairs=pairs,
        length=length,
        contrast=contrast,
    )


def shrink(image: np.ndarray) -> np.ndarray:
    """Return the photo with at most WORK_SIZE pixels on its longer side."""
    height, width = image.shape[:2]
    factor = WORK_SIZE / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _touching(
    labels: np.ndarray, lab: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs (E, 2), the length (E,) and the mean contrast (E,) of their borders."""
    smooth = ndimage.gaussian_filter(lab, (1, 1, 0))
    keys, steps = [], []
    for axis in (0, 1):
        size = labels.shape[axis]
        if size < 2:
            continue
        first, second = (np.take(labels, np.arange(size - 1) + k, axis) for k in (0, 1))
        different = first != second
        # the pixels next to the border are mixtures: compare those one further on
        wide = [np.clip(np.arange(size - 1) + k, 0, size - 1) for k in (-1, 2)]
        before, after = (np.take(smooth, index, axis) for index in wide)
        steps.append(np.linalg.norm(after - before, axis=-1)[different])
        low, high = np.minimum(first, second)[different], np.maximum(first, second)[different]
        keys.append(low * count + high)
    key = np.concatenate(keys) if keys else np.zeros(0, dtype=np.int64)
    step = np.concatenate(steps) if steps else np.zeros(0)
    unique, where, length = np.unique(key, return_inverse=True, return_counts=True)
    pairs = np.stack([unique // count, unique % count], axis=1)
    contrast = np.bincount(where, step, len(unique)) / np.maximum(length, 1)
    return pairs, length.astype(float), contrast
