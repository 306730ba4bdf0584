"""How far the pixels of a picture are from those of a mask, and which of them is nearest."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

NOWHERE = 1 << 14  # columns that a row without any is away, more than a picture has
PIECE = 1 << 25  # distances worked on at once: 256 MiB


def distance(mask: Tensor) -> Tensor:
    """Return how many pixels the centers of pixels are from those of `mask`, (h, w) float64.

    As many as any picture has, where the mask is empty.
    """
    if not bool(mask.any()):
        return torch.full(mask.shape, NOWHERE, dtype=torch.float64, device=mask.device)
    if mask.is_cuda:
        return transform(mask)[0].double().sqrt()
    found = ndimage.distance_transform_edt(~mask.cpu().numpy())
    return torch.from_numpy(found).to(mask.device)


def nearest(mask: Tensor) -> Tensor:
    """Return the pixel of `mask`, not empty, nearest to each, row * width + column."""
    if mask.is_cuda:
        return transform(mask)[1]
    row, column = ndimage.distance_transform_edt(
        ~mask.cpu().numpy(), return_distances=False, return_indices=True
    )
    return torch.from_numpy(row * mask.shape[1] + column).long().to(mask.device)


def outside(mask: Tensor) -> Tensor:
    """Return how many pixels the centers of pixels are away from the mask, negative inside."""
    return torch.where(mask, 0.5 - distance(~mask), distance(mask) - 0.5)


def transform(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances (h, w) int64 to `mask`, and the nearest pixels (h, w) int64.

    Exactly, first within each column and then along rows over all columns: many sums, no loop. Of
    pixels that are equally near it takes the one that SciPy takes: the first column, and in it the
    first row.
    """
    height, width = mask.shape
    place = torch.arange(height, device=mask.device)[:, None]
    before = torch.where(mask, place, -NOWHERE).cummax(0).values
    after = torch.where(mask, place, NOWHERE).flip(0).cummin(0).values.flip(0)
    row = torch.where(place - before <= after - place, before, after)  # (h, w)
    along = (place - row) ** 2
    columns = torch.arange(width, device=mask.device)
    found = []
    for part in columns.split(max(1, PIECE // (height * width))):
        key = along[:, None] + (columns - part[:, None]) ** 2  # (h, n, w)
        key *= width
        key += columns  # since the place of a minimum is not certain
        found.append(key.amin(2))  # (h, n)
    key = torch.cat(found, 1)
    column = key % width
    return key // width, row.gather(1, column) * width + column
