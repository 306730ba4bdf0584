"""Crockery, toys and other small things: builders, about one unit in size."""

from __future__ import annotations

import itertools
import math

from training.data.build import Builder, Paint, tilt
from training.data.decor import GOLDEN
from training.data.paint import (
    anything,
    bright,
    ceramic,
    dark,
    fabric,
    hard,
    leaf,
    metal,
    plain,
    shade,
    white,
    wood,
)


def vessel(b: Builder, profile: list[tuple[float, float]], paint: Paint, wall: float) -> None:
    """Add a hollow body of revolution; profile: (y, radius) from below upwards."""
    inside = b.rng.choice([paint, paint, white(b.rng)])
    for (y0, r0), (y1, r1) in itertools.pairwise(profile):
        b.tube((0, y0, 0), (0, y1, 0), r0, r1, paint, blend=0.02)
    low = profile[0][0] + wall
    for (y0, r0), (y1, r1) in itertools.pairwise(profile):
        top = y1 + (0.01 if y1 < profile[-1][0] else 0.06)
        if top > low:
            a = max(y0, low)
            b.tube(
                (0, a, 0), (0, top, 0), max(r0 - wall, 0.01), max(r1 - wall, 0.01), inside, cut=True
            )


def mug(b: Builder) -> None:
    """A mug or cup, at times full."""
    r = b.rng
    h, radius = r.uniform(0.6, 1.0), r.uniform(0.28, 0.45)
    paint, wall = ceramic(r), r.uniform(0.03, 0.05)
    b.ring(
        (radius * 0.97, h * 0.52, 0),
        h * 0.27,
        r.uniform(0.035, 0.06),
        paint,
        turn=tilt(x=math.pi / 2),
    )
    low = radius * r.choice([1.0, 1.0, 0.65, 0.8])
    b.tube((0, 0, 0), (0, h, 0), low, radius, paint, round=0.03)
    fill = h * r.choice([0.1, 0.75, 0.85])
    drink = r.choice([Paint((0.15, 0.07, 0.03)), paint, Paint((0.75, 0.7, 0.6))])
    b.tube((0, fill, 0), (0, h + 0.1, 0), low - wall, radius - wall, drink, cut=True)
    if r.random() < 0.3:
        b.tube((0, -0.06, 0), (0, 0, 0), 0.4, 0.7, paint, round=0.02)


def bowl(b: Builder) -> None:
    """A bowl, empty or with fruit."""
    r = b.rng
    deep, paint = r.uniform(0.2, 0.5), ceramic(r)
    b.ball((0, deep, 0), (0.5, deep, 0.5), paint)
    b.ball((0, deep, 0), (0.46, deep * 0.9, 0.46), r.choice([paint, white(r)]), cut=True)
    b.box((0, deep * 1.5 + 0.5, 0), (1, deep * 0.5 + 0.5, 1), paint, trim=True)
    b.tube((0, 0, 0), (0, 0.05, 0), 0.2, 0.17, paint)
    if r.random() < 0.4:
        fruit = bright(r)
        for i in range(r.randint(3, 6)):
            a = GOLDEN * i
            at = (0.2 * math.cos(a), deep * 0.85 + 0.05, 0.2 * math.sin(a))
            b.ball(at, r.uniform(0.1, 0.15), r.choice([fruit, bright(r)]))


def plate(b: Builder) -> None:
    """A plate or tray."""
    r = b.rng
    paint = ceramic(r)
    if r.random() < 0.3:
        d = r.uniform(0.3, 0.5)
        b.box((0, 0.035, 0), (0.5, 0.035, d), paint, 0.02)
        b.box((0, 0.08, 0), (0.46, 0.055, d - 0.04), paint, 0.02, cut=True)
        return
    rim = r.uniform(0.06, 0.14)
    b.tube((0, 0, 0), (0, rim, 0), 0.3, 0.5, paint)
    b.tube((0, 0.03, 0), (0, rim + 0.02, 0), 0.28, 0.5, plain(paint), cut=True)


def bottle(b: Builder) -> None:
    """A bottle, jar or can."""
    r = b.rng
    radius, neck = r.uniform(0.1, 0.2), r.uniform(0.03, 0.07)
    shoulder = r.uniform(0.45, 0.75)
    paint = r.choice([bright, dark, leaf, white, metal])(r)
    b.tube((0, 0, 0), (0, shoulder, 0), radius, radius * r.uniform(0.85, 1), paint, round=0.02)
    b.ball((0, shoulder, 0), (radius, r.uniform(0.05, 0.15), radius), paint, blend=0.03)
    b.tube((0, shoulder, 0), (0, 0.95, 0), neck * 1.2, neck, paint, blend=0.1)
    b.tube((0, 0.9, 0), (0, 1.0, 0), neck * 1.25, None, anything(r), round=0.01)
    if r.random() < 0.7:
        low = r.uniform(0.1, 0.25)
        label = r.choice([white, bright])(r)
        b.tube((0, low, 0), (0, shoulder * r.uniform(0.6, 0.95), 0), radius * 1.03, None, label)


def vase(b: Builder) -> None:
    """A vase of a random profile, at times with flowers."""
    r = b.rng
    count = r.randint(3, 5)
    profile = [(i / count, r.uniform(0.12, 0.36)) for i in range(count + 1)]
    vessel(b, profile, ceramic(r), 0.03)
    if r.random() < 0.3:
        for i in range(r.randint(3, 6)):
            a = GOLDEN * i
            tip = (0.3 * math.cos(a), r.uniform(1.3, 1.6), 0.3 * math.sin(a))
            b.rod((0, 0.5, 0), tip, 0.02, leaf(r))
            b.ball(tip, r.uniform(0.08, 0.14), bright(r))


def basket(b: Builder) -> None:
    """A basket, bin or bucket."""
    r = b.rng
    h, low = r.uniform(0.4, 0.9), r.uniform(0.28, 0.4)
    paint, wall = r.choice([wood, bright, metal, fabric])(r), 0.035
    if r.random() < 0.5:
        top = low * r.uniform(1, 1.3)
        b.tube((0, 0, 0), (0, h, 0), low, top, paint, round=0.02)
        b.tube((0, 0.05, 0), (0, h + 0.06, 0), low - wall, top - wall, shade(paint, 0.7), cut=True)
        if r.random() < 0.4:
            b.ring((0, h, 0), top, 0.02, paint, turn=tilt(x=r.choice([1.57, 0.6])))
    else:
        d = low * r.uniform(0.7, 1.3)
        b.box((0, h / 2, 0), (low, h / 2, d), paint, 0.04)
        b.box((0, h / 2 + 0.1, 0), (low - wall, h / 2, d - wall), shade(paint, 0.7), 0.03, cut=True)


def figure(b: Builder) -> None:
    """A teddy bear, doll or animal, sitting or standing."""
    r = b.rng
    fur = Paint(plain(r.choice([wood, bright, fabric, white])(r)).color)
    light = shade(fur, 1.25)
    belly, head = r.uniform(0.17, 0.24), r.uniform(0.14, 0.2)
    sits = r.random() < 0.6
    y = belly * 0.9 if sits else 0.42
    b.ball((0, y, 0), (belly, belly * r.uniform(1, 1.4), belly * 0.85), fur)
    top = y + belly + head * 0.85
    b.ball((0, top, 0.02), (head, head * 0.95, head * 0.92), fur, blend=0.04)
    b.ball((0, top - 0.04, head * 0.8), (head * 0.42, head * 0.34, head * 0.4), light)
    b.ball((0, top - 0.01, head * 1.2), 0.028, dark(r))
    ear = r.choice([0.35, 0.45, 0.3])
    tall = r.choice([1.0, 1.0, 2.2])
    for x in (-1, 1):
        b.ball(
            (x * head * 0.8, top + head * 0.75 * tall**0.5, 0),
            (head * ear, head * ear * tall, 0.04),
            fur,
        )
        b.ball((x * head * 0.4, top + 0.03, head * 0.87), 0.024, dark(r))
        hand = (x * (belly + r.uniform(0.1, 0.2)), y + r.uniform(-0.1, 0.2), r.uniform(0, 0.15))
        b.rod((x * belly * 0.7, y + belly * 0.6, 0), hand, 0.065, fur, blend=0.04)
        if sits:
            b.rod(
                (x * belly * 0.6, 0.09, 0.05), (x * belly * 1.1, 0.08, 0.36), 0.08, fur, blend=0.03
            )
            b.ball((x * belly * 1.1, 0.1, 0.4), (0.075, 0.1, 0.06), light)
        else:
            b.rod((x * belly * 0.5, 0.08, 0), (x * belly * 0.5, y - 0.1, 0), 0.08, fur, blend=0.03)
    if r.random() < 0.3:
        b.ring((0, y + belly * 0.85, 0), head * 0.6, 0.035, bright(r))


def animal(b: Builder) -> None:
    """A four-legged toy."""
    r = b.rng
    fur = Paint(r.choice([wood, bright, white, dark])(r).color)
    w, h, d = 0.12, r.uniform(0.25, 0.4), r.uniform(0.22, 0.36)
    b.ball((0, h, 0), (w * 1.1, w * r.uniform(1, 1.5), d), fur)
    for x in (-1, 1):
        for z in (-1, 1):
            b.rod(
                (x * w * 0.7, 0.04, z * d * 0.65),
                (x * w * 0.7, h, z * d * 0.6),
                0.045,
                fur,
                blend=0.03,
            )
    neck = (0, h + r.uniform(0.1, 0.4), d + r.uniform(0, 0.15))
    b.rod((0, h, d * 0.7), neck, 0.07, fur, blend=0.05)
    b.ball((0, neck[1], neck[2] + 0.08), (0.09, 0.085, 0.15), fur, blend=0.03)
    for x in (-1, 1):
        b.ball((x * 0.07, neck[1] + 0.1, neck[2] + 0.02), (0.03, 0.07, 0.02), shade(fur, 0.7))
    b.rod((0, h, -d * 0.9), (0, h + r.uniform(-0.15, 0.15), -d - 0.15), 0.025, fur)


def car(b: Builder) -> None:
    """A toy car, truck or train."""
    r = b.rng
    w, h, d = r.uniform(0.17, 0.23), r.uniform(0.08, 0.13), 0.5
    paint = Paint(bright(r).color)
    wheel = r.uniform(0.08, 0.11)
    b.box((0, wheel + h, 0), (w, h, d), paint, 0.04)
    cab = r.uniform(0.15, 0.3)
    at = r.uniform(-0.15, 0.15)
    glass = Paint((0.1, 0.13, 0.17))
    b.box((0, wheel + 2 * h + 0.07, at), (w * 0.88, 0.09, cab), r.choice([paint, glass]), 0.05)
    b.box((0, wheel + 2 * h + 0.08, at), (w * 0.9, 0.045, cab * 0.85), glass, 0.02)
    for x in (-1, 1):
        for z in (-1, 1):
            at2 = (x * w * 0.9, wheel, z * d * 0.6)
            b.tube(at2, (at2[0] + x * 0.06, wheel, at2[2]), wheel, None, dark(r), round=0.02)
            out = at2[0] + x * 0.06
            b.tube(
                (out, wheel, at2[2]), (out + x * 0.012, wheel, at2[2]), wheel * 0.5, None, metal(r)
            )


def blocks(b: Builder) -> None:
    """Boxes or books stacked, each turned a little."""
    r = b.rng
    y = 0.0
    flat = r.random() < 0.6
    for _ in range(r.randint(1, 6)):
        h = r.uniform(0.03, 0.07) if flat else r.uniform(0.1, 0.2)
        w, d = r.uniform(0.25, 0.42), r.uniform(0.2, 0.32)
        turn = tilt(y=r.gauss(0, 0.2))
        cover = anything(r)
        b.box((0, y + h, 0), (w, h, d), cover, 0.008, turn=turn)
        if flat:
            b.box((0.02, y + h, 0.012), (w, h * 0.75, d), Paint((0.88, 0.85, 0.76)), turn=turn)
        y += 2 * h


def carton(b: Builder) -> None:
    """One box: parcel, suitcase, crate or radio."""
    r = b.rng
    w, h, d = (r.uniform(0.2, 0.5) for _ in range(3))
    paint = r.choice([wood, bright, fabric, dark])(r)
    b.box((0, h, 0), (w, h, d), paint, r.choice([0.01, 0.08]))
    kind = r.random()
    if kind < 0.3:
        b.box((0, h, 0), (w * 1.01, h * 1.01, d * 0.12), anything(r))
    elif kind < 0.5:
        b.box((0, 2 * h, 0), (w * 0.92, h * 1.7, d * 0.92), shade(paint, 0.7), cut=True)
    elif kind < 0.75:
        b.ring((0, 2 * h, 0), w * 0.3, 0.03, dark(r), turn=tilt(x=math.pi / 2))
        b.tube((w * 0.4, h, d - 0.02), (w * 0.4, h, d + 0.02), h * 0.5, None, anything(r))


def pillow(b: Builder) -> None:
    """A cushion, lying or leaning."""
    r = b.rng
    lean = r.choice([0.0, r.uniform(0.8, 1.4)])
    w, d, h = 0.5, r.uniform(0.3, 0.5), r.uniform(0.09, 0.17)
    paint = fabric(r)
    turn = tilt(x=lean)
    b.ball((0, 0, 0), (w, h, d), paint, turn=turn)
    b.box((0, 0, 0), (w * 0.93, h * 0.4, d * 0.93), paint, h * 0.38, turn=turn, blend=0.12)


def pan(b: Builder) -> None:
    """A pan or pot with handles, at times with a lid."""
    r = b.rng
    h, radius = r.uniform(0.08, 0.45), r.uniform(0.28, 0.36)
    paint, grip = r.choice([metal, metal, dark, bright])(r), r.choice([dark, wood, metal])(r)
    if h < 0.25:
        b.rod((radius, h * 0.8, 0), (radius + r.uniform(0.3, 0.5), h + 0.06, 0), 0.035, grip)
    else:
        for x in (-1, 1):
            b.ring((x * radius, h * 0.8, 0), 0.08, 0.022, grip)
    b.tube((0, 0, 0), (0, h, 0), radius * r.uniform(0.8, 1), radius, paint, round=0.02)
    b.tube((0, 0.03, 0), (0, h + 0.05, 0), radius * 0.8, radius * 0.93, shade(paint, 0.7), cut=True)
    if r.random() < 0.4:
        b.ball((0, h, 0), (radius, 0.07, radius), paint)
        b.ball((0, h + 0.09, 0), 0.045, grip)


def clock(b: Builder) -> None:
    """A clock, mirror or picture on its edge."""
    r = b.rng
    frame, face = hard(r), r.choice([white, white, bright, dark])(r)
    if r.random() < 0.5:
        b.tube((0, 0.5, -0.04), (0, 0.5, 0.04), 0.5, None, frame, round=0.02)
        b.tube((0, 0.5, 0.03), (0, 0.5, 0.055), 0.43, None, face)
        a = r.uniform(0, 6.28)
        for length, angle in ((0.33, a), (0.22, a * 12)):
            tip = (length * math.sin(angle), 0.5 + length * math.cos(angle), 0.065)
            b.rod((0, 0.5, 0.065), tip, 0.017, dark(r))
    else:
        w = r.uniform(0.25, 0.5)
        b.box((0, 0.5, 0), (w, 0.5, 0.035), frame, 0.01)
        b.box((0, 0.5, 0.03), (w - 0.06, 0.44, 0.016), r.choice([face, fabric(r)]))


def sphere(b: Builder) -> None:
    """A ball, at times striped."""
    r = b.rng
    paint = r.choice([bright, fabric, white, wood])(r)
    b.ball((0, 0.5, 0), 0.5, paint)
    if r.random() < 0.4:
        b.ring((0, 0.5, 0), 0.492, 0.02, dark(r), turn=tilt(x=r.uniform(0, 3)))
        b.ring((0, 0.5, 0), 0.492, 0.02, dark(r), turn=tilt(z=r.uniform(0, 3)))


def abstract(b: Builder) -> None:
    """Random primitives in a heap, for variety."""
    r = b.rng
    for _ in range(r.randint(2, 7)):
        at = tuple(r.uniform(-0.3, 0.3) for _ in range(3))
        size = tuple(r.uniform(0.05, 0.3) for _ in range(3))
        turn = tilt(*(r.choice([0.0, r.uniform(-1.5, 1.5)]) for _ in range(3)))
        blend = r.choice([0.0, 0.05, 0.15])
        kind = r.randrange(4)
        if kind == 0:
            b.box(at, size, anything(r), r.uniform(0, 0.1), turn=turn, blend=blend)
        elif kind == 1:
            b.ball(at, size, anything(r), turn=turn, blend=blend)
        elif kind == 2:
            b.ring(at, size[0] + 0.08, 0.06, anything(r), turn=turn, blend=blend)
        else:
            other = (at[0] + size[2], at[1] + size[1] + 0.1, at[2])
            b.tube(at, other, size[0], size[1], anything(r), blend=blend)


KINDS = {
    "mug": (mug, 1.2),
    "bowl": (bowl, 0.7),
    "plate": (plate, 0.4),
    "bottle": (bottle, 1.0),
    "vase": (vase, 1.0),
    "basket": (basket, 0.8),
    "figure": (figure, 1.2),
    "animal": (animal, 0.7),
    "car": (car, 0.7),
    "blocks": (blocks, 1.0),
    "carton": (carton, 0.8),
    "pillow": (pillow, 0.5),
    "pan": (pan, 0.8),
    "clock": (clock, 0.5),
    "ball": (sphere, 0.4),
    "abstract": (abstract, 1.5),
}
