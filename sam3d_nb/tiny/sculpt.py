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

from sam3d_nb.devices import with_doubles
from sam3d_nb.frames import Array, Pose
from sam3d_nb.model.surface import enclosed
from sam3d_nb.tiny.pixels import largest, smallest
from sam3d_nb.tiny.sight import Sight, look

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
        lines = points[:, 0, 0, 0], points[0, :, 0, 1], points[0, 0, :, 2]
        x, y, z = (line.cpu().numpy().astype(np.float64) for line in lines)
        device = with_doubles(distance.device)
        sight = look((x, y, z), self.pose, self.intrinsics, self.mask.shape, device=device)
        found = distance.clone()
        if sight is not None:
            found = self._changed(sight, distance.to(device, torch.float64)).to(distance)
        found[enclosed(found > 0)] = -1.0
        return found if bool((found < 0).any()) else distance  # all gone: mask and place disagree

    def _changed(self, sight: Sight, values: Tensor) -> Tensor:
        """Return other distances (nx, ny, nz) than `values`."""
        mask, depth = sight.window.some(self.mask), sight.window.cut(self.pointmap[..., 2])
        if not mask.any():
            return values
        device, side = values.device, self.pose.scale[0]
        seen = torch.from_numpy(np.where(np.isfinite(depth), depth, np.inf)).to(values)
        shown = torch.from_numpy(mask).to(device)
        first = smallest(seen.where(shown, torch.inf), 3)  # of the object, around
        focal = sight.window.intrinsics(self.intrinsics)[0, 0]
        beyond = sight.between(torch.from_numpy(_outside(mask)).to(device))
        beyond *= sight.depth / (focal * side)
        behind = (sight.depth - sight.at(seen)) / side  # -inf where nothing is seen
        front = (sight.depth - sight.at(first)) / side

        inside = beyond <= 0
        free = ~inside & (behind < (OTHERS if self.exact else torch.inf))
        d = torch.where(free, torch.maximum(values, beyond * GAIN), values)
        near = behind.abs() < THIN
        if self.exact:
            free = inside & front.isfinite() & (front < 0)
            d = torch.where(free, torch.maximum(d, -front.clamp(min=-1) * GAIN), d)
            solid = (front >= 0) & ((front < THIN) | near)
        else:
            solid = near & ~sight.at(self._covered(sight, d < 0))
        filled = torch.minimum(d, -front.clamp(min=THIN / 10) * GAIN)
        d = torch.where(inside & solid, filled, d)
        return torch.where(sight.inside, d, values)

    def _covered(self, sight: Sight, solid: Tensor) -> Tensor:
        """Return which pixels (h, w) have points of `solid` (nx, ny, nz), or have them around."""
        part = sight.window
        covered = torch.zeros(part.height * part.width, dtype=torch.bool, device=solid.device)
        covered[sight.pixel[solid & sight.inside]] = True
        size = 2 * max(1, round(sight.reach / 2)) + 1  # px from one vertex to the next
        return largest(covered.view(part.height, part.width), size)


def _outside(mask: np.ndarray) -> Array:
    """Return how many pixels the centers of pixels are away from the mask, negative inside."""
    far, deep = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
    return np.where(mask, 0.5 - deep, far - 0.5)
