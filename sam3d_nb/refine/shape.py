"""A mesh as the refinement looks at it: bare triangles, rendered small and often."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.frames import Pose, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.simplify import by_quadric_error
from sam3d_nb.mesh.thin import thinned
from sam3d_nb.refine.window import Window
from sam3d_nb.view.raster import Raster, rasterize

MOST_TO_SIMPLIFY, TANGLED = 20_000, 8_000
"""Triangles. Larger meshes are first thinned by clustering, whose time is bounded. One that quadric
error cannot simplify keeps so many."""


class Seen(NamedTuple):
    """The part of a placed surface that the camera sees, in the camera frame."""

    points: np.ndarray  # (N, 3)
    normals: np.ndarray  # (N, 3) unit, towards the camera


class Shape:
    """Triangles in the object frame, as arrays (V, 3) and (F, 3)."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        used, compact = np.unique(faces, return_inverse=True)
        self.vertices = np.asarray(vertices, dtype=np.float64)[used]
        self.faces = torch.from_numpy(compact.reshape(-1, 3).astype(np.int64))

    def center(self, pose: Pose) -> np.ndarray:
        """Return where `pose` puts the center of the box, (3,)."""
        return pose.apply([(self.vertices.min(0) + self.vertices.max(0)) / 2])[0]

    def size(self, pose: Pose) -> float:
        """Return the longest side of the box, along the object's axes, in the camera's unit."""
        return float((np.ptp(self.vertices, axis=0) * pose.scale).max())

    def render(self, pose: Pose, window: Window) -> Raster:
        """Return what every pixel of the window sees of the shape at `pose`."""
        return rasterize(self._placed(pose), self.faces, window.camera)

    def covered(self, pose: Pose, window: Window) -> np.ndarray:
        """Return which pixels of the window the shape covers, (h, w) bool."""
        return self.render(pose, window).covered.numpy()

    def seen(self, pose: Pose, window: Window) -> Seen:
        """Return the visible surface, one point a pixel, without what other things may hide."""
        raster = self.render(pose, window)
        visible = raster.covered & torch.from_numpy(window.counted)  # (h, w)
        weights = raster.barycentric[visible].double()  # (N, 3)
        a, b, c = self._placed(pose)[self.faces[raster.face[visible]]].unbind(1)
        points = a * weights[:, :1] + b * weights[:, 1:2] + c * weights[:, 2:]
        normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
        away = (normals * points).sum(1, keepdim=True) > 0
        return Seen(points.numpy(), torch.where(away, -normals, normals).numpy())

    def _placed(self, pose: Pose) -> Tensor:
        matrix = rotation_matrix(pose.rotation) * pose.scale
        return torch.from_numpy(self.vertices @ matrix.T + pose.translation)


def coarse(mesh: Mesh, triangles: int) -> Shape:
    """Return the shape of `mesh` with at most `triangles` triangles, or somewhat more.

    By quadric error, or by clustering where the mesh is too tangled for that.
    """
    if len(mesh.faces) <= triangles:
        return Shape(mesh.vertices, mesh.faces)
    bare = Mesh(mesh.vertices, mesh.faces)
    small = thinned(bare, MOST_TO_SIMPLIFY)
    vertices, faces = by_quadric_error(small.vertices, small.faces, triangles)
    if 0 < len(faces) <= triangles:
        return Shape(vertices, faces)
    small = thinned(bare, max(TANGLED, triangles))
    small = small if len(small.faces) else bare
    return Shape(small.vertices, small.faces)
