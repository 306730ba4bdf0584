"""Triangles to fields: exact distance near the surface, insides by flood fill, color by splatting.

Meshes need not be closed: every sheet gets a thickness, and what no path from outside reaches
through gaps of up to three nodes is inside. Everything is batched over triangles or models.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from training.data.furniture import read
from training.data.objects import HALF, Objects, from_fields, merge

BAND = 2.0
"""Nodes up to this many steps from a triangle get its exact distance."""
PIECE = 3.0
"""Longest side, in steps, of the pieces that triangles are cut to."""
CLOSE = 1.5
"""Gaps of up to twice this many steps are closed when insides are sought."""
INNER = (
    torch.tensor(
        [[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4], [3, 3, 0], [0, 3, 3], [3, 0, 3]]
    ).float()
    / 6.0
)


def furniture(
    path: Path,  # as `training.data.furniture` writes it
    device: torch.device | str = "cpu",
    grid: int = 96,
    color: int = 64,
    points: int = 2048,
    limit: int | None = None,  # that many, evenly from all catalogs
    batch: int = 64,
) -> Objects:
    """Return the packed furniture as objects, sheets about 0.012 thick."""
    models = list(read(path))
    if limit is not None:
        models = models[:: max(1, len(models) // max(limit, 1))][:limit]
    generator = torch.Generator(device).manual_seed(0)
    parts = []
    for i in range(0, len(models), batch):
        group = models[i : i + batch]
        sdf, albedo = voxelize(
            [t for _, t, _ in group], [c for _, _, c in group], grid, color, device
        )
        parts.append(from_fields(sdf, albedo, [n for n, _, _ in group], points, generator))
    return merge(parts)


def voxelize(
    triangles: Iterable[np.ndarray],  # each (F, 3, 3), any place and size
    colors: Iterable[np.ndarray],  # each (F, 3) uint8, sRGB
    grid: int,
    color: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Return distance (n, 1, G, G, G) float16 and color (n, 3, C, C, C) uint8, normalized."""
    step = 2 * HALF / (grid - 1)
    thick = max(0.006, 0.72 * step)  # lines between nodes stay in one piece
    scaled = [_normalized(t, 1 - 2 * thick) for t in triangles]
    model = torch.cat([torch.full((len(t),), i) for i, t in enumerate(scaled)]).to(device)
    corners = torch.from_numpy(np.concatenate(scaled)).float().to(device)  # (T, 3, 3)
    paint = torch.from_numpy(np.concatenate(list(colors))).to(device)
    corners, origin = pieces(corners, PIECE * step)
    model, paint = model[origin], paint[origin]
    distance = unsigned(corners, model, len(scaled), grid)
    far = _far(distance, step)
    distance = torch.where(distance < BAND * step, distance, far.clamp_min(BAND * step))
    inside = ~outside(distance, step) & (distance > 0.5 * step)
    sdf = torch.where(inside, -distance, distance) - thick
    return sdf[:, None].half(), splat(corners, model, paint, len(scaled), color)


def _normalized(triangles: np.ndarray, side: float) -> np.ndarray:
    low, high = triangles.min((0, 1)), triangles.max((0, 1))
    return ((triangles - (low + high) / 2) * (side / (high - low).max())).astype(np.float32)


def pieces(corners: Tensor, longest: float) -> tuple[Tensor, Tensor]:
    """Bisect triangles (T, 3, 3) until no side is above `longest`; also return origins, sorted."""
    origin = torch.arange(len(corners), device=corners.device)
    done, done_origin = [], []
    for _ in range(40):
        side = (corners - corners.roll(-1, 1)).norm(dim=2)  # (T, 3), corner i to i + 1
        long = side.amax(1) > longest
        done.append(corners[~long])
        done_origin.append(origin[~long])
        corners, origin, side = corners[long], origin[long], side[long]
        if not len(corners):
            break
        turn = (side.argmax(1, keepdim=True) + torch.arange(3, device=side.device)) % 3
        a, b, c = corners.gather(1, turn[:, :, None].expand(-1, -1, 3)).unbind(1)
        middle = (a + b) / 2
        halves = (torch.stack([a, middle, c], 1), torch.stack([middle, b, c], 1))
        corners, origin = torch.cat(halves), torch.cat([origin, origin])
    origin, order = torch.cat(done_origin).sort(stable=True)
    return torch.cat(done)[order], origin


def unsigned(corners: Tensor, model: Tensor, count: int, grid: int) -> Tensor:
    """Return the distance (count, G, G, G) to the nearest piece within BAND; elsewhere large."""
    step = 2 * HALF / (grid - 1)
    side = int(PIECE + 2 * BAND) + 1
    device = corners.device
    out = torch.full((count * grid**3,), 1e3, device=device)
    k = torch.arange(side, device=device)
    offset = torch.stack(torch.meshgrid(k, k, k, indexing="ij"), -1).view(-1, 3).flip(1)  # xyz
    room = 2**24 if device.type == "cuda" else 2**20
    for part, owner in zip(*(x.split(room // side**3) for x in (corners, model)), strict=True):
        first = ((part.amin(1) + HALF) / step - BAND).ceil().long()  # (t, 3)
        x, y, z = (first[:, None, i] + offset[:, i] for i in range(3))  # (t, K^3)
        value = triangle_distance([c.float() * step - HALF for c in (x, y, z)], part)
        low, high = x.minimum(y).minimum(z), x.maximum(y).maximum(z)
        flat = ((owner[:, None] * grid + z) * grid + y) * grid + x
        within = (low >= 0) & (high < grid)
        value = torch.where(within, value, 1e3)
        flat = torch.where(within, flat, 0)
        out.scatter_reduce_(0, flat.view(-1), value.view(-1), "amin")
    return out.view(count, grid, grid, grid)


def triangle_distance(
    points: Tensor | Sequence[Tensor],  # (T, K, 3), or three coordinates (T, K)
    corners: Tensor,  # (T, 3, 3)
) -> Tensor:
    """Return the distance (T, K) of points to their triangle (after Inigo Quilez)."""
    at = points.unbind(-1) if isinstance(points, Tensor) else points
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 0] - corners[:, 2])
    size = normal.square().sum(-1, keepdim=True)  # (T, 1)
    sides = torch.zeros_like(at[0])
    edge = torch.full_like(sides, 1e6)
    for i in range(3):
        p, way = corners[:, i], corners[:, (i + 1) % 3] - corners[:, i]
        x = [c - o[:, None] for c, o in zip(at, p.unbind(1), strict=True)]
        sides += _dot(x, torch.linalg.cross(way, normal)).sign_()
        t = _dot(x, way / way.square().sum(-1, keepdim=True).clamp_min(1e-12)).clamp_(0, 1)
        x = [c.addcmul_(t, w[:, None], value=-1) for c, w in zip(x, way.unbind(1), strict=True)]
        square = x[0].square_().addcmul_(x[1], x[1]).addcmul_(x[2], x[2])
        edge = torch.minimum(edge, square)
    unit = normal / size.clamp_min(1e-20).sqrt()
    plane = (_dot(at, unit) - (unit * corners[:, 0]).sum(-1, keepdim=True)).square_()
    within = (sides.abs_() >= 1.5) & (size > 1e-16)
    return torch.where(within, plane, edge).sqrt_()


def _dot(x: Sequence[Tensor], y: Tensor) -> Tensor:
    """Return x · y: three coordinates (T, K), vectors (T, 3)."""
    a, b, c = y[:, :, None].unbind(1)  # (T, 1)
    return (x[0] * a).addcmul_(x[1], b).addcmul_(x[2], c)


def _far(distance: Tensor, step: float) -> Tensor:
    """Return distances (n, G, G, G) good to about half a step, also beyond the band.

    A Euclidean distance transform, one axis after the other: the least d² + |p - q|² over all
    nodes q that are less than a step from the surface.
    """
    square = torch.where(distance < step, distance.square(), 1e3)
    size = distance.shape[-1]
    x = torch.arange(size, device=distance.device, dtype=distance.dtype) * step
    apart = (x[:, None] - x).square()  # (G, G)
    room = 2**26 if distance.is_cuda else 2**22
    for _ in range(3):  # the last axis, which then goes first
        rows = square.reshape(-1, size)
        done = [(p[:, None] + apart).amin(-1) for p in rows.split(max(1, room // size**2))]
        square = torch.cat(done).view_as(square).permute(0, 3, 1, 2).contiguous()
    return square.sqrt()


def outside(distance: Tensor, step: float) -> Tensor:
    """Return which nodes (n, G, G, G) a path from the grid's faces reaches.

    Walls are first thick, so that small gaps are closed, then what lies before them is given back.
    """
    free = (distance > CLOSE * step).cpu().numpy()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        reached = np.stack(list(threads.map(_reached, free)))
    reached = torch.from_numpy(reached).to(distance.device)
    thin = distance > 0.5 * step
    for _ in range(3):
        spread = reached.clone()
        for axis in (1, 2, 3):
            n = reached.shape[axis] - 1
            spread.narrow(axis, 1, n).logical_or_(reached.narrow(axis, 0, n))
            spread.narrow(axis, 0, n).logical_or_(reached.narrow(axis, 1, n))
        reached = spread & thin
    return reached


def _reached(free: np.ndarray) -> np.ndarray:
    """Return which free nodes (G, G, G) hang together with free ones on the grid's faces."""
    labels, count = ndimage.label(free)
    faces = [labels.take(end, axis) for axis in range(3) for end in (0, -1)]
    known = np.zeros(count + 1, dtype=bool)
    known[np.concatenate([face.ravel() for face in faces])] = True
    known[0] = False
    return known[labels]


def splat(corners: Tensor, model: Tensor, paint: Tensor, count: int, size: int) -> Tensor:
    """Return color grids (count, 3, C, C, C) uint8 from pieces, empty nodes filled from around."""
    inner = INNER.to(corners)
    at = torch.einsum("kc,tcd->tkd", inner, corners)  # (T, 7, 3)
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    weight = (area.norm(dim=1)[:, None] + 1e-9).expand(-1, len(inner))  # (T, 7)
    x, y, z = ((at + HALF) / (2 * HALF) * (size - 1)).round().long().clamp(0, size - 1).unbind(-1)
    flat = (((model[:, None] * size + z) * size + y) * size + x).reshape(-1)
    total = torch.zeros(count * size**3, 4, device=corners.device)
    values = (
        torch.cat([paint.float(), torch.ones_like(paint[:, :1])], 1)[:, None] * weight[..., None]
    )
    total.index_add_(0, flat, values.reshape(-1, 4))
    grid = total.view(count, size, size, size, 4).permute(0, 4, 1, 2, 3).contiguous()
    return filled(grid).round().clamp(0, 255).byte()


def filled(weighted: Tensor) -> Tensor:
    """Return means (n, 3, S, S, S) of sums and weights (n, 4, ...), holes from coarser levels."""
    mean = weighted[:, :3] / weighted[:, 3:].clamp_min(1e-12)
    if weighted.shape[-1] == 1:
        return mean
    coarse = filled(F.avg_pool3d(weighted, 2, ceil_mode=True))
    coarse = F.interpolate(coarse, weighted.shape[2:], mode="trilinear", align_corners=False)
    return torch.where(weighted[:, 3:] > 0, mean, coarse)
