"""A scene as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sam3d_nb.frames import Pose
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene.realign import own_points
from sam3d_nb.scene.scene import Scene

COLUMNS = ("mask", "name", "triangles", "width", "height", "depth", "above floor", "error")


def make_table(scene: Scene) -> pd.DataFrame:
    """Return a row an object, those that failed last; see `Scene.table`.

    width, height and depth are those of the box along the world's axes.
    """
    rows: list[tuple[Any, ...]] = [
        (thing.provenance.mask_index, thing.name, len(thing.mesh.faces), *_extent(thing, pose), "")
        for thing, pose in zip(scene.objects, scene.poses, strict=True)
    ]
    nothing = (0, *[np.nan] * 4)
    rows += [(f.mask_index, f.name, *nothing, f.reason) for f in scene.failures]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"mask": "Int64", "error": str})


def _extent(thing: Object3D, pose: Pose) -> tuple[float, float, float, float]:
    """Return width, height, depth and the lowest height in the world."""
    points = pose.apply(own_points(thing))
    width, height, depth = np.ptp(points, axis=0).tolist()
    return width, height, depth, float(points[:, 1].min())
