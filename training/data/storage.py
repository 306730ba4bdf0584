"""Tables, desks, shelves, cabinets, appliances, screens: builders, about one unit in size."""

from __future__ import annotations

import math

from training.data.build import Builder, Paint, tilt
from training.data.paint import (
    anything,
    bright,
    ceramic,
    dark,
    fabric,
    grey,
    hard,
    metal,
    white,
    wood,
)
from training.data.seating import legs, pedestal


def table(b: Builder) -> None:
    """A dining, coffee or side table."""
    r = b.rng
    w, d, top = r.uniform(0.25, 0.9), r.uniform(0.25, 0.5), r.uniform(0.3, 0.78)
    w = max(w, d)
    frame = r.choice([hard, hard, metal])(r)
    plate = r.choice([frame, hard(r)])
    thick = r.uniform(0.012, 0.04)
    round = r.random() < 0.3
    if round or r.random() < 0.15:
        pedestal(b, top, d * r.uniform(0.5, 0.8), frame)
    elif r.random() < 0.15:
        for x in (-1, 1):
            b.box((x * w * 0.8, top / 2, 0), (0.02, top / 2, d * 0.85), frame)
        b.box((0, top * 0.4, 0), (w * 0.8, 0.05, 0.012), frame)
    else:
        legs(b, w, d, top, frame, r.uniform(0.018, 0.045))
        if r.random() < 0.5:
            apron = r.uniform(0.02, 0.05)
            b.box((0, top - apron, 0), (w * 0.9, apron, d * 0.86), frame)
    if round:
        b.tube((0, top, 0), (0, top + 2 * thick, 0), d, d, plate, round=thick * r.uniform(0, 0.9))
    elif r.random() < 0.1:
        b.ball((0, top + thick, 0), (w, thick * 1.3, d), plate)
    else:
        b.box((0, top + thick, 0), (w, thick, d), plate, thick * r.uniform(0, 0.9))
    if r.random() < 0.25 and not round:
        b.box((0, top * r.uniform(0.2, 0.5), 0), (w * 0.88, 0.012, d * 0.85), plate)
    if r.random() < 0.2:
        y = top + 2 * thick
        b.tube((0, y, 0), (0, y + 0.1, 0), 0.05, 0.08, ceramic(r), round=0.01)


def fronts(
    b: Builder, x: float, y: float, z: float, half: tuple[float, float], paint: Paint
) -> None:
    """Add a door or drawer front with a handle; center x, y on the plane z."""
    r = b.rng
    w, h = half
    b.box((x, y, z), (w * 0.96, h * 0.95, 0.012), paint, 0.006)
    knob = b.handle  # type: ignore[attr-defined]
    if knob[0] == "knob":
        side = 0 if w > h else r.choice([-0.75, 0.75])
        b.ball((x + side * w, y, z + 0.03), 0.02, knob[1])
    elif knob[0] == "bar" and w > h:
        b.rod((x - w * 0.4, y, z + 0.03), (x + w * 0.4, y, z + 0.03), 0.012, knob[1])
    elif knob[0] == "bar":
        side = x + 0.78 * w * (1 if x < 0 else -1)
        b.rod((side, y - h * 0.3, z + 0.03), (side, y + h * 0.3, z + 0.03), 0.012, knob[1])


def handles(b: Builder) -> None:
    """Choose the handles of one piece of furniture."""
    kind = b.rng.choice(["knob", "bar", "bar", "none"])
    b.handle = (kind, b.rng.choice([metal, dark, wood])(b.rng))  # type: ignore[attr-defined]


def case(b: Builder, w: float, h: float, d: float, low: float, columns: int) -> None:
    """Add a body on feet or a plinth, its front split into columns of doors or drawers."""
    r = b.rng
    handles(b)
    body = hard(r)
    front = r.choice([body, hard(r)])
    if low > 0.03:
        legs(b, w, d, low + 0.02, r.choice([body, metal(r)]), r.uniform(0.018, 0.035))
    b.box((0, low + h, 0), (w, h, d), body, 0.008)
    if r.random() < 0.5:
        b.box((0, low + 2 * h + 0.012, 0), (w + 0.015, 0.016, d + 0.015), body, 0.006)
    each = w * 0.97 / columns
    for i in range(columns):
        x = -w * 0.97 + each * (2 * i + 1)
        rows = r.choice([1, 1, 2, 3, 4]) if h > each * 0.5 else 1
        if r.random() < 0.18:  # an open compartment
            b.box((x, low + h, d * 0.6), (each * 0.9, h * 0.9, d * 0.9), body, cut=True)
            b.box((x, low + h, 0), (each * 0.92, 0.012, d * 0.85), body)
            continue
        tall = h * 0.96 / rows
        for j in range(rows):
            y = low + h * 0.04 + tall * (2 * j + 1)
            fronts(b, x, y, d, (each, tall), front)


def cabinet(b: Builder) -> None:
    """A sideboard, wardrobe, nightstand, chest of drawers, kitchen unit."""
    r = b.rng
    low = r.choice([0.0, 0.02, r.uniform(0.06, 0.2)])
    kind = r.random()
    if kind < 0.35:
        case(
            b, r.uniform(0.5, 0.9), r.uniform(0.2, 0.4), r.uniform(0.18, 0.26), low, r.randint(2, 4)
        )
    elif kind < 0.6:
        case(
            b, r.uniform(0.3, 0.6), r.uniform(0.6, 1.0), r.uniform(0.22, 0.32), low, r.randint(1, 3)
        )
    elif kind < 0.8:
        case(b, r.uniform(0.2, 0.3), r.uniform(0.2, 0.32), r.uniform(0.18, 0.26), low, 1)
    else:
        case(b, r.uniform(0.35, 0.55), r.uniform(0.35, 0.5), r.uniform(0.2, 0.28), low, 1)


def books(b: Builder, x0: float, x1: float, y: float, room: float, d: float) -> None:
    """Fill part of a shelf with blocks of books."""
    r = b.rng
    x = x0 + r.uniform(0, (x1 - x0) * 0.3)
    for _ in range(r.randint(1, 3)):
        w = r.uniform(0.02, 0.1)
        if x + 2 * w > x1:
            return
        h = room * r.uniform(0.3, 0.45)
        b.box((x + w, y + h, 0), (w, h, d * r.uniform(0.5, 0.85)), anything(r), 0.004)
        x += 2 * w + 0.004


def shelf(b: Builder) -> None:
    """A bookshelf: open, or with a back, some books on it."""
    r = b.rng
    w, h, d = r.uniform(0.25, 0.6), r.uniform(0.4, 1.0), r.uniform(0.12, 0.2)
    paint = r.choice([hard, hard, metal])(r)
    thick = r.uniform(0.012, 0.022)
    if r.random() < 0.25:
        legs(b, w, d, 2 * h, paint, thick)
    else:
        for x in (-1, 1):
            b.box((x * (w - thick), h, 0), (thick, h, d), paint)
    if r.random() < 0.6:
        b.box((0, h, -d + 0.01), (w, h, 0.012), paint)
    rows = r.randint(2, 6)
    step = (2 * h - 2 * thick) / rows
    for i in range(rows + 1):
        y = thick + step * i
        b.box((0, y, 0), (w, thick, d), paint)
        if i < rows and r.random() < 0.55 and len(b.rows) < 36:
            books(b, -w + 2 * thick, w - 2 * thick, y + thick, step - 2 * thick, d)
    if r.random() < 0.25:
        b.box((0, h, 0), (thick, h, d), paint)


def desk(b: Builder) -> None:
    """A desk with drawers on one or both sides, at times with a screen."""
    r = b.rng
    w, d, top = r.uniform(0.5, 0.8), r.uniform(0.25, 0.38), r.uniform(0.68, 0.76)
    paint = hard(r)
    handles(b)
    b.box((0, top, 0), (w, 0.018, d), paint, 0.006)
    sides = r.choice([(-1,), (1,), (-1, 1), ()])
    if sides:
        each = w * r.uniform(0.2, 0.3)
        front = r.choice([paint, hard(r)])
        for x in (-1, 1):
            at = x * (w - each)
            if x not in sides:
                b.box((x * (w - 0.02), top / 2, 0), (0.02, top / 2, d * 0.95), paint)
                continue
            b.box((at, top / 2, 0), (each, top / 2, d * 0.95), paint)
            rows = r.randint(2, 4)
            for j in range(rows):
                tall = top / 2 / rows * 0.95
                fronts(b, at, top * 0.04 + tall * (2 * j + 1), d * 0.95, (each, tall), front)
    else:
        legs(b, w, d, top, r.choice([paint, metal(r)]), r.uniform(0.018, 0.03))
    if r.random() < 0.5:
        b.box((0, top * 0.65, -d * 0.9), (w * 0.95, top * 0.3, 0.012), paint)
    if r.random() < 0.3:
        monitor_on(b, r.uniform(-0.2, 0.2), top + 0.02, -d * 0.3, r.uniform(0.16, 0.28))


def monitor_on(b: Builder, x: float, y: float, z: float, w: float) -> None:
    """Add a flat screen on its foot; w is its half width."""
    r = b.rng
    h = w * r.uniform(0.55, 0.75)
    frame, glass = r.choice([dark, dark, grey, white])(r), Paint((0.02, 0.025, 0.03))
    if r.random() < 0.3:
        glass = bright(r)
    lift = r.uniform(0.15, 0.5) * h
    center = y + lift + h
    b.box((x, y + 0.008, z), (w * 0.4, 0.014, w * 0.28), frame, 0.005)
    b.box((x, y + lift / 2 + 0.03, z - 0.02), (w * 0.09, lift / 2 + h * 0.3, 0.015), frame)
    b.box((x, center, z), (w, h, 0.022), frame, 0.006)
    b.box((x, center, z + 0.02), (w * 0.94, h * 0.91, 0.009), glass)


def screen(b: Builder) -> None:
    """A television or computer monitor."""
    monitor_on(b, 0, 0, 0, 0.5)


def laptop(b: Builder) -> None:
    """An open laptop."""
    r = b.rng
    w, d = 0.5, r.uniform(0.32, 0.38)
    paint = r.choice([grey, dark, metal, white])(r)
    b.box((0, 0.02, 0), (w, 0.024, d), paint, 0.008)
    b.box((0, 0.044, -d * 0.25), (w * 0.9, 0.006, d * 0.5), dark(r))
    lean = r.uniform(0.0, 0.6)
    y, z = d * math.cos(lean), -d - d * math.sin(lean)
    turn = tilt(x=-lean)
    b.box((0, 0.03 + y, z), (w, d, 0.018), paint, 0.008, turn=turn)
    glass = r.choice([Paint((0.03, 0.03, 0.04)), bright(r)])
    out = (0, 0.03 + y + 0.014 * math.sin(lean), z + 0.014 * math.cos(lean))
    b.box(out, (w * 0.93, d * 0.9, 0.009), glass, turn=turn)


def fridge(b: Builder) -> None:
    """A fridge with one or two doors."""
    r = b.rng
    w, h, d = r.uniform(0.27, 0.42), r.uniform(0.42, 0.95), r.uniform(0.28, 0.36)
    paint = r.choice([white, white, metal, grey, bright, dark])(r)
    b.handle = ("bar", metal(r))  # type: ignore[attr-defined]
    b.box((0, h, 0), (w, h, d), paint, r.uniform(0.01, 0.06))
    if w > 0.38:
        for x in (-1, 1):
            fronts(b, x * w / 2, h, d + 0.015, (w / 2, h * 0.98), paint)
        return
    split = r.choice([1.0, r.uniform(0.55, 0.75)])
    low = 0.0 if r.random() < 0.5 else 2 * h * (1 - split)
    fronts(b, -0.001, low + h * split, d + 0.015, (w, h * split), paint)
    if split < 1:
        other = 2 * h * split if low == 0 else 0.0
        fronts(b, -0.001, other + h * (1 - split), d + 0.015, (w, h * (1 - split)), paint)


def washer(b: Builder) -> None:
    """A washing machine, stove or oven."""
    r = b.rng
    w, h, d = 0.3, r.uniform(0.38, 0.46), r.uniform(0.26, 0.32)
    paint = r.choice([white, white, metal, dark, grey])(r)
    b.box((0, h, 0), (w, h, d), paint, 0.012)
    if r.random() < 0.55:
        y, radius = h * r.uniform(0.85, 1.0), r.uniform(0.14, 0.2)
        b.tube(
            (0, y, d - 0.02), (0, y, d + 0.025), radius, radius * 0.92, r.choice([metal, dark])(r)
        )
        b.ball((0, y, d + 0.01), (radius * 0.78, radius * 0.78, 0.035), Paint((0.1, 0.12, 0.15)))
    else:
        b.box((0, h * 0.8, d), (w * 0.85, h * 0.55, 0.014), Paint((0.03, 0.03, 0.03)), 0.01)
        b.rod((-w * 0.7, h * 1.45, d + 0.03), (w * 0.7, h * 1.45, d + 0.03), 0.013, metal(r))
        for x in (-0.5, 0.5):
            for z in (-0.5, 0.5):
                at = (x * w, 2 * h, z * d)
                b.tube(at, (at[0], at[1] + 0.014, at[2]), 0.09, 0.085, dark(r))
    b.box((0, 2 * h * 0.92, d), (w * 0.95, h * 0.07, 0.014), r.choice([paint, dark(r)]))
    for x in (0.4, 0.65):
        at = (x * w, 2 * h * 0.92, d)
        b.tube(at, (at[0], at[1], d + 0.03), 0.025, 0.022, metal(r))


def stairs(b: Builder) -> None:
    """A flight of steps."""
    r = b.rng
    count, w = r.randint(3, 8), r.uniform(0.2, 0.5)
    rise, run = 0.5 / count * r.uniform(0.8, 1.2), 0.5 / count
    paint, second = hard(r), hard(r)
    solid = r.random() < 0.6
    for i in range(count):
        y = rise * (2 * i + 1)
        z = -run * 2 * i
        half = y + rise if solid else rise * 0.25
        center = half if solid else y + rise - half
        b.box((0, center / (2 if solid else 1), z), (w, half / (2 if solid else 1), run), paint)
        b.box((0, y + rise * 0.92, z), (w, 0.012, run), second)
    if not solid:
        for x in (-1, 1):
            b.rod((x * w, rise, run), (x * w, rise * 2 * count, -run * 2 * count), 0.03, second)


def bathtub(b: Builder) -> None:
    """A bathtub or sink: a hollow block."""
    r = b.rng
    w, h, d = r.uniform(0.3, 0.85), r.uniform(0.12, 0.28), r.uniform(0.25, 0.38)
    paint, round = white(r), r.uniform(0.03, 0.12)
    b.box((0, h, 0), (w, h, d), paint, round)
    b.box((0, 2 * h, 0), (w * 0.9, h * 1.7, d * 0.86), paint, round * 0.9, cut=True)
    if r.random() < 0.7:
        b.rod((0, 2 * h, -d * 0.9), (0, 2 * h + 0.15, -d * 0.9), 0.02, metal(r))
        b.rod((0, 2 * h + 0.15, -d * 0.9), (0, 2 * h + 0.13, -d * 0.4), 0.018, metal(r))


def toilet(b: Builder) -> None:
    """A toilet with its tank."""
    r = b.rng
    paint = white(r)
    b.tube((0, 0, 0.05), (0, 0.36, 0.08), 0.13, 0.19, paint, round=0.03)
    b.ball((0, 0.37, 0.12), (0.19, 0.06, 0.26), paint, blend=0.05)
    b.ball((0, 0.42, 0.12), (0.19, 0.028, 0.25), r.choice([paint, wood(r), dark(r)]))
    b.box((0, r.uniform(0.52, 0.6), -0.2), (0.2, 0.18, 0.09), paint, 0.03)
    b.box((0, 0.2, -0.15), (0.11, 0.2, 0.12), paint, 0.05, blend=0.05)


def rug(b: Builder) -> None:
    """A rug or mat; round or square."""
    r = b.rng
    if r.random() < 0.4:
        b.tube((0, 0, 0), (0, 0.03, 0), 0.5, 0.5, fabric(r), round=0.01)
    else:
        b.box((0, 0.015, 0), (0.5, 0.017, r.uniform(0.25, 0.5)), fabric(r), 0.01)


KINDS = {
    "table": (table, 3.0),
    "cabinet": (cabinet, 3.0),
    "shelf": (shelf, 1.5),
    "desk": (desk, 1.2),
    "screen": (screen, 0.8),
    "laptop": (laptop, 0.6),
    "fridge": (fridge, 0.6),
    "washer": (washer, 0.7),
    "stairs": (stairs, 0.3),
    "bathtub": (bathtub, 0.4),
    "toilet": (toilet, 0.3),
    "rug": (rug, 0.2),
}
