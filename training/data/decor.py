"""Lamps and plants: builders, about one unit in size."""

from __future__ import annotations

import math

from training.data.build import Builder, Paint, tilt
from training.data.paint import bright, ceramic, dark, fabric, leaf, metal, shade, white, wood

GOLDEN = 2.39996


def lampshade(b: Builder, y: float, radius: float, height: float, x: float = 0.0) -> None:
    """Add a hollow shade whose lower edge is at y."""
    r = b.rng
    paint = r.choice([white, white, fabric, bright, metal])(r)
    top = radius * r.choice([0.3, 0.6, 0.8, 1.0])
    if r.random() < 0.2:
        b.ball((x, y + height / 2, 0), (radius, height * 0.6, radius), paint)
        return
    a, c = (x, y, 0), (x, y + height, 0)
    b.tube(a, c, radius, top, paint)
    hollow = 0.9
    b.tube(
        (x, y - 0.02, 0), (x, y + height * 0.85, 0), radius * hollow, top * hollow, paint, cut=True
    )


def floor_lamp(b: Builder) -> None:
    """A floor lamp with a straight or an arched stem."""
    r = b.rng
    paint = r.choice([metal, metal, wood, dark])(r)
    thick = r.uniform(0.012, 0.02)
    radius, height = r.uniform(0.1, 0.19), r.uniform(0.12, 0.28)
    if r.random() < 0.2:
        for i in range(3):
            a = 2.1 * i
            foot = (0.25 * math.cos(a), 0.0, 0.25 * math.sin(a))
            b.rod(foot, (0, 0.8, 0), thick, paint)
    else:
        b.tube((0, 0, 0), (0, 0.03, 0), r.uniform(0.1, 0.18), None, paint, round=0.01)
    if r.random() < 0.2:
        lampshade(b, 0.98 - height * 0.7, radius * 0.8, height * 0.7, 0.33)
        b.rod((0, 0, 0), (0.04, 0.9, 0), thick, paint)
        b.rod((0.04, 0.9, 0), (0.16, 1.02, 0), thick, paint)
        b.rod((0.16, 1.02, 0), (0.33, 1.0, 0), thick, paint)
    else:
        lampshade(b, 0.95 - height * 0.5, radius, height)
        b.rod((0, 0, 0), (0, 0.97, 0), thick, paint)


def table_lamp(b: Builder) -> None:
    """A table or desk lamp."""
    r = b.rng
    foot = r.choice([metal, ceramic, wood, dark])(r)
    kind = r.random()
    if kind < 0.35:
        h = r.uniform(0.3, 0.5)
        b.ball((0, h * 0.5, 0), (r.uniform(0.12, 0.22), h * 0.5, r.uniform(0.12, 0.22)), foot)
        lampshade(b, h + 0.02, r.uniform(0.22, 0.34), r.uniform(0.25, 0.4))
        b.rod((0, h * 0.8, 0), (0, h + 0.25, 0), 0.02, metal(r))
    elif kind < 0.7:
        b.tube((0, 0, 0), (0, 0.05, 0), r.uniform(0.13, 0.22), 0.1, foot, round=0.01)
        lampshade(b, 0.5, r.uniform(0.2, 0.34), r.uniform(0.2, 0.4))
        b.rod((0, 0, 0), (0, 0.65, 0), r.uniform(0.018, 0.04), foot)
    else:
        b.tube((0, 0, 0), (0, 0.04, 0), 0.16, None, foot, round=0.01)
        elbow = (r.uniform(-0.25, -0.05), 0.5, 0)
        head = (r.uniform(0.15, 0.35), r.uniform(0.6, 0.8), 0)
        b.rod((0, 0.03, 0), elbow, 0.018, foot)
        b.rod(elbow, head, 0.018, foot)
        tip = (head[0] + 0.14, head[1] - 0.12, 0)
        b.tube(head, tip, 0.05, 0.13, foot, round=0.01)
        b.ball(tip, 0.07, white(r))


def hanging_lamp(b: Builder) -> None:
    """A pendant lamp on its cord."""
    r = b.rng
    if r.random() < 0.3:
        paint = r.choice([metal, dark])(r)
        arms = r.randint(3, 6)
        for i in range(arms):
            a = 2 * math.pi * i / arms
            tip = (0.3 * math.cos(a), 0.25, 0.3 * math.sin(a))
            b.rod((0, 0.35, 0), tip, 0.018, paint)
            b.ball((tip[0], tip[1] + 0.06, tip[2]), 0.07, white(r))
    else:
        lampshade(b, 0.0, r.uniform(0.2, 0.45), r.uniform(0.2, 0.4))
    b.rod((0, 0.25, 0), (0, 1.0, 0), 0.013, dark(r))


def pot(b: Builder, top: float, radius: float) -> None:
    """Add a flower pot with earth."""
    r = b.rng
    paint = r.choice([ceramic, ceramic, wood, bright])(r)
    if r.random() < 0.25:
        b.box((0, top / 2, 0), (radius, top / 2, radius), paint, 0.02)
    else:
        b.tube((0, 0, 0), (0, top, 0), radius * r.uniform(0.6, 1), radius, paint, round=0.015)
    b.tube(
        (0, top - 0.03, 0),
        (0, top + 0.05, 0),
        radius * 0.88,
        None,
        Paint((0.15, 0.1, 0.07)),
        cut=True,
    )


def plant(b: Builder) -> None:
    """A plant in a pot: long leaves, a bush, a small tree or a cactus."""
    r = b.rng
    top, radius = r.uniform(0.18, 0.35), r.uniform(0.12, 0.22)
    pot(b, top, radius)
    green = leaf(r)
    kind = r.random()
    if kind < 0.4:
        count = r.randint(8, 18)
        for i in range(count):
            a, lean = GOLDEN * i, r.uniform(0.1, 1.0)
            length = r.uniform(0.25, 0.6)
            flat = r.uniform(0.03, 0.07)
            reach = length * math.sin(lean)
            at = (
                reach / 2 * math.cos(a),
                top + length / 2 * math.cos(lean),
                reach / 2 * math.sin(a),
            )
            turn = tilt(y=-a) @ tilt(z=-lean)
            b.ball(at, (0.018, length / 2, flat), shade(green, r.uniform(0.7, 1.3)), turn=turn)
    elif kind < 0.75:
        trunk = r.uniform(0.0, 0.5)
        b.rod((0, top - 0.05, 0), (0, top + trunk + 0.1, 0), r.uniform(0.015, 0.03), wood(r))
        size = r.uniform(0.15, 0.32)
        for i in range(r.randint(5, 12)):
            a = GOLDEN * i
            out = size * r.uniform(0.3, 0.8)
            at = (out * math.cos(a), top + trunk + size * r.uniform(0.3, 1.5), out * math.sin(a))
            b.ball(at, size * r.uniform(0.3, 0.6), shade(green, r.uniform(0.75, 1.25)), blend=0.02)
    elif kind < 0.87:
        h = r.uniform(0.3, 0.6)
        body = r.uniform(0.06, 0.1)
        b.rod((0, top, 0), (0, top + h, 0), body, green)
        for x in r.sample([-1, 1], r.randint(1, 2)):
            y = top + h * r.uniform(0.3, 0.6)
            b.rod((0, y, 0), (x * 0.17, y + 0.04, 0), body * 0.6, green, blend=0.03)
            b.rod((x * 0.17, y + 0.04, 0), (x * 0.18, y + 0.2, 0), body * 0.6, green, blend=0.03)
    else:
        flower = bright(r)
        for i in range(r.randint(3, 7)):
            a, out = GOLDEN * i, r.uniform(0.05, 0.25)
            tip = (out * math.cos(a), top + r.uniform(0.3, 0.5), out * math.sin(a))
            b.rod((0, top - 0.02, 0), tip, 0.012, green)
            b.ball(tip, (0.07, 0.045, 0.07), flower)


KINDS = {
    "floor lamp": (floor_lamp, 1.0),
    "table lamp": (table_lamp, 1.2),
    "hanging lamp": (hanging_lamp, 0.5),
    "plant": (plant, 1.8),
}
