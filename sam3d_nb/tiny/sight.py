"""Where a photo shows the points of a grid, and what it has there, on any device.

The grid is that of the view cube, [-0.5, 0.5]^3 with x right, y away and z up: rows of its points
lie along the axes of the camera. So all points of one x and y share a column of the photo, and all
of one y and z a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.frames import Array, Pose
from sam3d_nb.tiny.window import Window, window

NEAR = 1e-9  # depth from which on a point is in front of the camera


@dataclass(frozen=True)
class Sight:
    """Where a window of a photo shows a grid of nx, ny, nz points; float64, on one device."""

    window: Window
    column: Tensor  # (nx, ny, 1) pixels of the window; (nx, ny, nz) where pixels are skewed
    row: Tensor  # (1, ny, nz)
    depth: Tensor  # (1, ny, 1)
    reach: float  # pixels of the window that the spacing of the points takes

    @cached_property
    def inside(self) -> Tensor:
        """Which points are in front of the camera and in the window, (nx, ny, nz) bool."""
        across = (self.column >= 0) & (self.column < self.window.width) & (self.depth > NEAR)
        return across & (self.row >= 0) & (self.row < self.window.height)

    @cached_property
    def pixel(self) -> Tensor:
        """The pixels that the points are in, row * width + column, (nx, ny, nz) int64.

        Of points that are not inside it is one at the border.
        """
        return self._index(self.row.floor(), self.column.floor())

    def at(self, image: Tensor) -> Tensor:
        """Return the values (nx, ny, nz) of the pixels of `image` (h, w) that the points are in."""
        return image.take(self.pixel)

    def between(self, image: Tensor) -> Tensor:
        """Return `image` (h, w), linear between the centers of pixels, at the points."""
        height, width = image.shape
        row = (self.row - 0.5).clamp(0, height - 1)  # (1, ny, nz)
        column = (self.column - 0.5).clamp(0, width - 1)  # as `column`
        top, left = row.floor(), column.floor()
        upper, lower = (
            torch.lerp(
                image.take(self._index(top + down, left)),
                image.take(self._index(top + down, left + 1)),
                column - left,
            )
            for down in (0, 1)
        )
        return torch.lerp(upper, lower, row - top)

    def _index(self, row: Tensor, column: Tensor) -> Tensor:
        """Return the index (nx, ny, nz) of whole rows and columns, those outside at the border."""
        rows = row.clamp(0, self.window.height - 1).long()
        return rows * self.window.width + column.clamp(0, self.window.width - 1).long()


def look(
    axes: tuple[Array, Array, Array],
    pose: Pose,
    intrinsics: Array,
    shape: tuple[int, ...],
    finest: float = 1.0,
    device: torch.device | str = "cpu",
) -> Sight | None:
    """Look at a grid of points in the view cube; None where the photo shows none of them.

    axes: x, y, z of the points, evenly spaced. pose: of the cube, its translation and one scale.
    shape: (H, W) of the photo. finest: pixels of the window that the spacing takes at least, where
    the photo has as many.
    """
    side, (x0, y0, z0) = pose.scale[0], pose.translation
    x, y, depth = axes[0] * side + x0, -axes[2] * side + y0, axes[1] * side + z0
    front = depth > NEAR  # (ny,)
    if not front.any():
        return None
    reach = (intrinsics[0, 0] + intrinsics[1, 1]) / 2 * spacing(axes) * side
    reach /= float(np.median(depth[front]))
    part = window(shape, *_bounds(*_pixels(x, y, depth[front], intrinsics), reach), reach / finest)
    if part is None:
        return None
    found = *_pixels(x, y, np.where(front, depth, 1.0), part.intrinsics(intrinsics)), depth
    column, row, away = (torch.from_numpy(value).to(device) for value in found)
    return Sight(part, column, row, away[:, None], reach / part.step)


def in_camera(points: Tensor, pose: Pose) -> Tensor:
    """Return points (N, 3) float64 of the view cube in the camera, OpenCV axes."""
    x, y, z = points.unbind(1)
    return torch.stack([x, -z, y], 1) * pose.scale[0] + points.new_tensor(pose.translation)


def in_cube(points: Tensor, pose: Pose) -> Tensor:
    """Return points (N, 3) float64 of the camera in the view cube, see `in_camera`."""
    x, y, z = ((points - points.new_tensor(pose.translation)) / pose.scale[0]).unbind(1)
    return torch.stack([x, z, -y], 1)


def spacing(axes: tuple[Array, Array, Array]) -> float:
    """Return how far apart the points of a grid are, in sides of the cube."""
    return 1 / max(1, round(1 / (axes[2][1] - axes[2][0])))


def _pixels(x: Array, y: Array, depth: Array, intrinsics: Array) -> tuple[Array, Array]:
    """Return the pixels of points at `x` (nx,), `y` (nz,), `depth` (ny,) as `Sight` has them."""
    skew = intrinsics[0, 1] * y if intrinsics[0, 1] else np.zeros(1)
    depth = depth[:, None]  # (ny, 1)
    column = (intrinsics[0, 0] * x[:, None, None] + skew) / depth + intrinsics[0, 2]
    return column, (intrinsics[1, 1] * y / depth + intrinsics[1, 2])[None]


def _bounds(column: Array, row: Array, reach: float) -> tuple[Array, Array]:
    """Return the first and last column and row, (2,) each, of what is `reach` around pixels."""
    low = np.array([column.min(), row.min()]) - reach
    return low, np.array([column.max(), row.max()]) + reach
