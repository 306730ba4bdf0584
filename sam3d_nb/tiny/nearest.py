"""How far the pixels of a picture are from those of a mask, and which of them is nearest."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

NOWHERE = 1 << 14  # columns that a row without any is away, more than a picture has
PIECE = 1 << 26  # distances worked on at once: 256 MiB


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
    """Return squared distances (h, w) int32 to `mask`, and the nearest pixels (h, w) int64.

    Exactly, first within each row and then along columns over all rows: many sums, no loop.
    """
    height, width = mask.shape
    place = torch.arange(width, dtype=torch.int32, device=mask.device)
    before = torch.where(mask, place, -NOWHERE).cummax(1).values
    after = torch.where(mask, place, NOWHERE).flip(1).cummin(1).values.flip(1)
    column = torch.where(place - before <= after - place, before, after)  # (h, w)
    across = (place - column) ** 2
    rows = torch.arange(height, dtype=torch.int32, device=mask.device)
    found = []
    for part in rows.split(max(1, PIECE // (height * width))):
        along = (part[:, None] - rows) ** 2  # (n, h)
        found.append((across + along[:, :, None]).min(1))  # over h: (n, w)
    square = torch.cat([values for values, _ in found])
    row = torch.cat([index for _, index in found])
    return square, row * width + column.gather(0, row)
