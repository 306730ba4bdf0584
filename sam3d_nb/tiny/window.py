"""The part of a photo that an object can be in, no finer than needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sam3d_nb.frames import Array, Pose, project


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


def placed(points: Array, pose: Pose) -> Array:
    """Return points (N, 3) of the view cube in the camera, OpenCV axes.

    points: the cube is [-0.5, 0.5]^3, view frame: x right, y away, z up. pose: of the cube.
    """
    x, y, z = points.T
    return np.stack([x, -z, y], 1) * pose.scale[0] + np.asarray(pose.translation)


class Sight(NamedTuple):
    """Which of N points a photo shows, and where."""

    window: Window
    inside: np.ndarray  # (N,) bool: n points
    at: Array  # (n, 2) pixels of the window: column, row
    depth: Array  # (n,)
    reach: float  # pixels of the window that the spacing of the points takes


def look(
    points: Array, intrinsics: Array, shape: tuple[int, ...], spacing: float, finest: float = 1.0
) -> Sight | None:
    """Look at a grid of points (N, 3) in the camera frame, OpenCV; None where none is shown.

    shape: (H, W) of the photo. spacing: of the points. finest: pixels of the window that it takes
    at least, where the photo has as many.
    """
    inside = points[:, 2] > 1e-9
    if not inside.any():
        return None
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    reach = focal * spacing / float(np.median(points[inside, 2]))
    pixels = project(points[inside], intrinsics)
    part = window(shape, pixels.min(0) - reach, pixels.max(0) + reach, finest=reach / finest)
    if part is None:
        return None
    at = project(points[inside], part.intrinsics(intrinsics))
    held = ((at >= 0) & (at < (part.width, part.height))).all(1)
    inside[inside] = held
    return Sight(part, inside, at[held], points[inside, 2], reach / part.step)
