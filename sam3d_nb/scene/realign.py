"""From the camera's frame to an upright world with a floor, by the objects and the point map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError
from sam3d_nb.frames import Pose, quaternion_from_matrix, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene.box import Box, fitted_boxes
from sam3d_nb.scene.scene import UNCHANGED, Scene
from sam3d_nb.scene.up import (
    PHOTO_UP,
    Votes,
    elect,
    floor_height,
    patches_of,
    plausible,
)

METHODS = ("none", "pca", "obb", "obb+")
NEARLY_TIGHTEST = 1.25
"""An object is laid on a face of one of its boxes of at most this times the least volume."""


def realign(scene: Scene, method: str) -> Scene:
    """Return `scene` re-aligned by `method`; see `Scene.realigned`."""
    check_method(method)
    if method == "none":
        return replace(scene, world=UNCHANGED, poses=(), realign=method)
    if not scene.objects:
        raise InputError(f"a scene without objects cannot be re-aligned by {method!r}")
    if method == "pca":
        boxes: list[list[Box]] = []
        up, floor = _by_axes(scene)
    else:
        boxes = [fitted_boxes(_in_camera(o), _own_axes(o.pose)) for o in scene.objects]
        up, floor = _by_boxes(scene, [fitted[0] for fitted in boxes])
    world = _world(up, floor)
    laid = zip(scene.objects, boxes, strict=True) if method == "obb+" else ()
    poses = tuple(_laid(thing, world, fitted) for thing, fitted in laid)
    return replace(scene, world=world, poses=poses, realign=method)


def check_method(method: str) -> None:
    """Raise InputError unless `method` is a way to re-align."""
    if method not in METHODS:
        raise InputError(f"there is no re-alignment {method!r}; choose from {', '.join(METHODS)}")


def _by_axes(scene: Scene) -> tuple[np.ndarray, float]:
    """Return up (3,), a principal axis of all surfaces, and the lowest height.

    Every object counts the same, large or small. Of the axes that could be up the one nearest to
    the photo's up is taken; where none could, the photo's up.
    """
    moments = np.sum([_moments(thing) for thing in scene.objects], axis=0)  # (4, 4)
    mean = moments[3, :3] / moments[3, 3]
    axes = np.linalg.eigh(moments[:3, :3] / moments[3, 3] - np.outer(mean, mean))[1].T
    upward = axes * np.where(axes @ PHOTO_UP < 0, -1, 1)[:, None]
    likely = upward[plausible(upward)]
    up = likely[(likely @ PHOTO_UP).argmax()] if len(likely) else PHOTO_UP
    return up, _lowest(scene, up)


def _by_boxes(scene: Scene, boxes: list[Box]) -> tuple[np.ndarray, float]:
    """Return up (3,), which most faces and patches share, and the height of the floor."""
    directions = [side * box.axes.T for box in boxes for side in (1, -1)]
    areas = [box.face_areas for box in boxes for _ in (1, -1)]
    patches = None if scene.pointmap is None else patches_of(scene.pointmap)
    if patches is not None:
        directions.append(patches.normals)
        areas.append(patches.areas)
    found = elect(Votes(np.concatenate(directions), np.concatenate(areas)))
    up = PHOTO_UP if found is None else found
    floor = None if patches is None else floor_height(patches, up)
    return up, _lowest(scene, up) if floor is None else floor


def _world(up: np.ndarray, floor: float) -> Pose:
    """Return the pose of the camera frame in the world whose y is `up` (3,), the floor at 0.

    The camera stands above the origin and looks along -z, apart from its tilt: `up` is plausible.
    """
    backward = np.array([0.0, 0.0, -1.0])
    z = backward - up * (backward @ up)
    z /= np.linalg.norm(z)
    rows = np.stack([np.cross(up, z), up, z])
    return Pose(quaternion_from_matrix(rows), (0.0, -floor, 0.0))


def _laid(thing: Object3D, world: Pose, boxes: list[Box]) -> Pose:
    """Return the pose into the world with the lowest box face on the floor, heading unchanged.

    boxes: in the camera frame. Of those that are nearly tightest the most upright one counts. The
    object turns about the box's center by the least angle that makes its lowest face level, and
    sinks or rises until its lowest point has height 0.
    """
    near = [b.moved(world) for b in boxes if b.volume <= NEARLY_TIGHTEST * boxes[0].volume]
    box = near[int(np.argmax([np.abs(b.axes[1]).max() for b in near]))]
    turn = _least_turn(_bottom(box), np.array([0.0, -1.0, 0.0]))
    about_center = Pose(quaternion_from_matrix(turn), tuple(box.center - turn @ box.center))
    level = about_center @ world @ thing.pose
    x, y, z = level.translation
    return replace(level, translation=(x, y - float(level.apply(own_points(thing))[:, 1].min()), z))


def _bottom(box: Box) -> np.ndarray:
    """Return the outward normal (3,) of the box's lowest face, in a Y-up world."""
    axis = box.axes[:, np.abs(box.axes[1]).argmax()]
    return -axis * np.sign(axis[1])


def _least_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) by the least angle that turns one unit vector into another."""
    axis = np.cross(start, end)
    sine, cosine = np.linalg.norm(axis), float(start @ end)
    if sine < 1e-12:
        return np.eye(3)  # never opposite: the lowest face looks down by 35 degrees at least
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix()


def own_points(thing: Object3D) -> np.ndarray:
    """Return the points (N, 3) that bound an object: of its triangles, else of its gaussians."""
    if len(thing.mesh.faces):
        return thing.mesh.vertices[np.unique(thing.mesh.faces)].astype(np.float64)
    if thing.gaussians is None or not len(thing.gaussians):
        raise InputError(f"{thing.name!r} has neither triangles nor gaussians to place it by")
    return thing.gaussians.centers.astype(np.float64)


def _in_camera(thing: Object3D) -> np.ndarray:
    return thing.pose.apply(own_points(thing))


def _own_axes(pose: Pose) -> np.ndarray:
    """Return the object's y, x and z axis as rows (3, 3): models make objects upright."""
    return rotation_matrix(pose.rotation).T[[1, 0, 2]]


def _lowest(scene: Scene, up: np.ndarray) -> float:
    """Return the least height along `up` (3,) of all objects in the camera frame."""
    return min(float((_in_camera(thing) @ up).min()) for thing in scene.objects)


def _moments(thing: Object3D) -> np.ndarray:
    """Return the mean of p p^T over the object's surface, (4, 4), p = (x, y, z, 1) in the camera.

    Exact for triangles; over the centers of gaussians where there are none.
    """
    if len(thing.mesh.faces):
        return _surface_moments(thing.mesh_in_camera())
    points = _in_camera(thing)
    p = np.concatenate([points, np.ones((len(points), 1))], axis=1)  # (K, 4)
    return p.T @ p / len(p)


def _surface_moments(mesh: Mesh) -> np.ndarray:
    """Return the mean of p p^T over a surface, (4, 4): the integral over each triangle."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]  # (F, 3, 3)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1)  # (F,)
    share = area / area.sum() if area.sum() > 0 else np.full(len(area), 1 / len(area))
    corners = np.concatenate([corners, np.ones((len(corners), 3, 1))], axis=2)  # (F, 3, 4)
    total = corners.sum(1)  # (F, 4)
    each = np.einsum("f,fki,fkj->ij", share, corners, corners)
    return (each + np.einsum("f,fi,fj->ij", share, total, total)) / 12
