"""Chairs, armchairs, sofas, stools, benches, beds: builders, about one unit in size."""

from __future__ import annotations

import math

from training.data.build import Builder, Paint, tilt
from training.data.paint import dark, fabric, hard, metal, plain, shade, white, wood


def legs(b: Builder, w: float, d: float, top: float, paint: Paint, thick: float) -> None:
    """Add four legs below a seat or table of half sides w, d; straight, tapered or splayed."""
    kind = b.rng.random()
    splay = b.rng.choice([0, 0, 0.05, 0.1]) * w
    inset = b.rng.uniform(thick, thick * 2)
    for x in (-1, 1):
        for z in (-1, 1):
            at = (x * (w - inset), top, z * (d - inset))
            foot = (at[0] + x * splay, 0.0, at[2] + z * splay)
            if kind < 0.45 and not splay:
                center = (at[0], top / 2, at[2])
                b.box(center, (thick, top / 2, thick), paint, thick * 0.2)
            else:
                b.tube(foot, at, thick * b_ratio(kind), thick, paint, round=thick * 0.2)


def b_ratio(kind: float) -> float:
    """Return the taper of a leg."""
    return 0.6 if kind > 0.7 else 1.0


def pedestal(b: Builder, top: float, radius: float, paint: Paint) -> None:
    """Add a column with a disc or a star of feet."""
    thick = b.rng.uniform(0.025, 0.05)
    b.tube((0, 0.02, 0), (0, top, 0), thick, thick * b.rng.uniform(0.7, 1), paint)
    if b.rng.random() < 0.5:
        b.tube((0, 0, 0), (0, 0.035, 0), radius, radius * 0.9, paint, round=0.01)
        return
    arms = b.rng.choice([4, 5, 5])
    wheels = b.rng.random() < 0.5
    for i in range(arms):
        a = 2 * math.pi * i / arms + 0.3
        tip = (radius * math.cos(a), 0.05, radius * math.sin(a))
        b.rod((0, 0.1, 0), tip, 0.022, paint)
        if wheels:
            b.ball((tip[0], 0.03, tip[2]), 0.033, dark(b.rng))


def backrest(b: Builder, w: float, z: float, low: float, high: float, paint: Paint) -> None:
    """Add a chair's back: panel, slats, bars or frame, leaning back."""
    r = b.rng
    lean = r.uniform(0, 0.2)
    kind = r.choice(["panel", "slats", "bars", "frame", "oval"])
    thick = r.uniform(0.016, 0.03)
    top_z = z - math.tan(lean) * (high - low)
    if kind in ("panel", "oval"):
        height = high - low
        gap = r.choice([0, 0.3]) * height
        center = (0, (low + gap + high) / 2, (z + top_z) / 2 - math.tan(lean) * gap / 2)
        half = (w * r.uniform(0.8, 1), (height - gap) / 2, thick)
        if kind == "oval":
            b.ball(center, (half[0], half[1] * 1.1, thick * 1.6), paint, turn=tilt(x=-lean))
        else:
            b.box(center, half, paint, thick * r.uniform(0.2, 1), turn=tilt(x=-lean))
        if not gap and kind == "panel":
            return
    post = plain(paint)
    for x in (-1, 1):
        b.rod((x * w * 0.92, low, z), (x * w * 0.92, high, top_z), thick, post)
    if kind in ("slats", "bars", "frame"):
        b.rod((-w * 0.92, high, top_z), (w * 0.92, high, top_z), thick * 1.2, post)
    if kind == "slats":
        for i in range(r.randint(1, 3)):
            t = (i + 1) / 4
            y, zz = low + (high - low) * t, z + (top_z - z) * t
            b.box((0, y, zz), (w * 0.9, 0.03, thick * 0.6), paint, 0.005, turn=tilt(x=-lean))
    if kind == "bars":
        count = r.randint(3, 6)
        for i in range(count):
            x = w * 0.92 * (2 * (i + 1) / (count + 1) - 1)
            b.rod((x, low, z), (x, high, top_z), thick * 0.7, post)


def chair(b: Builder) -> None:
    """A dining or kitchen chair, at times with arms."""
    r = b.rng
    w, d = r.uniform(0.19, 0.26), r.uniform(0.19, 0.25)
    seat, high = r.uniform(0.4, 0.5), r.uniform(0.75, 1.1)
    frame = r.choice([hard, hard, metal])(r)
    cover = r.choice([frame, frame, fabric(r), hard(r)])
    thick = r.uniform(0.015, 0.03)
    legs(b, w, d, seat, frame, thick)
    height = r.uniform(0.015, 0.04)
    if r.random() < 0.2:
        b.tube((0, seat - height, 0), (0, seat + height, 0), w, w, cover, round=0.01)
    else:
        b.box((0, seat, 0), (w, height, d), cover, height * r.uniform(0.2, 1))
    backrest(b, w, -d + 0.02, seat, high, r.choice([frame, cover]))
    if r.random() < 0.25:
        armrests(b, w, d, seat, seat + r.uniform(0.18, 0.25), frame, thick)
    if r.random() < 0.3:
        y = seat * r.uniform(0.25, 0.6)
        for x in (-1, 1):
            b.rod((x * (w - thick * 1.5), y, -d), (x * (w - thick * 1.5), y, d), 0.013, frame)


def armrests(
    b: Builder, w: float, d: float, seat: float, y: float, paint: Paint, thick: float
) -> None:
    """Add two open armrests."""
    for x in (-1, 1):
        b.box((x * w, y, 0), (thick * 1.3, thick, d), paint, thick * 0.5)
        b.rod((x * w, seat, d * 0.85), (x * w, y, d * 0.85), thick * 0.8, paint)


def office_chair(b: Builder) -> None:
    """A swivel chair on a star of feet."""
    r = b.rng
    w, seat = r.uniform(0.22, 0.28), r.uniform(0.42, 0.52)
    cover, frame = r.choice([fabric, dark, dark, white])(r), r.choice([dark, metal])(r)
    pedestal(b, seat, r.uniform(0.25, 0.33), frame)
    b.box((0, seat, 0), (w, 0.045, w), cover, 0.04)
    high = r.uniform(0.85, 1.2)
    b.rod((0, seat, -w), (0, (seat + high) / 2, -w - 0.05), 0.025, frame)
    lean = r.uniform(0.05, 0.2)
    half = (high - seat - 0.1) / 2
    z = -w - 0.05 - half * math.tan(lean) + 0.03
    b.box(
        (0, high - half, z), (w * r.uniform(0.8, 1), half, 0.04), cover, 0.035, turn=tilt(x=-lean)
    )
    if r.random() < 0.6:
        armrests(b, w + 0.04, w * 0.6, seat, seat + 0.2, frame, 0.02)


def shell_chair(b: Builder) -> None:
    """A chair with a molded shell on thin legs."""
    r = b.rng
    w, seat, high = r.uniform(0.22, 0.28), r.uniform(0.4, 0.46), r.uniform(0.75, 0.9)
    paint = r.choice([white, fabric, dark, hard])(r)
    paint = plain(paint)
    legs(b, w * 0.85, w * 0.85, seat, r.choice([wood, metal])(r), 0.016)
    b.ball((0, seat + 0.02, 0), (w, 0.05, w), paint)
    lean = r.uniform(0.15, 0.35)
    half = (high - seat) / 2
    b.ball(
        (0, seat + half, -w * 0.85 - 0.3 * half * lean),
        (w * 0.95, half * 1.15, 0.04),
        paint,
        turn=tilt(x=-lean),
        blend=0.12,
    )


def cushions(
    b: Builder, count: int, w: float, y: float, z: float, half: tuple[float, float], paint: Paint
) -> None:
    """Add seat cushions side by side; half: height and depth."""
    each = w / count
    for i in range(count):
        x = -w + each * (2 * i + 1)
        b.box((x, y, z), (each * 0.98, *half), paint, half[0] * b.rng.uniform(0.4, 0.95))


def upholstered(b: Builder, w: float, seats: int) -> None:
    """Add an armchair or a sofa of half width w."""
    r = b.rng
    d, seat = r.uniform(0.36, 0.46), r.uniform(0.36, 0.44)
    high, arm_high = r.uniform(0.68, 1.0), r.uniform(0.5, 0.66)
    arm, foot = r.uniform(0.05, 0.13), r.uniform(0.02, 0.14)
    cover = fabric(r)
    second = shade(cover, r.uniform(0.85, 1.15)) if r.random() < 0.6 else fabric(r)
    soft = r.uniform(0.2, 0.95)
    legs(b, w, d, foot + 0.02, r.choice([wood, metal, dark])(r), r.uniform(0.015, 0.03))
    body = (seat - 0.1 - foot) / 2
    b.box((0, foot + body, 0), (w, body, d), cover, 0.03 * soft)
    back = r.uniform(0.07, 0.12)
    lean = r.uniform(0, 0.2)
    tall = (high - foot) / 2
    b.box(
        (0, foot + tall, -d + back), (w, tall, back), cover, back * soft, turn=tilt(x=-lean * 0.5)
    )
    cushions(b, seats, w - 2 * arm, seat - 0.04, back, (0.07, d - back), second)
    if r.random() < 0.6:
        rise = (high - seat) / 2 - 0.01
        at = -d + 2 * back + 0.05
        cushions(b, seats, w - 2 * arm, seat + rise, at, (rise, 0.06), second)
    if r.random() < 0.88:
        tall = (arm_high - foot) / 2
        for x in (-1, 1):
            b.box((x * (w - arm), foot + tall, 0), (arm, tall, d), cover, arm * soft)
            if r.random() < 0.3:
                rod = arm * 1.15
                at = x * (w - arm)
                b.rod((at, arm_high, -d + rod), (at, arm_high, d - rod), rod, cover)
    if r.random() < 0.35:
        pillow = fabric(r)
        for x in r.sample([-1, 0, 1], r.randint(1, 2)):
            turn = tilt(x=-0.35, z=r.uniform(-0.3, 0.3))
            at = (x * (w - 2 * arm - 0.2) * 0.9, seat + 0.2, -d + 2 * back + 0.12)
            b.ball(at, (0.2, 0.18, 0.07), pillow, turn=turn)


def armchair(b: Builder) -> None:
    """An armchair; one in six with a footstool's proportions left out."""
    upholstered(b, b.rng.uniform(0.34, 0.48), 1)


def sofa(b: Builder) -> None:
    """A sofa of two to four seats, at times with a chaise."""
    r = b.rng
    seats = r.choice([2, 2, 3, 3, 4])
    w = 0.15 + 0.3 * seats * r.uniform(0.85, 1.1)
    upholstered(b, w, seats)
    if r.random() < 0.15:
        cover = fabric(r)
        x = r.choice([-1, 1]) * (w - 0.35)
        b.box((x, 0.22, 0.65), (0.33, 0.18, 0.35), cover, 0.05)


def stool(b: Builder) -> None:
    """A stool or bar stool."""
    r = b.rng
    w, seat = r.uniform(0.15, 0.22), r.uniform(0.35, 0.8)
    frame, cover = r.choice([hard, metal])(r), r.choice([hard, fabric])(r)
    if r.random() < 0.25:
        pedestal(b, seat, w * 1.1, frame)
    else:
        legs(b, w, w, seat, frame, r.uniform(0.014, 0.026))
        if seat > 0.55 or r.random() < 0.5:
            y = seat * 0.35
            for x, z in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                side = w * 0.86
                a = (x * side + z * side, y, z * side + x * side)
                c = (x * side - z * side, y, z * side - x * side)
                b.rod(a, c, 0.012, frame)
    height = r.uniform(0.015, 0.05)
    if r.random() < 0.5:
        b.tube((0, seat - height, 0), (0, seat + height, 0), w, w, cover, round=height * 0.7)
    else:
        b.box((0, seat, 0), (w, height, w), cover, height * 0.7)


def pouf(b: Builder) -> None:
    """A padded seat without legs, round or square."""
    r = b.rng
    w, h = r.uniform(0.22, 0.4), r.uniform(0.15, 0.25)
    paint = fabric(r)
    if r.random() < 0.5:
        b.tube((0, 0, 0), (0, 2 * h, 0), w, w, paint, round=h * r.uniform(0.2, 0.9))
    else:
        b.box((0, h, 0), (w, h, w * r.uniform(0.6, 1)), paint, h * r.uniform(0.15, 0.8))


def bench(b: Builder) -> None:
    """A bench, with or without a back."""
    r = b.rng
    w, d, seat = r.uniform(0.45, 0.8), r.uniform(0.15, 0.25), r.uniform(0.38, 0.48)
    paint = hard(r)
    if r.random() < 0.4:
        for x in (-1, 1):
            b.box((x * w * 0.85, seat / 2, 0), (0.025, seat / 2, d * 0.9), paint)
    else:
        legs(b, w, d, seat, paint, r.uniform(0.02, 0.035))
    slats = r.choice([1, 1, 3, 4])
    each = d / slats
    for i in range(slats):
        z = -d + each * (2 * i + 1)
        b.box((0, seat, z), (w, 0.02, each * (0.85 if slats > 1 else 1)), paint, 0.006)
    if r.random() < 0.45:
        backrest(b, w, -d + 0.02, seat, seat + r.uniform(0.3, 0.45), paint)


def bed(b: Builder) -> None:
    """A bed with mattress, pillows, blanket."""
    r = b.rng
    w, d = r.choice([0.48, 0.6, 0.75, 0.85]), r.uniform(0.95, 1.08)
    frame, sheet, blanket = hard(r), white(r), fabric(r)
    low = r.uniform(0.1, 0.22)
    b.box((0, low + 0.06, 0), (w, 0.06, d), frame, 0.01)
    legs(b, w, d, low, frame, r.uniform(0.025, 0.05))
    soft = r.uniform(0.06, 0.12)
    top = low + 0.12 + 2 * soft
    b.box((0, low + 0.12 + soft, 0), (w - 0.02, soft, d - 0.03), sheet, 0.05)
    head = r.uniform(0.1, 0.5)
    if r.random() < 0.85:
        b.box((0, (top + head) / 2, -d - 0.03), (w, (top + head) / 2, 0.03), frame, 0.02)
    if r.random() < 0.4:
        b.box((0, top * 0.55, d + 0.02), (w, top * 0.55, 0.025), frame, 0.02)
    count = 1 if w < 0.55 else 2
    pillow = r.choice([sheet, fabric(r)])
    for i in range(count):
        x = 0.0 if count == 1 else (i - 0.5) * w
        b.ball((x, top + 0.05, -d + 0.25), (w / count * 0.8, 0.08, 0.17), pillow)
    if r.random() < 0.8:
        length = r.uniform(0.45, 0.7) * d
        b.box((0, top - 0.03, d - length), (w + 0.01, 0.06, length + 0.01), blanket, 0.04)


KINDS = {
    "chair": (chair, 3.0),
    "office chair": (office_chair, 1.0),
    "shell chair": (shell_chair, 0.8),
    "armchair": (armchair, 2.0),
    "sofa": (sofa, 2.0),
    "stool": (stool, 1.2),
    "pouf": (pouf, 0.4),
    "bench": (bench, 0.8),
    "bed": (bed, 1.5),
}
