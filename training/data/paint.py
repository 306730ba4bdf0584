"""Colors and patterns of household things."""

from __future__ import annotations

import colorsys
import random

from training.data.build import CHECKS, PLAIN, STRIPES, WAVES, Paint

Color = tuple[float, float, float]


def hsv(h: float, s: float, v: float) -> Color:
    """Return sRGB."""
    return colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0), 1))


def wood(rng: random.Random) -> Paint:
    """Light to dark wood, often with grain."""
    h, s, v = rng.uniform(0.04, 0.11), rng.uniform(0.3, 0.75), rng.uniform(0.2, 0.85)
    color = hsv(h, s, v)
    if rng.random() < 0.5:
        return Paint(color)
    frequency = [0.0, 0.0, 0.0]
    frequency[rng.randrange(3)] = rng.uniform(20, 60)
    return Paint(color, hsv(h, s, v * rng.uniform(0.7, 0.9)), WAVES, frequency)


def metal(rng: random.Random) -> Paint:
    """Chrome, black, brass."""
    kind = rng.random()
    if kind < 0.5:
        v = rng.uniform(0.45, 0.85)
        return Paint((v, v, v * rng.uniform(0.97, 1.03)))
    if kind < 0.8:
        v = rng.uniform(0.04, 0.2)
        return Paint((v, v, v))
    return Paint(hsv(rng.uniform(0.09, 0.13), rng.uniform(0.4, 0.7), rng.uniform(0.5, 0.8)))


def white(rng: random.Random) -> Paint:
    """Lacquer, porcelain, enamel: white to light."""
    v = rng.uniform(0.75, 0.97)
    return Paint((v, v * rng.uniform(0.96, 1), v * rng.uniform(0.9, 1)))


def bright(rng: random.Random) -> Paint:
    """Plastic or ceramic of any hue."""
    return Paint(hsv(rng.random(), rng.uniform(0.35, 0.95), rng.uniform(0.3, 0.95)))


def dark(rng: random.Random) -> Paint:
    """Black to dark grey."""
    v = rng.uniform(0.02, 0.18)
    return Paint((v, v, v * rng.uniform(1, 1.1)))


def grey(rng: random.Random) -> Paint:
    """Any grey, warm or cold."""
    v = rng.uniform(0.2, 0.8)
    return Paint((v * rng.uniform(0.93, 1), v * rng.uniform(0.95, 1), v * rng.uniform(0.93, 1)))


def fabric(rng: random.Random) -> Paint:
    """Upholstery: muted or strong, at times striped or checked."""
    h, s, v = rng.random(), rng.uniform(0.05, 0.7), rng.uniform(0.15, 0.92)
    color = hsv(h, s, v)
    if rng.random() < 0.72:
        return Paint(color)
    second = hsv(h + rng.gauss(0, 0.15), s * rng.uniform(0.2, 1.4), v * rng.uniform(0.5, 1.5))
    pattern = rng.choice([STRIPES, CHECKS, WAVES])
    f = rng.uniform(18, 60)
    if pattern == CHECKS:
        return Paint(color, second, pattern, (f, f, f))
    return Paint(color, second, pattern, rng.choice([(f, 0, 0), (0, f, 0), (f, 0, f)]))


def leaf(rng: random.Random) -> Paint:
    """Greens."""
    return Paint(hsv(rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.65)))


def hard(rng: random.Random) -> Paint:
    """What furniture frames are made of."""
    return rng.choice([wood, wood, wood, white, dark, grey, bright])(rng)


def ceramic(rng: random.Random) -> Paint:
    """Crockery and vases, at times with bands."""
    paint = rng.choice([white, white, bright, bright, grey, dark])(rng)
    if rng.random() < 0.3:
        paint = Paint(paint.color, bright(rng).color, STRIPES, (0, rng.uniform(20, 70), 0))
    return paint


def anything(rng: random.Random) -> Paint:
    """Any of the above."""
    return rng.choice([wood, metal, white, bright, dark, grey, fabric, ceramic])(rng)


def shade(paint: Paint, factor: float) -> Paint:
    """Return the paint, brighter or darker."""

    def scale(c: Color) -> Color:
        return (min(1, c[0] * factor), min(1, c[1] * factor), min(1, c[2] * factor))

    return Paint(
        scale(tuple(paint.color)), scale(tuple(paint.second)), paint.pattern, paint.frequency
    )


def plain(paint: Paint) -> Paint:
    """Return the paint without its pattern."""
    return Paint(paint.color, None, PLAIN)
