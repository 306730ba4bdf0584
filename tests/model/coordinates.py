"""Random sparse coordinates for tests."""

import torch
from torch import Tensor


def voxels(count: int, side: int, *, items: int = 1, seed: int = 0) -> Tensor:
    """Return shuffled distinct coordinates (items * count, 4), corners of the cube included."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for item in range(items):
        cells = torch.randperm(side**3, generator=generator)[:count]
        cells = torch.cat([cells, torch.tensor([0, side**3 - 1])]).unique()
        cells = cells[torch.randperm(len(cells), generator=generator)]
        x, y, z = cells // side**2, cells // side % side, cells % side
        rows.append(torch.stack([torch.full_like(x, item), x, y, z], 1))
    return torch.cat(rows).int()
