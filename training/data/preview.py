"""A sheet of pool samples to look at: crop, mask, photo, depth, one sample a column.

python -m training.data.preview --out sheet.png --count 24
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.data.objects import Objects, merge
from training.data.pool import Pool, build_pool


def tiles(pool: Pool) -> Tensor:
    """Return one picture a sample (N, 4 S, S, 3) uint8: crop, masked crop, photo, depth."""
    crop, full = pool.image.permute(0, 2, 3, 1), pool.full_image.permute(0, 2, 3, 1)
    masked = torch.where(pool.mask[..., None], crop, crop // 5)
    edge = pool.full_mask ^ (torch.nn.functional.max_pool2d(pool.full_mask.float(), 3, 1, 1) > 0)
    marked = torch.where(edge[..., None], torch.tensor([255, 0, 80], dtype=torch.uint8), full)
    z = pool.points[:, 2].float()
    finite = z.isfinite()
    low = torch.where(finite, z, torch.inf).amin((1, 2), keepdim=True)
    span = 2.0 * pool.linear.flatten(1).norm(dim=1).view(-1, 1, 1) / 3**0.5
    depth = (1 - (z - low) / span).clamp(0.05, 1) * 255
    depth = torch.where(finite, depth, 0).byte()[..., None].expand(-1, -1, -1, 3)
    return torch.cat([crop, masked, marked, depth], 1)


def sheet(pool: Pool, columns: int) -> Image.Image:
    """Return the samples' tiles, `columns` beside each other."""
    rows = [np.concatenate(list(part), 1) for part in tiles(pool.to("cpu")).numpy().reshape(
        -1, columns, 4 * pool.image.shape[2], pool.image.shape[2], 3)]  # fmt: skip
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    """Make objects and samples, write the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=int, default=96)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--furniture", type=Path, default=Path(".carry/furniture.npz"))
    parser.add_argument("--models", type=int, default=0, help="furniture models to mix in")
    a = parser.parse_args()
    from training.data.fields import furniture
    from training.data.shapes import procedural

    first = a.seed * 1000
    parts: list[Objects] = [procedural(range(first, first + a.count), a.device, a.grid)]
    if a.models:
        parts.append(furniture(a.furniture, a.device, a.grid, limit=a.models))
    pool = build_pool(merge(parts), a.count, a.seed, a.device, a.size, objects_in_turn=True)
    sheet(pool, a.columns).save(a.out)
    print(f"{a.out}: {len(pool)} samples, {float(pool.visible.mean()):.2f} visible on average")


if __name__ == "__main__":
    main()
