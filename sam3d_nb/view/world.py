"""Brings whatever is to be looked at into one Y-up world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sam3d_nb.errors import InputError
from sam3d_nb.frames import CAMERA, OPENGL_CAMERA, pose_between
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene import Scene
from sam3d_nb.splats import Gaussians, merge

Item = Object3D | Mesh | Scene
Splats = Object3D | Gaussians | Scene
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


def upright_gaussians(item: Splats | Sequence[Splats], frame: Frame | None = None) -> Gaussians:
    """Return the gaussians of `item` in the frame in which `upright` has its meshes.

    frame: what plain gaussians stand in, as for a mesh there. Raises InputError for what has no
    gaussians.
    """
    if isinstance(item, Object3D):
        if item.gaussians is None:
            raise InputError(
                f"{item.name!r} has no gaussians: {item.provenance.model} made none; reconstruct "
                "with a model that makes them, and with 'gaussians' among its formats"
            )
        found = item.gaussians
    elif isinstance(item, Gaussians):
        found = _turned_gaussians(item) if frame == "camera" else item
    elif isinstance(item, Scene):
        found = item.gaussians()
    elif isinstance(item, Sequence) and item and all(isinstance(i, Splats) for i in item):
        found = merge([_gaussians_in_scene(i, frame) for i in item])
    else:
        raise InputError(
            "an object, gaussians, a scene or a list of them can be shown as gaussians but got "
            f"{type(item).__name__}"
        )
    if not len(found):
        raise InputError("there is nothing to show: no gaussian")
    return found


def _gaussians_in_scene(item: Splats, frame: Frame | None) -> Gaussians:
    if isinstance(item, Scene):
        return item.gaussians()
    if isinstance(item, Object3D):
        return _turned_gaussians(item.gaussians_in_camera())
    return item if frame == "object" else _turned_gaussians(item)


def _turned_gaussians(gaussians: Gaussians) -> Gaussians:
    return gaussians.placed(pose_between(CAMERA, OPENGL_CAMERA))


def turned(mesh: Mesh) -> Mesh:
    """Return `mesh` turned by half a turn about x: camera frame to Y-up, or back."""
    return mesh.with_vertices(mesh.vertices * np.array([1, -1, -1], dtype=np.float32))


def ball(meshes: Sequence[Mesh]) -> tuple[np.ndarray, float]:
    """Return center (3,) and radius of a ball around all triangles: the center of their box."""
    used = np.concatenate([m.vertices[np.unique(m.faces)] for m in meshes]).astype(np.float64)
    return _ball_around(used)


def ball_of_gaussians(gaussians: Gaussians) -> tuple[np.ndarray, float]:
    """Return center (3,) and radius of a ball around the centers of what can be seen.

    The faintest and the farthest hundredth do not count: they are strays.
    """
    visible = gaussians.opacities >= min(0.1, float(gaussians.opacities.max()))
    points = gaussians.centers[visible].astype(np.float64)
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    center, radius = _ball_around(points[distance <= np.quantile(distance, 0.99)])
    return center, max(radius, float(gaussians.scales[visible].max()))


def _ball_around(points: np.ndarray) -> tuple[np.ndarray, float]:
    center = (points.min(0) + points.max(0)) / 2
    return center, float(np.linalg.norm(points - center, axis=1).max())


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
