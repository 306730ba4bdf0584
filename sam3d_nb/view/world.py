"""Brings whatever is to be looked at into one Y-up world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene import Scene

Item = Object3D | Mesh | Scene
Frame = Literal["object", "camera"]


def upright(item: Item | Sequence[Item], frame: Frame | None = None) -> list[Mesh]:
    """Return the meshes of `item` in one frame: x right, y up, z towards the viewer.

    One object stands in its own frame, a scene in its world. A list shows things as the photo's
    camera has them: objects by their poses, meshes as they are, scenes in their worlds. frame: what
    the vertices of a plain mesh mean, "object" or "camera" (OpenCV); by default "object" alone and
    "camera" in a list.

    Raises InputError for anything else, and where there is no triangle to look at.
    """
    if isinstance(item, Object3D):
        meshes = [item.mesh]
    elif isinstance(item, Mesh):
        meshes = [turned(item) if frame == "camera" else item]
    elif isinstance(item, Scene):
        meshes = item.meshes()
    elif isinstance(item, Sequence) and all(isinstance(i, Item) for i in item):
        meshes = [mesh for i in item for mesh in _in_scene(i, frame)]
    else:
        raise InputError(
            "an object, a mesh, a scene or a list of them can be shown but got "
            f"{type(item).__name__}"
        )
    if not any(len(mesh.faces) for mesh in meshes):
        raise InputError("there is nothing to show: no mesh here has a triangle")
    return meshes


def turned(mesh: Mesh) -> Mesh:
    """Return `mesh` turned by half a turn about x: camera frame to Y-up, or back."""
    return mesh.with_vertices(mesh.vertices * np.array([1, -1, -1], dtype=np.float32))


def ball(meshes: Sequence[Mesh]) -> tuple[np.ndarray, float]:
    """Return center (3,) and radius of a ball around all triangles: the center of their box."""
    used = np.concatenate([m.vertices[np.unique(m.faces)] for m in meshes]).astype(np.float64)
    center = (used.min(0) + used.max(0)) / 2
    return center, float(np.linalg.norm(used - center, axis=1).max())


def photo_direction(center: np.ndarray, eye: ArrayLike = (0.0, 0.0, 0.0)) -> tuple[float, float]:
    """Return azimuth and elevation in degrees from which the photo's camera sees `center` (3,).

    eye: where the camera stands, (3,); at 0 in the turned camera frame.
    """
    x, y, z = np.asarray(eye, dtype=np.float64) - center
    return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arctan2(y, np.hypot(x, z))))


def _in_scene(item: Item, frame: Frame | None) -> list[Mesh]:
    if isinstance(item, Scene):
        return item.meshes()
    if isinstance(item, Object3D):
        return [turned(item.mesh_in_camera())]
    return [item if frame == "object" else turned(item)]
