"""Sums that come out the same in whatever order a card adds."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 40.0


def sums(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the sums (count, C) float64 of the rows of `values` (N, C) that share an `index` (N,).

    They are of whole numbers, of which the largest value has 2^40: fewer than 2^22 may add up.
    """
    values = values.double()
    total = torch.zeros(count, values.shape[1], dtype=torch.int64, device=values.device)
    if not len(values):
        return total.double()
    unit = values.abs().amax().clamp_min(1e-200) / 2.0**BITS
    total.index_add_(0, index, (values / unit).round().long())
    return total * unit
