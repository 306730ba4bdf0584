"""Builds what the items of a scene stand in: a room, its corner alone, or a studio backdrop."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
import shaders
from stage import RUG_THICKNESS, Corner, Room, Studio, Window

WALL = 0.2  # metres, thickness of walls and ceiling


def add_object(name: str, vertices: Any, faces: Any, material: Any) -> Any:
    """Put a mesh of one material into the scene."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(np.asarray(vertices).tolist(), [], np.asarray(faces).tolist())
    mesh.materials.append(material)
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def add_box(name: str, low: Any, high: Any, material: Any) -> Any:
    """Put a box between two corners into the scene."""
    corners = [[(low, high)[i >> axis & 1][axis] for axis in range(3)] for i in range(8)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return add_object(name, corners, faces, material)


def add_setting(setting: Room | Studio | Corner) -> None:
    """Put in what the scene stands in."""
    if isinstance(setting, Room):
        add_room(setting)
    elif isinstance(setting, Studio):
        add_studio(setting)
    else:
        add_corner(setting)


def add_corner(corner: Corner) -> None:
    """Put in a floor and two walls, without thickness."""
    far, back, side = corner.reach, corner.back, corner.side
    open_x = side - np.sign(side) * far
    light, dark = tuple(1.2 * c for c in corner.floor), tuple(0.6 * c for c in corner.floor)
    floor = shaders.planks("floor", light, dark) if corner.planks else None
    floor = floor or shaders.plaster("floor", corner.floor)
    wall = shaders.plaster("wall", corner.wall)
    square = [(0, 1, 2, 3)]
    ground = [(side, back, 0), (open_x, back, 0), (open_x, back - far, 0), (side, back - far, 0)]
    add_object("floor", ground, square, floor)
    behind = [(side, back, 0), (open_x, back, 0), (open_x, back, far), (side, back, far)]
    add_object("wall", behind, square, wall)
    beside = [(side, back, 0), (side, back - far, 0), (side, back - far, far), (side, back, far)]
    add_object("wall", beside, square, wall)


def add_studio(studio: Studio) -> None:
    """Put in a floor from far in front that turns up into a wall on a quarter circle."""
    radius, wide = 0.8 * studio.depth, 12 * studio.depth
    angles = np.linspace(0, np.pi / 2, 33)
    bend = [(studio.depth + radius * np.sin(a), radius * (1 - np.cos(a))) for a in angles]  # (y, z)
    profile = np.array([(-8 * studio.depth, 0.0), *bend, (bend[-1][0], 8 * studio.depth)])
    left = np.column_stack([np.full(len(profile), -wide), profile])
    vertices = np.concatenate([left, left * [-1, 1, 1]])
    n = len(profile)
    faces = [(i, i + 1, n + i + 1, n + i) for i in range(n - 1)]
    sheet = add_object("backdrop", vertices, faces, shaders.plaster("paper", studio.color))
    sheet.data.polygons.foreach_set("use_smooth", np.ones(n - 1, bool))


def add_room(room: Room) -> None:
    """Put floor, ceiling, walls and rug into the scene."""
    (x0, y0), (x1, y1), top, thick = room.low, room.high, room.height, WALL
    floor = {
        "planks": lambda: shaders.planks("floor", (0.42, 0.25, 0.13), (0.22, 0.115, 0.05)),
        "pale": lambda: shaders.planks("floor", (0.56, 0.42, 0.28), (0.4, 0.28, 0.17)),
        "carpet": lambda: shaders.carpet("floor", (0.36, 0.32, 0.27)),
        "tiles": lambda: shaders.tiles("floor", (0.5, 0.46, 0.41)),
    }[room.floor]()
    wall = shaders.plaster("wall", room.wall)
    white = shaders.make("white", "satin", (0.78, 0.77, 0.74))
    add_box("floor", (x0 - thick, y0 - thick, -0.1), (x1 + thick, y1 + thick, 0), floor)
    ceiling = shaders.plaster("ceiling", (0.8, 0.8, 0.79))
    above = (x1 + thick, y1 + thick, top + thick)
    add_box("ceiling", (x0 - thick, y0 - thick, top), above, ceiling)
    add_box("front", (x0, y0 - thick, 0), (x1, y0, top), wall)
    for side in ("left", "right", "back"):
        holes = [w for w in room.windows if w.wall == side]
        add_wall(room, side, holes, wall, white)
    if room.rug:
        x, y, width, depth = room.rug
        rug = shaders.carpet("rug", room.rug_color)
        low = (x - width / 2, y - depth / 2, 0)
        high = (x + width / 2, y + depth / 2, RUG_THICKNESS)
        add_box("rug", low, high, rug)


def add_wall(room: Room, side: str, holes: list[Window], wall: Any, white: Any) -> None:
    """Put in one wall as boxes around its windows, with skirting boards and window frames."""
    start, stop = (room.low[1], room.high[1]) if side != "back" else (room.low[0], room.high[0])

    def box(name: str, along: Any, up: Any, out: Any, material: Any) -> None:
        # along: range on the wall; up: range of z; out: range outwards from the inner face
        if side == "back":
            low = (along[0], room.high[1] + out[0], up[0])
            high = (along[1], room.high[1] + out[1], up[1])
        else:
            edge = room.low[0] if side == "left" else room.high[0]
            ends = sorted(edge + (-o if side == "left" else o) for o in out)
            low, high = (ends[0], along[0], up[0]), (ends[1], along[1], up[1])
        add_box(name, low, high, material)

    corner = WALL if side == "back" else 0  # the back wall closes the corners
    at = start - corner
    for hole in sorted(holes, key=lambda w: w.low[0]):
        (a, low), (b, high) = hole.low, hole.high
        box("wall", (at, a), (0, room.height), (0, WALL), wall)
        box("below", (a, b), (0, low), (0, WALL), wall)
        box("above", (a, b), (high, room.height), (0, WALL), wall)
        box("sill", (a - 0.04, b + 0.04), (low - 0.03, low), (-0.05, WALL), white)
        for along in np.linspace(a, b, hole.bars[0] + 1):
            box("bar", (along - 0.025, along + 0.025), (low, high), (0.08, 0.13), white)
        for up in np.linspace(low, high, hole.bars[1] + 1):
            box("bar", (a, b), (up - 0.025, up + 0.025), (0.082, 0.128), white)
        at = b
    box("wall", (at, stop + corner), (0, room.height), (0, WALL), wall)
    box("skirting", (start, stop), (0, 0.09), (-0.015, 0), white)
