"""The baseline that needs no weights: the object's outline, inflated and painted with the photo."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.events import DepthEvent, MeshEvent, TextureEvent
from sam3d_nb.frames import Pose, project, quaternion_from_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.cutout import cut_out
from sam3d_nb.mesh.inflate import close, inflate
from sam3d_nb.mesh.outline import trace
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.request import Request

DEFAULT_DISTANCE = 1.0
"""Distance of the visible surface in metres where no point map tells it."""


class Silhouette(Model):
    """Inflates the masked outline to a closed mesh, the photo on its front, mirrored on its back.

    The mesh is as thick behind the outline as before it, so that a disc becomes a ball. Every
    vertex lies on the ray of a mask pixel, so the projection is the mask. The visible surface lies
    at the median depth of the point map within the mask, or at `DEFAULT_DISTANCE` without one.
    """

    name = "silhouette"
    version = "1"

    def run(self, request: Request, **options: Any) -> Run:
        """Yield events while working; return the mesh (object frame) and its pose."""
        yield DepthEvent(fraction=0.0)
        axes = _facing_axes(request.mask, request.intrinsics)
        surface = _surface_distance(request, -axes[:, 2])
        yield DepthEvent(fraction=1.0)

        yield MeshEvent(fraction=0.0)
        outline = trace(request.mask)
        plane = _pixels_to_plane(outline.points, request.intrinsics, axes)
        extent = np.linalg.norm(np.ptp(plane, 0)) / np.linalg.norm(np.ptp(outline.points, 0))
        yield MeshEvent(fraction=0.3)
        plane, faces, border, height = inflate(
            plane, outline.faces, outline.border, outline.cell * float(extent)
        )
        front, back = _both_depths(height)
        even = front[: len(outline.points)][~outline.border]  # the pixels of the regular grid
        distance = surface / np.median(even)
        rays = _rays(plane) * distance
        vertices, faces, source = close(rays * front[:, None], rays * back[:, None], faces, border)
        mesh, pose = _framed(vertices, faces, axes)
        yield MeshEvent(fraction=1.0)

        yield TextureEvent(fraction=0.0)
        cutout = cut_out(request.image, request.mask)
        pixels = _plane_to_pixels(plane, request.intrinsics, axes)
        mesh = replace(mesh, uv=cutout.uv(pixels)[source], texture=cutout.texture)
        yield TextureEvent(fraction=1.0)
        return Reconstruction(mesh, pose)


def _facing_axes(mask: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the object's x, y and z axis as columns (3, 3) in the camera frame.

    z points from the middle of the mask's box to the camera, y as far up in the photo as it can.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    u, v = [columns[0], columns[-1] + 1.0], [rows[0], rows[-1] + 1.0]
    corners = np.array([(a, b, 1.0) for a in u for b in v]) @ np.linalg.inv(intrinsics).T  # (4, 3)
    z = -_unit(_unit(corners).sum(0))
    up = np.array([0.0, -1.0, 0.0])
    y = _unit(up - z * (up @ z))
    return np.stack([np.cross(y, z), y, z], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _pixels_to_plane(pixels: np.ndarray, intrinsics: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return where the rays of pixels (N, 2) meet the plane at distance 1 that `axes` face, (N, 2).

    In the object's x and y, so right and up.
    """
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    rays = homogeneous @ np.linalg.inv(intrinsics).T @ axes  # (N, 3) along the object's axes
    if not (rays[:, 2] < -0.05 * np.linalg.norm(rays, axis=1)).all():
        raise InputError(
            "the mask spans more than a half space as seen with these intrinsics; check K:\n"
            f"{intrinsics}"
        )
    return rays[:, :2] / -rays[:, 2:]


def _plane_to_pixels(plane: np.ndarray, intrinsics: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the pixels (N, 2) of points (N, 2) on the plane at distance 1."""
    return project(_rays(plane) @ axes.T, intrinsics)


def _rays(plane: np.ndarray) -> np.ndarray:
    """Return points on the plane at distance 1 with their third coordinate, (N, 3)."""
    return np.concatenate([plane, -np.ones((len(plane), 1))], axis=1)


def _both_depths(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the depths (Q,) at which rays enter and leave the object, in units of its distance.

    height: (Q,) of the inflated outline on the plane at distance 1. A ball of radius R at distance
    1 is seen as a disc of radius a = R / sqrt(1 - R^2); its height is h^2 = a^2 - r^2 on the ray
    that meets the plane at r, and that ray enters and leaves it at (1 -+ R h / a) / (1 + r^2).
    With a^2 = max h^2 the same holds for every outline, and no vertex comes behind the camera.
    """
    largest = height.max() ** 2
    middle = 1 / (1 + largest - height**2)
    half = height / np.sqrt(1 + largest)
    return middle * (1 - half), middle * (1 + half)


def _framed(vertices: np.ndarray, faces: np.ndarray, axes: np.ndarray) -> tuple[Mesh, Pose]:
    """Return the mesh centered with longest side 1, and the pose that undoes that."""
    low, high = vertices.min(0), vertices.max(0)
    size, center = float((high - low).max()), (low + high) / 2
    x, y, z = axes @ center
    pose = Pose(quaternion_from_matrix(axes), (x, y, z), (size, size, size))
    return Mesh((vertices - center) / size, faces), pose


def _surface_distance(request: Request, direction: np.ndarray) -> float:
    """Return how far along `direction` (3,) the object's visible surface lies."""
    if request.pointmap is None:
        return DEFAULT_DISTANCE
    known = np.isfinite(request.pointmap).all(-1)
    chosen = known & request.mask
    if not chosen.any():
        warnings.warn(
            "the point map has no depth within the mask; the object is placed at the median "
            "depth of the photo",
            stacklevel=2,
        )
        chosen = known
    return float(np.median(request.pointmap[chosen].astype(np.float64) @ direction))
