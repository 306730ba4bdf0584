"""The part of a photo around an object, as small as the work needs: mask, camera, points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sam3d_nb.view.camera import Camera


class Crop(NamedTuple):
    """A rectangle of a photo: rows from `top` to before `bottom`, columns likewise."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class Window:
    """What is known of an object in a rectangle of the photo, on a grid that may be coarser.

    camera: the photo's, in pixels of the grid. mask: (h, w) bool, where the object is seen.
    counted: (h, w) bool, where the object would be seen if it were there; elsewhere something else
    may hide it. points: (h, w, 3) in the camera frame, NaN where unknown, or None.
    """

    camera: Camera
    mask: np.ndarray
    counted: np.ndarray
    points: np.ndarray | None = None

    @property
    def observed(self) -> np.ndarray:
        """Known points of the object's surface, (N, 3) float64."""
        if self.points is None:
            return np.zeros((0, 3))
        inside = self.points[self.mask]
        return inside[np.isfinite(inside).all(1)].astype(np.float64)

    def iou(self, covered: np.ndarray) -> float:
        """Return intersection over union of an outline (h, w) bool and the mask, where counted."""
        union = ((covered | self.mask) & self.counted).sum()
        return float((covered & self.mask).sum() / union) if union else 0.0


def crop_around(mask: np.ndarray, margin: float) -> Crop:
    """Return the rectangle around `mask` (H, W) bool, wider by `margin` of its longer side."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    wider = int(np.ceil(margin * max(bottom - top, right - left)))
    height, width = mask.shape
    return Crop(
        max(0, top - wider),
        min(height, bottom + wider),
        max(0, left - wider),
        min(width, right + wider),
    )


def make_window(
    crop: Crop,
    side: int,
    intrinsics: np.ndarray,
    mask: np.ndarray,
    hidden: np.ndarray,
    pointmap: np.ndarray | None = None,
) -> Window:
    """Return the window of `crop` on at most `side` pixels a side: every n-th pixel of the photo.

    intrinsics: K (3, 3) of the photo. mask, hidden: (H, W) bool of the photo; hidden is where
    something else may stand before the object. pointmap: (H, W, 3) or None.
    """
    step = -(-max(crop.bottom - crop.top, crop.right - crop.left) // side)
    first = (step - 1) // 2
    here = np.s_[crop.top + first : crop.bottom : step, crop.left + first : crop.right : step]
    inside = mask[here]
    # Centers of the grid's pixels lie on centers of the photo's: (i + 0.5) step + shift.
    shift = first + 0.5 - step / 2
    to_grid = np.array(
        [
            [1 / step, 0, -(crop.left + shift) / step],
            [0, 1 / step, -(crop.top + shift) / step],
            [0, 0, 1],
        ]
    )
    return Window(
        Camera(inside.shape[0], inside.shape[1], to_grid @ intrinsics),
        inside,
        inside | ~hidden[here],
        None if pointmap is None else pointmap[here],
    )


def hidden_by_depth(mask: np.ndarray, pointmap: np.ndarray) -> np.ndarray:
    """Return which pixels (H, W) bool show something that stands before the object.

    mask: (H, W) bool of the object. pointmap: (H, W, 3), NaN where unknown. A pixel outside the
    mask counts if it is nearer than the object at the closest pixel of the mask, by more than the
    object is deep (from the 10th to the 90th percentile) and a tenth of its distance: not so the
    floor at its feet.
    """
    depth = pointmap[..., 2]
    known = mask & np.isfinite(depth)
    result = np.zeros_like(mask)
    if not known.any():
        return result
    low, middle, high = np.percentile(depth[known], (10, 50, 90))
    crop = crop_around(mask, 1.0)
    part = np.s_[crop.top : crop.bottom, crop.left : crop.right]
    closest = ndimage.distance_transform_edt(
        ~known[part], return_distances=False, return_indices=True
    )
    own = depth[part][tuple(closest)]
    with np.errstate(invalid="ignore"):
        result[part] = depth[part] < own - max(high - low, 0.1 * middle)
    return result & ~mask
