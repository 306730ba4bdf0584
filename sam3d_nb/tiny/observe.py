"""Voxels made consistent with what the camera saw: a point map and a mask say where nothing can be.

A voxel is empty where the photo looks through it: all pixels that it covers show something farther
away, or it stands clear in front of the surface that the point map has there. Voxels that hold
points of the object are occupied. What is hidden stays as the network said.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sam3d_nb.devices import with_doubles
from sam3d_nb.frames import Array, Pose
from sam3d_nb.tiny.pixels import largest, smallest
from sam3d_nb.tiny.sight import in_cube, look
from sam3d_nb.tiny.window import around

SURE = 8.0  # a logit that no other evidence turns
SLACK = 1.0  # voxels by which observed depth may be off
FEWEST = 2  # points of the point map that make a voxel occupied
FINEST = 8.0  # pixels across a voxel that are looked at
REST = 0.25  # sizes of the rest of an object within which its thin parts are


def observe(
    logits: Tensor,  # (1, 1, R, R, R), view frame: x right, y away, z up
    pose: Pose,  # of the view cube: translation of its center, one scale
    pointmap: Array,  # (H, W, 3) OpenCV, NaN where unknown
    mask: np.ndarray,  # (H, W) bool
    intrinsics: Array,  # (3, 3) pixels
    *,
    exact: bool = True,
) -> Tensor:
    """Return occupancy logits of the same shape that agree with the point map and the mask.

    exact: the point map was given. An estimated one says nothing, only the mask does.
    """
    count, device = logits.shape[-1], with_doubles(logits.device)
    voxel = pose.scale[0] / count
    axis = (np.arange(count) + 0.5) / count - 0.5  # centers of voxels
    empty = torch.zeros(count, count, count, dtype=torch.bool, device=device)
    full = torch.zeros_like(empty)
    sight = look((axis,) * 3, pose, intrinsics, mask.shape, FINEST, device)
    if sight is not None:
        size = 2 * max(1, round(sight.reach * 0.75)) + 1  # px of a voxel, its corners included
        seen = torch.from_numpy(sight.window.depth(pointmap)).to(device)
        shown = torch.from_numpy(sight.window.some(mask)).to(device)
        nearest = sight.at(smallest(seen, size))
        touched = sight.at(largest(shown, size))  # some pixels are the object's
        if exact:  # where nothing is known beside the object, the photo looks far; within, nothing
            before = nearest.isfinite() & (sight.depth < nearest - SLACK * voxel)
            empty = sight.inside & (before | (~touched & (sight.depth < nearest)))
        else:
            empty = sight.inside & ~touched
    if exact and mask.any():
        full = _held(within(pointmap, mask), pose, count, device)

    empty, full = (part.to(logits.device).view_as(logits) for part in (empty, full))
    return logits.masked_fill(empty & ~full, -SURE).masked_fill(full, SURE)


def within(pointmap: Array, mask: np.ndarray) -> Array:
    """Return the known points (N, 3) of the mask's pixels but for those at its border.

    Thin parts are all border: they count where they are near the rest, else they may be what is
    behind. Where most is thin there is no rest to judge by, and all of it counts.
    """
    part = around(mask, 1)
    assert part is not None  # a mask with pixels has a window
    shown, points = part.cut(mask), part.cut(pointmap)
    known = np.isfinite(points).all(2)
    inner = ndimage.binary_erosion(shown)
    thin = points[shown & known & ~ndimage.binary_dilation(inner, np.ones((3, 3)))]
    found = points[inner & known]
    if len(found) > len(thin):
        low, high = found.min(0), found.max(0)
        near = REST * (high - low).max()
        thin = thin[((thin >= low - near) & (thin <= high + near)).all(1)]
    return np.concatenate([found, thin])


def _held(points: Array, pose: Pose, count: int, device: torch.device) -> Tensor:
    """Return which voxels hold at least `FEWEST` of the points (N, 3), (R, R, R) bool."""
    seen = torch.from_numpy(points).to(device).double()
    place = ((in_cube(seen, pose).T + 0.5) * count).floor().long()  # (3, N)
    place = place[:, ((place >= 0) & (place < count)).all(0)]
    flat = (place[0] * count + place[1]) * count + place[2]
    return (torch.bincount(flat, minlength=count**3) >= FEWEST).view((count,) * 3)
