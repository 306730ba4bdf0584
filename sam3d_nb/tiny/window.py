"""The part of a photo that an object can be in, no finer than needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam3d_nb.frames import Array


@dataclass(frozen=True)
class Window:
    """Rows and columns of a photo, of blocks of `step` pixels those in the middle.

    step: odd, so that every block has a pixel in its middle.
    """

    top: int
    left: int
    height: int  # blocks
    width: int
    step: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the middle pixels of the window of `image` (H, W, ...), (height, width, ...)."""
        return self._blocks(image)[self.step // 2 :: self.step, self.step // 2 :: self.step]

    def depth(self, pointmap: Array) -> Array:
        """Return the depths in a point map (H, W, 3), infinite where unknown, (height, width)."""
        depth = self.cut(pointmap[..., 2])
        return np.where(np.isfinite(depth), depth, np.inf)

    def some(self, mask: np.ndarray) -> np.ndarray:
        """Return which blocks of the window hold any of `mask` (H, W) bool, (height, width)."""
        step = self.step
        blocks = self._blocks(mask).reshape(self.height, step, self.width, step)
        return np.asarray(blocks.any((1, 3)))

    def mean(self, image: np.ndarray) -> Array:
        """Return the blocks' means of `image` (H, W, C), (height, width, C) float32."""
        step, channels = self.step, image.shape[2]
        blocks = self._blocks(image).reshape(self.height, step, self.width, step, channels)
        return blocks.mean((1, 3), dtype=np.float32)

    def intrinsics(self, full: Array) -> Array:
        """Return the intrinsics (3, 3) of the window, of those of the photo, in pixels."""
        found = np.array(full, dtype=np.float64)
        found[:2, 2] -= self.left, self.top
        found[:2] /= self.step
        return found

    def _blocks(self, image: np.ndarray) -> np.ndarray:
        rows = slice(self.top, self.top + self.height * self.step)
        columns = slice(self.left, self.left + self.width * self.step)
        return image[rows, columns]


def window(shape: tuple[int, ...], low: Array, high: Array, finest: float = 1.0) -> Window | None:
    """Return the window of a photo (H, W) that holds `low` to `high`, (2,) pixels: column, row.

    finest: pixels of the photo that one block may take, at most; None where nothing is inside.
    A photo's last rows and columns may be left out, fewer than a block's.
    """
    step = max(1, int(finest))
    step -= 1 - step % 2
    left, top = np.floor(np.maximum(low, 0)).astype(int)
    right, bottom = np.minimum(np.ceil(high), shape[1::-1]).astype(int)
    height, width = (bottom - top) // step, (right - left) // step
    if height < 1 or width < 1:
        return None
    return Window(int(top), int(left), int(height), int(width), step)


def around(mask: np.ndarray, margin: int, across: int | None = None) -> Window | None:
    """Return the window of `mask` (H, W) with `margin` pixels on every side; None if it is empty.

    across: about how many blocks the mask's longer side takes, where it has as many pixels: from
    two thirds of it to twice as many, since blocks have odd sides; None: blocks are pixels.
    """
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    if not len(columns):
        return None
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    step = 1 if across is None else int((high - low).max() / across) // 2 * 2 + 1
    return window(mask.shape, low - margin, high + margin, step)
