"""The decoded surface made consistent with what the camera saw, finer than voxels are.

Distances at the grid vertices are corrected before the mesh is extracted: where the photo looks
past the object, or in front of the surface that the point map has, nothing can be, and a little
behind that surface there is something. What is hidden stays as the networks said. Where the point
map is only estimated, nothing can be outside of the mask, and what is missing inside of it is
filled at the estimated depth, or that of the nearest pixel that has one. All is a little wider
than the mask, for `trimmed` to move to its outline; gaps too narrow for the grid are for `pierced`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.devices import with_doubles
from sam3d_nb.frames import Array, Pose
from sam3d_nb.model.surface import enclosed
from sam3d_nb.tiny.nearest import nearest, outside
from sam3d_nb.tiny.pixels import gaps, largest, smallest
from sam3d_nb.tiny.sight import Sight, look
from sam3d_nb.tiny.window import Window

GAIN = 16.0  # decoded distance for one side of the cube
THIN = 0.02  # sides of the cube behind the surface seen that are inside
WIDER = 0.4  # spacings of grid vertices that the surface is wider than the mask, see `trimmed`
STEEP = 0.1  # sides more than THIN, at most, where the surface is seen at a flat angle
EDGE = 0.01  # distance of vertices at the border of the grid, at least
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
            found = self._changed(sight, distance.to(device).double()).to(distance)
        found[enclosed(found > 0)] = -1.0
        found = _closed(found)
        return found if bool((found < 0).any()) else distance  # all gone: mask and place disagree

    def _changed(self, sight: Sight, values: Tensor) -> Tensor:
        """Return other distances (nx, ny, nz) than `values`."""
        part, side = sight.window, self.pose.scale[0]
        mask = part.some(self.mask)
        if not mask.any():
            return values
        seen = torch.from_numpy(part.depth(self.pointmap)).to(values)
        shown = torch.from_numpy(mask).to(values.device)
        sure = torch.from_numpy(surely(part, self.mask)).to(values.device)
        first = smallest(seen.where(sure, torch.inf), 3)  # of the object, around
        away = outside(shown) - _wider(shown, sight.reach)  # pixels
        focal = part.intrinsics(self.intrinsics)[0, 0]
        beyond = sight.between(away) * (sight.depth / (focal * side))
        inside = beyond <= 0

        known = sure if self.exact else sure & seen.isfinite()
        own = nearest(known if bool(known.any()) else sure)
        free = ~inside
        if self.exact:  # but for what something else may hide
            past = (sight.depth - sight.at(seen)) / side  # -inf where nothing is seen
            hidden = covered(seen, sure, own, OTHERS * side)
            free &= (past < OTHERS) | ~sight.at(hidden)
        d = torch.where(free, torch.maximum(values, beyond * GAIN), values)
        surface = seen.where(sure, torch.nan)
        seen, first = (of.take(own) for of in (seen, first))  # beside it as well
        if not self.exact:
            seen, first = (_within(of, sight.depth) for of in (seen, first))
        front = (sight.depth - sight.at(first)) / side
        behind = (sight.depth - sight.at(seen)) / side
        if self.exact:
            free = inside & front.isfinite() & (front < 0)
            d = torch.where(free, torch.maximum(d, -front.clamp(min=-1) * GAIN), d)
            slope = _slope(surface, sight.reach).take(own) / side
            deep = THIN + sight.at(slope.clamp(max=STEEP))
            solid = (front >= 0) & ((front < THIN) | (behind.abs() < deep))
        else:
            solid = (behind.abs() < THIN) & ~sight.at(self._covered(sight, d < 0))
        filled = torch.minimum(d, -front.clamp(min=THIN / 10) * GAIN)
        d = torch.where(inside & solid, filled, d)
        d = torch.where(inside, torch.maximum(d, beyond * GAIN), d)  # no deeper than the outline is
        return torch.where(sight.inside, d, values)

    def _covered(self, sight: Sight, solid: Tensor) -> Tensor:
        """Return which pixels (h, w) have points of `solid` (nx, ny, nz), or have them around."""
        part = sight.window
        covered = torch.zeros(part.height * part.width, dtype=torch.bool, device=solid.device)
        covered[sight.pixel[solid & sight.inside]] = True
        size = 2 * max(1, round(sight.reach / 2)) + 1  # px from one vertex to the next
        return largest(covered.view(part.height, part.width), size)


def surely(part: Window, mask: np.ndarray) -> np.ndarray:
    """Return the pixels (h, w) of a window with the depth of the object, not of what is behind.

    mask: (H, W) bool.
    """
    middle = part.cut(mask)
    return middle if middle.any() else part.some(mask)


def covered(seen: Tensor, mask: Tensor, own: Tensor, step: float) -> Tensor:
    """Return at which pixels (h, w) something may stand before the object: behind it, all is open.

    Those whose nearest pixel of the mask ends at what is nearer. seen: (h, w) depth, infinite where
    unknown; mask: (h, w) bool; own: (h, w), the nearest pixels of the mask. step: by which it is
    nearer at least; the floor that an object stands on, or the wall at which it is, begins at the
    object's own depth.
    """
    beside = smallest(seen.where(~mask, torch.inf), 3)
    return (mask & (seen - beside > step)).take(own)  # not where both are infinite


def _slope(depth: Tensor, reach: float) -> Tensor:
    """Return by how much depth (h, w) grows over `reach` pixels where it falls as much before.

    Depth is NaN beside the object. Nothing at a step between two surfaces.
    """
    size = 2 * max(1, round(reach)) + 1
    known = depth.isfinite()
    far = largest(depth.where(known, -torch.inf), size) - depth
    near = depth - smallest(depth.where(known, torch.inf), size)
    return torch.minimum(far, near).where(known, 0.0)


def _closed(distance: Tensor) -> Tensor:
    """Return distances (nx, ny, nz) with all vertices at the border outside: no open surface."""
    outer = torch.ones_like(distance, dtype=torch.bool)
    outer[1:-1, 1:-1, 1:-1] = False
    return torch.where(outer, distance.clamp(min=EDGE), distance)


def _wider(mask: Tensor, reach: float) -> Tensor:
    """Return by how many pixels the surface is to be wider than the mask, (h, w).

    Not where it would close a gap. reach: pixels from one vertex of the grid to the next.
    """
    return torch.where(gaps(mask, max(1, round(reach))), 0.0, WIDER * reach)


def _within(depth: Tensor, grid: Tensor) -> Tensor:
    """Return `depth` (h, w) limited to that of a grid (1, ny, 1), where it is finite."""
    limited = depth.clamp(float(grid.min()), float(grid.max()))
    return torch.where(depth.isfinite(), limited, depth)
