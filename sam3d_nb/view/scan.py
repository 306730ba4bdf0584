"""Scan conversion: which pixel centers every triangle covers, exactly and without gaps.

Corners are snapped to 1/1024 pixel and edges are tested in 64-bit integers, so that of two
triangles that share an edge exactly one owns a pixel center on it (the top-left rule). Triangles
become rows, rows become spans of pixels; both steps work on bounded pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

STEPS = 1024  # snapping steps a pixel
GUARD = float(1 << 18)  # pixels; triangles are clipped there, so that no product overflows
NEAR = 1e-6  # smallest W, in units of the world
PIECE = 1 << 20  # rows or pixels worked on at once


def scan(
    corners: Tensor,  # (F, 3, 4) float64: X, Y, W, Q as `Camera.corners` gives them
    height: int,
    width: int,
    piece: int = PIECE,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (face, pixel, depth), each (N,), for all pixel centers that the triangles cover.

    face: int64 index into F; pixel: int64, row * width + column; depth: float64, Q / W at the
    pixel's center, larger is farther. Both sides of a triangle count; one that has no area on
    the screen covers nothing. N is at most piece + width.
    """
    corners, parent = _clip(corners)
    fixed = torch.round(corners[..., :2] / corners[..., 2:3] * STEPS).to(torch.int64)  # (T, 3, 2)
    area = _cross(fixed[:, 1] - fixed[:, 0], fixed[:, 2] - fixed[:, 0])  # (T,)
    first, second, third = fixed.unbind(1)  # corner by corner: `amin` is slow over three
    low = torch.minimum(torch.minimum(first, second), third)
    high = torch.maximum(torch.maximum(first, second), third)
    low = -_floor_divide(STEPS // 2 - low, STEPS)  # (T, 2) first column and row
    high = _floor_divide(high - STEPS // 2, STEPS)  # (T, 2) last column and row
    low = low.clamp(min=0)
    high = torch.minimum(high, high.new_tensor([width - 1, height - 1]))
    keep = ((high >= low).all(1) & (area != 0)).nonzero()[:, 0]
    fixed, area, parent, low, high = (x[keep] for x in (fixed, area, parent, low, high))

    plane = _depth_plane(fixed, corners[keep, :, 3] / corners[keep, :, 2])  # (T, 3)
    fixed = torch.where((area < 0)[:, None, None], fixed.flip(1), fixed)  # all turn one way
    for triangle, offset in expand(high[:, 1] - low[:, 1] + 1, piece):
        row = low[triangle, 1] + offset
        first, last = _span(fixed[triangle], row, low[triangle, 0], high[triangle, 0])
        filled = (last >= first).nonzero()[:, 0]
        triangle, row, first, last = (x[filled] for x in (triangle, row, first, last))
        for span, step in expand(last - first + 1, piece):
            owner, u, v = triangle[span], first[span] + step, row[span]
            a, b, c = plane[owner].unbind(1)
            yield parent[owner], v * width + u, a * (u + 0.5) + b * (v + 0.5) + c


def _clip(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the triangles' parts in front of the camera and near the picture, and their faces."""
    parent = torch.arange(len(corners), device=corners.device)
    planes = [
        (0.0, 0.0, 1.0, -NEAR),
        (1.0, 0.0, GUARD, 0.0),
        (-1.0, 0.0, GUARD, 0.0),
        (0.0, 1.0, GUARD, 0.0),
        (0.0, -1.0, GUARD, 0.0),
    ]
    for x, y, w, constant in planes:
        inside = corners[..., 0] * x + corners[..., 1] * y + corners[..., 2] * w + constant
        if bool((inside < 0).any()):
            corners, parent = _clip_plane(corners, parent, inside)
    return corners, parent


def _clip_plane(
    corners: Tensor,  # (T, 3, 4)
    parent: Tensor,  # (T,)
    inside: Tensor,  # (T, 3) signed distance, negative is cut away
) -> tuple[Tensor, Tensor]:
    """Cut triangles by one plane; an edge is always cut from its inner end, so neighbors agree."""
    count = (inside >= 0).sum(1)
    whole, one, two = ((count == n).nonzero()[:, 0] for n in (3, 1, 2))

    def turned(chosen: Tensor, lone: Tensor) -> tuple[Tensor, Tensor]:
        index = (lone[:, None] + torch.arange(3, device=lone.device)) % 3  # (N, 3), lone one first
        taken = corners[chosen].gather(1, index[..., None].expand(-1, -1, 4))
        return taken, inside[chosen].gather(1, index)

    def cut(points: Tensor, distance: Tensor, inner: int, outer: int) -> Tensor:
        share = distance[:, inner] / (distance[:, inner] - distance[:, outer])
        return torch.lerp(points[:, inner], points[:, outer], share[:, None])

    a, da = turned(one, (inside[one] >= 0).to(torch.int8).argmax(1))
    tips = torch.stack([a[:, 0], cut(a, da, 0, 1), cut(a, da, 0, 2)], 1)
    b, db = turned(two, (inside[two] < 0).to(torch.int8).argmax(1))
    left, right = cut(b, db, 1, 0), cut(b, db, 2, 0)
    lower = torch.stack([b[:, 1], b[:, 2], right], 1)
    upper = torch.stack([b[:, 1], right, left], 1)
    pieces = torch.cat([corners[whole], tips, lower, upper])
    return pieces, torch.cat([parent[whole], parent[one], parent[two], parent[two]])


def _depth_plane(fixed: Tensor, depth: Tensor) -> Tensor:
    """Return (a, b, c) with depth = a u + b v + c on the screen: (T, 3, 2), (T, 3) to (T, 3)."""
    points = fixed.to(torch.float64) / STEPS
    p, q = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    dp, dq = depth[:, 1] - depth[:, 0], depth[:, 2] - depth[:, 0]
    area = _cross(p, q)
    a = (dp * q[:, 1] - dq * p[:, 1]) / area
    b = (dq * p[:, 0] - dp * q[:, 0]) / area
    return torch.stack([a, b, depth[:, 0] - a * points[:, 0, 0] - b * points[:, 0, 1]], 1)


def _span(
    fixed: Tensor,  # (N, 3, 2) corners, turning so that the inside has positive edge values
    row: Tensor,  # (N,)
    first: Tensor,  # (N,)
    last: Tensor,  # (N,)
) -> tuple[Tensor, Tensor]:
    """Return the first and last column, (N,) each, whose centers lie inside; first > last if none.

    The edge value at column x is `constant - dy * STEPS * x`; on the edge itself it is 0, which
    counts as inside for left edges (up the screen) and for level upper ones (to the right).
    """
    y = row * STEPS + STEPS // 2
    for i in range(3):
        start, end = fixed[:, i], fixed[:, (i + 1) % 3]
        dx, dy = (end - start).unbind(1)
        owned = (dy < 0) | ((dy == 0) & (dx > 0))
        constant = dx * (y - start[:, 1]) - dy * (STEPS // 2 - start[:, 0])
        constant = constant - (~owned).to(torch.int64)
        bound = _floor_divide(constant, (dy.abs() * STEPS).clamp(min=1))
        last = torch.where(dy > 0, torch.minimum(last, bound), last)
        first = torch.where(dy < 0, torch.maximum(first, -bound), first)
        last = torch.where((dy == 0) & (constant < 0), first - 1, last)
    return first, last


def expand(counts: Tensor, piece: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (owner, offset), (N,) each: every owner i repeated counts[i] times, counted from 0.

    N is at most `piece` plus the largest count.
    """
    if not len(counts):
        return
    ends = counts.cumsum(0)  # (T,)
    total = int(ends[-1])
    targets = torch.arange(piece, total + piece, piece, device=counts.device)
    cuts = [0, *torch.searchsorted(ends, targets).add(1).clamp(max=len(counts)).tolist()]
    for begin, end in pairwise(cuts):
        if end > begin:
            part = counts[begin:end]
            owner = torch.arange(begin, end, device=counts.device).repeat_interleave(part)
            start = ends[begin:end] - part - (ends[begin] - part[0])
            yield owner, torch.arange(len(owner), device=counts.device) - start[owner - begin]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _floor_divide(a: Tensor, b: Tensor | int) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")
