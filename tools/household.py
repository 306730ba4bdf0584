"""The scenes of the household set: one library model each, in a corner, seen at random.

Everything random is drawn from the model's own generator, so that leaving one out, or their
order, changes no other.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from furniture import Model
from placing import MODEL_TO_WORLD, rotation
from stage import Camera, Color, Corner, Item, Lamp, Scene, Sun

BRANDS = ("iphone", "kitchenaid", "peterbilt")
"""Models named after brands: left out here as in all scenes."""

SIDE = 320  # pixels
SENSOR = 36.0  # millimetres
FRONT = 90.0  # degrees to either side of the front that may face the camera
PITCH = (6.0, 40.0)  # degrees downwards
LENS = (28.0, 75.0)  # millimetres
SHARE = (0.45, 0.88)  # of the photo's side that the object spans
GAP = (0.03, 0.9)  # between object and walls, in longest sides of the object
LEAST_HEIGHT = 0.15  # of the camera above the floor, in longest sides of the object
EDGE = 0.03  # of the photo's side that stays free around the object


@dataclass(frozen=True)
class View:
    """Where the camera is: the picture (SIDE, SIDE) holds the whole object."""

    eye: np.ndarray
    target: np.ndarray
    lens: float


def household_scene(key: str, model: Model, seed: int) -> Scene:
    """Return the scene of one model, drawn from `seed` and the model's name."""
    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    yaw = random.uniform(-FRONT, FRONT)
    standing = model.vertices @ (rotation(yaw, (0, 0)) @ MODEL_TO_WORLD).T  # (V, 3)
    standing[:, 2] -= standing[:, 2].min()
    low, high = standing.min(0), standing.max(0)
    size = float((high - low).max())
    left = bool(random.random() < 0.5)
    gap = size * random.uniform(*GAP, size=2)
    side = float(low[0] - gap[0] if left else high[0] + gap[0])
    view = _view(standing, left, random)
    corner = Corner(
        back=float(high[1] + gap[1]),
        side=side,
        reach=40 * size,
        floor=_color(random, 0.08, 0.6),
        wall=_color(random, 0.25, 0.85),
        planks=bool(random.random() < 0.5),
    )
    lamps, sun = _light(size, left, random)
    return Scene(
        name=key,
        title=f"{model.title}, from the household set",
        items=(Item(model.title.lower(), key, (0.0, 0.0), yaw=yaw),),
        camera=Camera(_triple(view.eye), _triple(view.target), view.lens),
        setting=corner,
        lamps=lamps,
        sun=sun,
        sky=_triple(np.array([0.9, 0.95, 1.0]) * random.uniform(0.85, 1.1, 3)),
        sky_strength=float(random.uniform(0.25, 0.7)),
        exposure=float(random.uniform(-0.3, 0.5)),
        size=(SIDE, SIDE),
    )


def _view(points: np.ndarray, left: bool, random: np.random.Generator) -> View:
    """Look at points (V, 3) from the open side of the corner, so that they fill a random share."""
    turn = np.radians(random.uniform(0.0, 50.0)) * (1 if left else -1)
    pitch, lens = np.radians(random.uniform(*PITCH)), float(random.uniform(*LENS))
    share, shift = random.uniform(*SHARE), random.uniform(-1, 1, 2)
    backward = np.array([np.sin(turn) * np.cos(pitch), -np.cos(turn) * np.cos(pitch), 0.0])
    backward[2] = np.sin(pitch)
    right = np.cross([0, 0, 1], backward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, backward), -backward])  # x right, y down, z away
    center = (points.min(0) + points.max(0)) / 2
    seen = (points - center) @ axes.T  # (V, 3)
    focal = lens / SENSOR  # in picture sides
    near, far = 0.01 - float(seen[:, 2].min()), 1e4
    for _ in range(60):  # the distance at which the object spans the share
        distance = (near * far) ** 0.5
        spans = np.ptp(focal * seen[:, :2] / (seen[:, 2:] + distance), axis=0)
        near, far = (distance, far) if spans.max() > share else (near, distance)
    place = focal * seen[:, :2] / (seen[:, 2:] + distance)
    free = (1 - 2 * EDGE - np.ptp(place, axis=0)) / 2
    wanted = shift * np.maximum(free, 0) - (place.min(0) + place.max(0)) / 2
    # moving camera and target sideways shifts everything by about this much
    move = -(wanted * distance / focal) @ axes[:2]
    lowest = LEAST_HEIGHT * float(np.ptp(points, axis=0).max())
    short = lowest - (center + distance * backward + move)[2]
    if short > 0:  # the camera must stay above the floor
        move -= axes[1] * short / -axes[1, 2]
    return View(center + distance * backward + move, center + move, lens)


def _light(
    size: float, left: bool, random: np.random.Generator
) -> tuple[tuple[Lamp, ...], Sun | None]:
    """Return one or two soft lamps in front of the corner and, for one in four, a sun."""
    away = 1.0 if left else -1.0  # from the side wall
    lamps = []
    for strength in random.uniform(1.0, 4.0, random.integers(1, 3)):
        turn, up = np.radians(random.uniform(-30, 80)), np.radians(random.uniform(20, 75))
        reach = size * random.uniform(2.0, 4.0)
        around = np.array([away * np.sin(turn) * np.cos(up), -np.cos(turn) * np.cos(up)])
        at = reach * np.array([*around, np.sin(up)])
        wide = float(reach * random.uniform(0.15, 0.7))
        watts = float(strength * np.pi * reach**2)
        tint = _triple(1 + np.array([0.12, 0.0, -0.15]) * random.uniform(-0.5, 1.0))
        lamps.append(Lamp(_triple(at), (0.0, 0.0, 0.3 * size), (wide, wide), watts, tint))
    if random.random() < 0.75:
        return tuple(lamps), None
    turn = np.radians(random.uniform(0, 60))
    down = (-away * np.sin(turn), np.cos(turn), -random.uniform(0.6, 1.4))
    return tuple(lamps), Sun(_triple(np.array(down)), float(random.uniform(2.0, 5.0)), 2.0)


def _color(random: np.random.Generator, low: float, high: float) -> Color:
    """Return a muted color of random brightness."""
    return _triple(random.uniform(low, high) * random.uniform(0.55, 1.0, 3))


def _triple(values: np.ndarray) -> Color:
    return float(values[0]), float(values[1]), float(values[2])
