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

from sam3d_nb.frames import Array, Pose
from sam3d_nb.tiny.window import look, placed

SURE = 8.0  # a logit that no other evidence turns
SLACK = 1.0  # voxels by which observed depth may be off
FEWEST = 2  # points of the point map that make a voxel occupied
FINEST = 8.0  # pixels across a voxel that are looked at


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
    side, center = pose.scale[0], np.asarray(pose.translation)
    count = logits.shape[-1]
    points = placed(_centers(count), pose)  # (R³, 3)
    voxel = side / count
    empty = np.zeros(count**3, dtype=bool)
    sight = look(points, intrinsics, mask.shape, voxel, finest=FINEST)
    if sight is not None:
        size = 2 * max(1, round(sight.reach * 0.75)) + 1  # px of a voxel, its corners included
        shown, depth = sight.window.some(mask), sight.window.cut(pointmap[..., 2])
        seen = np.where(np.isfinite(depth), depth, np.inf)
        column, row = np.floor(sight.at).astype(int).T
        touched = ndimage.maximum_filter(shown, size)[row, column]  # some pixels are the object's
        nearest = ndimage.minimum_filter(seen, size)[row, column]
        if exact:  # where nothing is known beside the object, the photo looks far; within, nothing
            before = np.isfinite(nearest) & (sight.depth < nearest - SLACK * voxel)
            empty[sight.inside] = before | (~touched & (sight.depth < nearest))
        else:
            empty[sight.inside] = ~touched
    full = np.zeros_like(empty)
    if exact:
        full = _held(pointmap[ndimage.binary_erosion(mask, iterations=1)], center, side, count)

    found = logits.flatten().clone()
    found[torch.from_numpy(empty & ~full).to(found.device)] = -SURE
    found[torch.from_numpy(full).to(found.device)] = SURE
    return found.view_as(logits)


def _centers(count: int) -> Array:
    """Return the voxels' centers (R³, 3) in the cube [-0.5, 0.5]^3."""
    axis = (np.arange(count) + 0.5) / count - 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], -1).reshape(-1, 3)


def _held(points: Array, center: Array, side: float, count: int) -> np.ndarray:
    """Return which voxels hold at least `FEWEST` of the points (N, 3), (R³,) bool."""
    points = points[np.isfinite(points).all(1)]
    x, y, z = ((points - center) / side).T
    place = np.floor((np.stack([x, z, -y], 1) + 0.5) * count).astype(np.int64)  # view axes
    place = place[((place >= 0) & (place < count)).all(1)]
    flat = (place[:, 0] * count + place[:, 1]) * count + place[:, 2]
    return np.bincount(flat, minlength=count**3) >= FEWEST
