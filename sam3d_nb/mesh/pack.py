"""Laying rectangles side by side into a square, as large as they fit."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d

from sam3d_nb.errors import InputError

MANY = 2000
TRIES = 12  # halvings of the interval in which the scale is looked for


def pack(sizes: np.ndarray, side: int, gap: int) -> tuple[np.ndarray, float]:
    """Return where rectangles lie in a square of `side` pixels, (C, 2) int64, and their scale.

    sizes: (C, 2) widths and heights in any unit. A rectangle takes ceil(scale * size) pixels, at
    least 1 each way, and keeps `gap` pixels from the others and half of that from the border; the
    gap shrinks where many rectangles leave no other way. Positions are lower corners.

    The highest comes first, each where it lies lowest (a skyline); on shelves where there are
    more than MANY. Raises InputError where even
    single pixels do not fit.
    """
    order = np.lexsort((-sizes[:, 0], -sizes[:, 1]))
    sizes = sizes[order]
    while True:
        fits = _placed(np.ones_like(sizes, dtype=np.int64) + gap, side)
        if fits is not None:
            break
        if not gap:
            raise InputError(
                f"{len(sizes)} charts do not fit a texture of {side} pixels; take a larger texture "
                "or simplify the mesh first"
            )
        gap //= 2
    low, high = 0.0, side / max(float(np.sqrt(sizes.prod(1).sum())), float(sizes.max()), 1e-30)
    for _ in range(TRIES):
        middle = (low + high) / 2
        cells = np.maximum(np.ceil(sizes * middle), 1).astype(np.int64) + gap
        found = _placed(cells, side)
        if found is None:
            high = middle
        else:
            low, fits = middle, found
    corners = np.empty_like(fits)
    corners[order] = fits + gap // 2
    return corners, low


def _placed(cells: np.ndarray, side: int) -> np.ndarray | None:
    """Return the corners (C, 2) of cells (C, 2), highest first, None if they do not all fit."""
    if cells[:, 0].max() > side:
        return None
    return (_on_shelves if len(cells) > MANY else _on_skyline)(cells, side)


def _on_shelves(cells: np.ndarray, side: int) -> np.ndarray | None:
    """Fill row after row, each as high as its first cell."""
    ends = cells[:, 0].cumsum()
    corners = np.zeros_like(cells)
    first, top = 0, 0
    while first < len(cells):
        before = ends[first] - cells[first, 0]
        last = int(np.searchsorted(ends, before + side, side="right"))
        corners[first:last, 0] = ends[first:last] - cells[first:last, 0] - before
        corners[first:last, 1] = top
        top += cells[first, 1]
        if top > side:
            return None
        first = last
    return corners


def _on_skyline(cells: np.ndarray, side: int) -> np.ndarray | None:
    """Put each cell as low as it goes on those before, and as far left."""
    corners = np.zeros_like(cells)
    skyline = np.zeros(side, dtype=np.int64)  # how far up each column is taken
    for corner, (width, height) in zip(corners, cells.tolist(), strict=True):
        level = maximum_filter1d(skyline, width, origin=-(width // 2))[: side - width + 1]
        left = int(level.argmin())
        corner[:] = left, level[left]
        if corner[1] + height > side:
            return None
        skyline[left : left + width] = corner[1] + height
    return corners
