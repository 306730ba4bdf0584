"""Procedural objects: tables of primitives, evaluated on grids in batches.

Seeds decide everything: object `seed` is the same on every machine (up to rounding).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from training.data import decor, seating, storage, things
from training.data.build import (
    ADD,
    BLEND,
    BOX,
    CENTER,
    CHECKS,
    COLOR,
    ELLIPSOID,
    FREQUENCY,
    FRUSTUM,
    KIND,
    OP,
    PATTERN,
    ROUND,
    SECOND,
    SIZE,
    STRIPES,
    TORUS,
    TURN,
    Builder,
    rescale,
)
from training.data.objects import Objects, bounds, from_fields, nodes

TRAINING_SEEDS = range(0, 1_000_000)
"""Seeds of objects that training may use."""
HELD_OUT_SEEDS = range(1_000_000, 1_010_000)
"""Seeds of objects for evaluation; training never uses them, `procedural` sees to it."""

KINDS: dict[str, tuple[Callable[[Builder], None], float]] = (
    seating.KINDS | storage.KINDS | decor.KINDS | things.KINDS
)
"""Builder and weight of every kind."""


def table(seed: int) -> tuple[str, np.ndarray, bool]:
    """Return kind, primitives (M, WIDTH) in the object frame, and whether cuts trim the box."""
    rng = random.Random(seed)
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    name = rng.choices(names, weights)[0]
    builder = Builder(rng)
    KINDS[name][0](builder)
    return name, builder.table(), builder.trimmed


def procedural(
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    grid: int = 96,
    color: int = 64,
    points: int = 2048,
    held_out: bool = False,
) -> Objects:
    """Make one object a seed. Raises `ValueError` for held-out seeds, unless they are meant."""
    allowed = HELD_OUT_SEEDS if held_out else TRAINING_SEEDS
    strange = next((s for s in seeds if s not in allowed), None)
    if strange is not None:
        raise ValueError(f"seed {strange} is not in {allowed}; see HELD_OUT_SEEDS")
    made = [table(seed) for seed in seeds]
    tables = [rows for _, rows, _ in made]
    trimmed = [i for i, (_, _, t) in enumerate(made) if t]
    for i, rows in zip(trimmed, _fitted([tables[i] for i in trimmed], device), strict=True):
        tables[i] = rows
    sdf = evaluate_distance(tables, grid, device).half()
    albedo = evaluate_color(tables, color, device)
    kind = [f"procedural/{name}/{seed}" for seed, (name, _, _) in zip(seeds, made, strict=True)]
    generator = torch.Generator(device).manual_seed(0)
    return from_fields(sdf, albedo, kind, points, generator)


def _fitted(tables: list[np.ndarray], device: torch.device | str) -> list[np.ndarray]:
    """Scale tables whose cuts change the box, by the box that a coarse grid shows."""
    if not tables:
        return []
    low, high = (b.cpu().double().numpy() for b in bounds(evaluate_distance(tables, 64, device)))
    size = (high - low).max(1)
    return [
        rescale(rows, (a + b) / 2, 1 / s)
        for rows, a, b, s in zip(tables, low, high, size, strict=True)
    ]


def evaluate_distance(
    tables: Sequence[np.ndarray], size: int, device: torch.device | str
) -> Tensor:
    """Return signed distance (O, 1, size, size, size) float16."""
    device = torch.device(device)
    out = torch.empty(len(tables), 1, size, size, size, dtype=torch.half, device=device)
    for ids in _spans(tables, size, device):
        d = _Evaluation([tables[i] for i in ids], size, device).run(paint=False)[0]
        out[torch.tensor(ids, device=device), 0] = d.clamp(-2, 2).half()
    return out


def evaluate_color(tables: Sequence[np.ndarray], size: int, device: torch.device | str) -> Tensor:
    """Return the nearest primitive's color (O, 3, size, size, size) uint8."""
    device = torch.device(device)
    out = torch.empty(len(tables), 3, size, size, size, dtype=torch.uint8, device=device)
    for ids in _spans(tables, size, device):
        color = _Evaluation([tables[i] for i in ids], size, device).run(paint=True)[1]
        out[torch.tensor(ids, device=device)] = (color * 255 + 0.5).clamp(0, 255).byte()
    return out


def _spans(tables: Sequence[np.ndarray], size: int, device: torch.device) -> Iterator[list[int]]:
    """Split the objects into groups of equal number, by how many primitives they have.

    The last group is filled up with repeats, so that compiled code meets one shape alone.
    """
    room = 2**25 if device.type == "cuda" else 2**21
    step = max(1, room // size**3)
    order = sorted(range(len(tables)), key=lambda i: len(tables[i]))
    for start in range(0, len(order), step):
        ids = order[start : start + step]
        yield ids + ids[-1:] * (step - len(ids) if device.type == "cuda" else 0)


class _Evaluation:
    """All primitives of n objects on one grid; slot after slot, kind after kind."""

    def __init__(self, tables: Sequence[np.ndarray], size: int, device: torch.device):
        longest = max(len(rows) for rows in tables)
        padded = np.full((longest, len(tables), tables[0].shape[1]), -1.0)
        for i, rows in enumerate(tables):
            padded[: len(rows), i] = rows
        self.host = padded  # (M, n, WIDTH)
        self.rows = torch.tensor(padded, dtype=torch.float32, device=device)
        x = nodes(size, device)
        self.axes = (x.view(1, 1, 1, -1), x.view(1, 1, -1, 1), x.view(1, -1, 1, 1))
        shape = (len(tables), size, size, size)
        self.distance = torch.full(shape, 4.0, device=device)
        self.color = torch.zeros(len(tables), 3, *shape[1:], device=device)

    def run(self, paint: bool) -> tuple[Tensor, Tensor]:
        """Return distance (n, S, S, S), and color (n, 3, S, S, S) where wanted."""
        if self.rows.is_cuda:
            step = _compiled(_painted_slot if paint else _slot)
            state = (self.distance, self.color) if paint else (self.distance,)
            for row in self.rows:
                state = step(*state, row, self.axes)
            return state if paint else (*state, self.color)
        for slot, host in enumerate(self.host):
            for kind in (BOX, FRUSTUM, ELLIPSOID, TORUS):
                for op in (0, 1):
                    which = np.flatnonzero((host[:, KIND] == kind) & (host[:, OP] == op))
                    if len(which):
                        self._apply(slot, kind, op, which, paint)
        return self.distance, self.color

    def _apply(self, slot: int, kind: int, op: int, which: np.ndarray, paint: bool) -> None:
        everything = len(which) == self.host.shape[1]
        device = self.rows.device
        at = torch.from_numpy(which).to(device, non_blocking=True)
        row = self.rows[slot, at]  # (n, WIDTH)
        local = self._local(row)
        new = DISTANCES[kind](local, row) - _column(row, ROUND)
        old = self.distance if everything else self.distance[at]
        if paint:
            wins = (new < old) if op == ADD else (-new > old)
            color = _pattern(local, row)
            base = self.color if everything else self.color[at]
            self.color[at] = torch.where(wins[:, None], color, base)
        blend = self.host[slot, which, BLEND]
        if op != ADD:
            result = torch.maximum(old, -new)
        elif blend.any():
            k = _column(row, BLEND).clamp_min(1e-4)
            h = (k - (old - new).abs()).clamp_min(0) / k
            result = torch.minimum(old, new) - h * h * k / 4
        else:
            result = torch.minimum(old, new)
        if everything:
            self.distance = result
        else:
            self.distance[at] = result

    def _local(self, row: Tensor) -> list[Tensor]:
        return _local(row, self.axes)


def _local(row: Tensor, axes: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """Return the nodes' coordinates in the primitives' own axes, three of (n, S, S, S)."""
    turn = row[:, TURN].reshape(-1, 3, 3)
    shift = (turn * row[:, CENTER, None]).sum(1)  # (n, 3)
    x, y, z = axes
    local = []
    for k in range(3):
        a, b, c = (turn[:, i, k].view(-1, 1, 1, 1) for i in range(3))
        local.append((a * x - shift[:, k].view(-1, 1, 1, 1) + b * y) + c * z)
    return local


Axes = tuple[Tensor, Tensor, Tensor]


def _slot(distance: Tensor, row: Tensor, axes: Axes) -> tuple[Tensor]:
    """Apply one primitive an object, of any kind, to (n, S, S, S): `_Evaluation._apply` fused."""
    return (_applied(distance, row, _local(row, axes))[0],)


def _painted_slot(
    distance: Tensor, color: Tensor, row: Tensor, axes: Axes
) -> tuple[Tensor, Tensor]:
    """Apply one primitive an object to distance (n, S, S, S) and color (n, 3, S, S, S)."""
    local = _local(row, axes)
    result, wins = _applied(distance, row, local)
    return result, torch.where(wins[:, None], _pattern(local, row), color)


def _applied(distance: Tensor, row: Tensor, local: list[Tensor]) -> tuple[Tensor, Tensor]:
    kind, add = _column(row, KIND), _column(row, OP) == ADD
    new = distance
    for number, measure in DISTANCES.items():
        found = measure([p.clone() for p in local], row) - _column(row, ROUND)
        new = torch.where(kind == number, found, new)
    k = _column(row, BLEND)
    h = (k - (distance - new).abs()).clamp_min(0) / k.clamp_min(1e-4)
    joined = torch.minimum(distance, new) - torch.where(k > 0, h * h * k / 4, 0.0)
    result = torch.where(add, joined, torch.maximum(distance, -new))
    wins = torch.where(add, new < distance, -new > distance) & (kind >= 0)
    return torch.where(kind >= 0, result, distance), wins


@cache
def _compiled(step: Callable) -> Callable:
    return torch.compile(step, dynamic=False)


def _column(row: Tensor, index: int) -> Tensor:
    return row[:, index].view(-1, 1, 1, 1)


def _sizes(row: Tensor) -> list[Tensor]:
    return [_column(row, SIZE.start + i) for i in range(3)]


def _box(local: list[Tensor], row: Tensor) -> Tensor:
    q = [p.abs() - h for p, h in zip(local, _sizes(row), strict=True)]
    inner = torch.maximum(torch.maximum(q[0], q[1]), q[2]).clamp_max(0)
    x, y, z = (v.clamp_min_(0) for v in q)
    return (x.square_().addcmul_(y, y).addcmul_(z, z)).sqrt_() + inner


def _frustum(local: list[Tensor], row: Tensor) -> Tensor:
    """Distance to a capped cone: r0 at -h, r1 at h (after Inigo Quilez)."""
    r0, r1, h = _sizes(row)
    x = (local[0].square() + local[2].square()).sqrt_()
    y = local[1]
    cap_x = (x - torch.where(y < 0, r0, r1)).clamp_min_(0)
    cap_y = y.abs() - h
    kx, ky = r1 - r0, 2 * h
    t = (((r1 - x) * kx + (h - y) * ky) / (kx * kx + ky * ky)).clamp_(0, 1)
    side_x, side_y = x - r1 + kx * t, y - h + ky * t
    inside = (side_x < 0) & (cap_y < 0)
    cap = torch.addcmul(cap_x.square_(), cap_y, cap_y)
    side = side_x.square_().addcmul_(side_y, side_y)
    d = torch.minimum(cap, side).sqrt_()
    return torch.where(inside, -d, d)


def _ellipsoid(local: list[Tensor], row: Tensor) -> Tensor:
    """First-order distance; exact for spheres."""
    u = [p / s for p, s in zip(local, _sizes(row), strict=True)]
    w = [p / s for p, s in zip(u, _sizes(row), strict=True)]
    k0 = (u[0].square() + u[1].square() + u[2].square()).sqrt()
    k1 = (w[0].square() + w[1].square() + w[2].square()).sqrt().clamp_min(1e-6)
    smallest = row[:, SIZE].amin(1).view(-1, 1, 1, 1)
    return torch.where(k0 < 1e-3, -smallest, k0 * (k0 - 1) / k1)


def _torus(local: list[Tensor], row: Tensor) -> Tensor:
    radius, thick, _ = _sizes(row)
    x = (local[0].square() + local[2].square()).sqrt_() - radius
    return x.square_().addcmul_(local[1], local[1]).sqrt_() - thick


DISTANCES = {BOX: _box, FRUSTUM: _frustum, ELLIPSOID: _ellipsoid, TORUS: _torus}


def _pattern(local: list[Tensor], row: Tensor) -> Tensor:
    """Return the paint (n, 3, S, S, S) at nodes."""
    f = [_column(row, FREQUENCY.start + i) for i in range(3)]
    kind = _column(row, PATTERN)
    phase = f[0] * local[0] + f[1] * local[1] + f[2] * local[2]
    stripes = (phase.sin() > 0).float()
    checks = torch.ones_like(phase)
    for a, p in zip(f, local, strict=True):
        checks = checks * torch.where(a == 0, torch.ones_like(p), (a * p + 0.7).sin())
    waves = 0.5 + 0.5 * (phase + 2 * (7 * (local[0] + local[1] - local[2])).sin()).sin()
    mix = torch.where(kind == CHECKS, (checks > 0).float(), waves)
    mix = torch.where(kind == STRIPES, stripes, mix) * (kind > 0)
    first, second = row[:, COLOR, None, None, None], row[:, SECOND, None, None, None]
    return torch.lerp(first, second, mix[:, None])
