"""Where the items of a scene stand: poses, resting on what carries them, and collisions."""

from __future__ import annotations

from dataclasses import dataclass

import bpy  # noqa: F401  makes mathutils importable
import numpy as np
from furniture import Library, Model
from mathutils.bvhtree import BVHTree
from stage import RUG_THICKNESS, Corner, Item, Room, Scene, Studio

MODEL_TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Model frame (y up, z front) to world axes (z up, front towards -y)."""

CLEARANCE = 0.0005  # metres between an item and what carries it
FEET = 0.02  # metres above its lowest point up to which an item can touch what carries it


@dataclass(frozen=True, eq=False)
class Placed:
    """An item in the world. matrix: model frame to world, (4, 4); vertices: world, (V, 3)."""

    item: Item
    model: Model
    matrix: np.ndarray
    vertices: np.ndarray
    tree: BVHTree


def rotation(yaw: float, tilt: tuple[float, float]) -> np.ndarray:
    """Return the world rotation (3, 3) of an item: tilt about its own axes, then yaw; degrees."""
    a, b, c = np.radians([tilt[0], tilt[1], yaw])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def place(scene: Scene, library: Library) -> list[Placed]:
    """Put every item on what carries it; raises ValueError where two items run into each other."""
    placed: dict[str, Placed] = {}
    for item in scene.items:
        model = library[item.model]
        linear_part = rotation(item.yaw, item.tilt) @ MODEL_TO_WORLD * item.scale
        vertices = model.vertices @ linear_part.T + [*item.at, 0.0]
        low = vertices[vertices[:, 2] < vertices[:, 2].min() + FEET]
        base = height_below(low, placed[item.on].tree) if item.on else ground(low, scene.setting)
        rise = base - vertices[:, 2].min() + item.lift + CLEARANCE
        vertices[:, 2] += rise
        matrix = np.eye(4)
        matrix[:3, :3] = linear_part
        matrix[:3, 3] = [*item.at, rise]
        tree = BVHTree.FromPolygons(vertices.tolist(), model.faces.tolist())
        placed[item.name] = Placed(item, model, matrix, vertices, tree)
    result = list(placed.values())
    hits = collisions(result)
    if hits:
        raise ValueError(f"{scene.name}: items run into each other: {hits}")
    return result


def height_below(feet: np.ndarray, support: BVHTree) -> float:
    """Return the highest point of `support` under the lowest vertices (N, 3) of an item."""
    hits = [support.ray_cast((x, y, 50.0), (0, 0, -1))[0] for x, y, _ in feet]
    heights = [hit.z for hit in hits if hit is not None]
    if not heights:
        raise ValueError(f"nothing carries the item at {feet[:, :2].mean(0).round(2).tolist()}")
    return max(heights)


def ground(feet: np.ndarray, setting: Room | Studio | Corner) -> float:
    """Return the height of the floor, or of the rug where one of the feet stands on it."""
    if not isinstance(setting, Room) or setting.rug is None:
        return 0.0
    x, y, width, depth = setting.rug
    over = (np.abs(feet[:, 0] - x) < width / 2) & (np.abs(feet[:, 1] - y) < depth / 2)
    return RUG_THICKNESS if over.any() else 0.0


def collisions(placed: list[Placed]) -> list[tuple[str, str, int]]:
    """Return the pairs of items whose triangles cross, with how many do."""
    found = []
    for i, a in enumerate(placed):
        for b in placed[i + 1 :]:
            count = len(a.tree.overlap(b.tree))
            if count:
                found.append((a.item.name, b.item.name, count))
    return found
