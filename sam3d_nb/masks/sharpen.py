"""From regions to pixels: the outline moved to where the colors of both sides part."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.special import expit, logit

from sam3d_nb.masks.mixture import fit_mixture
from sam3d_nb.masks.regions import Regions

MARGIN = 10  # pixels around the object that are looked at
SURE = 0.98  # probability of what the regions say
LIMIT = 6.0  # of the log odds by color
SMOOTH = 3.0  # log odds that a neighbor of the same color brings
CONTRAST = 4.0  # color difference at which that falls to exp(-1/2)
ROUNDS = 5
BAND = 12  # pixels on both sides of the outline in which colors count
OBJECT_COLORS, OTHER_COLORS = 3, 5


def sharpen(regions: Regions, chosen: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return (h, w) float32, the probability of each pixel to be the object's.

    chosen: (N,) bool, the object's regions. allowed: (h, w) bool, where it may be; by default
    everywhere. Mean field in a grid with a model of the colors of both sides.
    """
    rough = regions.paint(chosen)  # (h, w)
    if allowed is not None:
        rough = rough & allowed
    result = np.zeros(rough.shape, np.float32)
    if not rough.any():
        return result
    window = _window(rough)
    labels = regions.labels[window]
    there = np.bincount(labels.ravel(), minlength=regions.count).astype(float)
    own = np.bincount(labels[rough[window]], minlength=regions.count).astype(float)
    other = there - own
    prior = logit(np.where(rough[window], SURE, 1 - SURE))
    if not own.any() or not other.any():
        result[window] = expit(prior)
        return result
    mine = fit_mixture(regions.color[own > 0], own[own > 0], OBJECT_COLORS)
    theirs = fit_mixture(regions.color[other > 0], other[other > 0], OTHER_COLORS)
    lab = regions.lab[window]
    near = ndimage.uniform_filter(rough[window].astype(np.float32), 2 * BAND + 1)
    band = (near > 1e-4) & (near < 1 - 1e-4)
    color = mine.log_density(lab[band]) - theirs.log_density(lab[band])
    odds = prior.copy()
    odds[band] += np.clip(color, -LIMIT, LIMIT)
    if allowed is not None:
        odds = np.where(allowed[window], odds, -20.0)
    result[window] = _mean_field(odds.astype(np.float32), lab)
    return result


def enlarge(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool, where a probability (h, w) float32 scaled to `shape` is above half."""
    if probability.shape == shape:
        return probability > 0.5
    result = np.zeros(shape, bool)
    some = probability > 0.01
    if not some.any():
        return result
    windows, box = [], []
    for axis, size in ((1, shape[0]), (0, shape[1])):
        used, scale = np.flatnonzero(some.any(axis=axis)), probability.shape[1 - axis] / size
        start = max(0, int((used[0] - 1) / scale))
        stop = min(size, int((used[-1] + 2) / scale) + 1)
        windows.append(slice(start, stop))
        box.append((start * scale, min(stop * scale, probability.shape[1 - axis])))
    rows, columns = windows
    part = Image.fromarray(probability).resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        Image.Resampling.BILINEAR,
        box=(box[1][0], box[0][0], box[1][1], box[0][1]),
    )
    result[rows, columns] = np.asarray(part) > 0.5
    return result


def _window(rough: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of an object and its surroundings."""
    slices = []
    for axis in (1, 0):
        used = np.flatnonzero(rough.any(axis=axis))
        slices.append(slice(max(0, used[0] - MARGIN), used[-1] + 1 + MARGIN))
    return slices[0], slices[1]


def _mean_field(odds: np.ndarray, lab: np.ndarray) -> np.ndarray:
    """Return (h, w) probabilities from log odds and the agreement of the four neighbors."""
    across = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
    down = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
    links = []
    for one, two in (across, down):
        apart = ((lab[one] - lab[two]) ** 2).sum(axis=-1)
        links.append((one, two, SMOOTH * np.exp(-apart / (2 * CONTRAST**2))))
    probability = expit(odds)
    for _ in range(ROUNDS):
        lean, total = 2 * probability - 1, odds.copy()
        for one, two, weight in links:
            total[one] += weight * lean[two]
            total[two] += weight * lean[one]
        probability = expit(total)
    return probability
