"""Filters and look-ups of pictures as tensors, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.frames import Array


def largest(image: Tensor, size: int) -> Tensor:
    """Return the maxima of `image` (h, w, ...) over squares of `size` pixels, odd, around each.

    Pixels outside of the picture do not count.
    """
    lowest = False if image.dtype == torch.bool else -torch.inf
    for axis in (0, 1):
        shape = list(image.shape)
        shape[axis] = size // 2
        border = image.new_full(shape, lowest)
        image = _running(torch.cat([border, image, border], axis), size, axis)
    return image


def smallest(image: Tensor, size: int) -> Tensor:
    """Return the minima of `image` (h, w, ...) as `largest` returns the maxima."""
    return -largest(-image, size)


def gaps(mask: Tensor, radius: int) -> Tensor:
    """Return the pixels beside a mask (h, w) in no square of 2 radius + 1 pixels beside it."""
    height, width = mask.shape
    size = 2 * radius + 1
    padded = F.pad(mask, (radius,) * 4)
    closed = ~largest(~largest(padded, size), size)
    return closed[radius : radius + height, radius : radius + width] & ~mask


def between(image: Tensor, at: Tensor) -> Tensor:
    """Return `image` (h, w, C), linear between the centers of pixels, at `at` (N, 2), (N, C).

    at: column and row; outside of the picture its border counts.
    """
    size = at.new_tensor(image.shape[1::-1])  # width, height
    grid = (2 * at / size - 1)[None, :, None]  # (1, N, 1, 2)
    channels = image.permute(2, 0, 1)[None].to(at.dtype)  # (1, C, h, w)
    found = F.grid_sample(channels, grid, padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T


def project(points: Tensor, intrinsics: Array) -> Tensor:
    """Return the pixel positions (N, 2) of points (N, 3) in the camera, see `frames.project`."""
    homogeneous = points @ points.new_tensor(np.asarray(intrinsics)).T  # (N, 3)
    return homogeneous[:, :2] / homogeneous[:, 2:]


def pixel_of(at: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return which of `at` (N, 2), column and row, are in a picture (h, w), and in which pixel.

    The pixel is row * width + column, (N,) int64, and 0 outside.
    """
    height, width = shape
    column, row = at.floor().unbind(1)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    return inside, torch.where(inside, row * width + column, 0).long()


def _running(image: Tensor, size: int, axis: int) -> Tensor:
    """Return the maxima of `size` values in a row, of which there are size - 1 fewer.

    Those of twice as many at each step: as few steps as there are binary digits.
    """
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        count = image.shape[axis] - step
        image = torch.maximum(image.narrow(axis, 0, count), image.narrow(axis, step, count))
        reach += step
    return image
