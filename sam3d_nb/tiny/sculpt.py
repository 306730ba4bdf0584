"""The decoded surface made consistent with what the camera saw, finer than voxels are.

Distances at the grid vertices are corrected before the mesh is extracted: where the photo looks
past the object, or in front of the surface that the point map has, nothing can be, and a little
behind that surface there is something. What is hidden stays as the networks said. Where the point
map is only estimated, nothing can be outside of the mask, and what is missing inside of it is
filled at the estimated depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sam3d_nb.frames import Array, Pose
from sam3d_nb.model.surface import enclosed
from sam3d_nb.tiny.window import look, placed

GAIN = 16.0  # decoded distance for one side of the cube
THIN = 0.02  # sides of the cube behind the surface seen that are inside
OTHERS = 0.05  # sides behind what the photo shows beside the object: inside of that, so not of it


@dataclass(frozen=True)
class Sculptor:
    """A function of grid vertices and their distances, see `mesh_from_features`."""

    pose: Pose  # of the view cube: translation of its center, one scale
    pointmap: Array  # (H, W, 3) OpenCV, NaN where unknown
    mask: np.ndarray  # (H, W) bool
    intrinsics: Array  # (3, 3) pixels
    exact: bool = True  # the point map was given, not estimated

    def __call__(self, points: Tensor, distance: Tensor) -> Tensor:
        """Return distances (nx, ny, nz) that agree with point map and mask.

        points: (nx, ny, nz, 3) in the cube [-0.5, 0.5]^3, view frame: x right, y away, z up.
        """
        vertices = placed(points.reshape(-1, 3).cpu().numpy().astype(np.float64), self.pose)
        spacing = 1 / max(1, round(1 / float(points[0, 0, 1, 2] - points[0, 0, 0, 2])))
        values = distance.cpu().numpy().astype(np.float64)
        changed = self._changed(vertices, values.reshape(-1), spacing)
        found = torch.from_numpy(changed.reshape(values.shape).astype(np.float32)).to(distance)
        found[enclosed(found > 0)] = -1.0
        return found if bool((found < 0).any()) else distance  # all gone: mask and place disagree

    def _changed(self, vertices: Array, values: Array, spacing: float) -> Array:
        """Return other distances (N,) at vertices (N, 3) in the camera."""
        side = self.pose.scale[0]
        sight = look(vertices, self.intrinsics, self.mask.shape, spacing * side)
        if sight is None:
            return values
        mask, depth = sight.window.some(self.mask), sight.window.cut(self.pointmap[..., 2])
        if not mask.any():
            return values
        seen = np.where(np.isfinite(depth), depth, np.inf)
        first = ndimage.minimum_filter(np.where(mask, seen, np.inf), 3)  # of the object, around
        column, row = np.floor(sight.at).astype(int).T
        beyond = ndimage.map_coordinates(
            _outside(mask), sight.at.T[::-1] - 0.5, order=1, mode="nearest"
        )
        focal = sight.window.intrinsics(self.intrinsics)[0, 0]
        beyond *= sight.depth / focal / side
        behind = (sight.depth - seen[row, column]) / side  # -inf where nothing is seen
        front = (sight.depth - first[row, column]) / side

        d, inside = values[sight.inside], beyond <= 0
        free = ~inside & (behind < (OTHERS if self.exact else np.inf))
        d = np.where(free, np.maximum(d, beyond * GAIN), d)
        if self.exact:
            free = inside & np.isfinite(front) & (front < 0)
            d = np.where(free, np.maximum(d, np.minimum(-front, 1) * GAIN), d)
            solid = (front >= 0) & ((front < THIN) | (np.abs(behind) < THIN))
        else:
            covered = np.zeros(mask.shape, dtype=bool)
            covered[row[d < 0], column[d < 0]] = True
            size = 2 * max(1, round(sight.reach / 2)) + 1  # px from one vertex to the next
            solid = (np.abs(behind) < THIN) & ~ndimage.maximum_filter(covered, size)[row, column]
        d = np.where(inside & solid, np.minimum(d, -np.maximum(front, THIN / 10) * GAIN), d)
        changed = values.copy()
        changed[sight.inside] = d
        return changed


def _outside(mask: np.ndarray) -> Array:
    """Return how many pixels the centers of pixels are away from the mask, negative inside."""
    far, deep = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
    return np.where(mask, 0.5 - deep, far - 0.5)
