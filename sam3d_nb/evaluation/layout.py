"""How far a predicted pose is off, read from the transform that would put it right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam3d_nb.evaluation.align import Similarity


@dataclass(frozen=True)
class LayoutError:
    """What is wrong with the placement of an object.

    rotation: degrees by which the object must be turned, 0 to 180; the smallest turn where a
    symmetric object fits in several ways. translation: how far its center must move, in longest
    sides of the true object. distance: the same in distances of the true object from the camera.
    scale_ratio: predicted size over true size. scale: |ln(scale_ratio)|, 0.1 is about 10 %.
    """

    rotation: float
    translation: float
    distance: float
    scale_ratio: float
    scale: float


def layout_error(
    correction: Similarity, center: np.ndarray, true_center: np.ndarray, true_side: float
) -> LayoutError:
    """Return the error that `correction` mends.

    correction: lays the prediction onto the truth in the frame in which the true box is centered
    and its longest side is 1. center: (3,) of the predicted box in that frame. true_center: (3,)
    of the true box in the camera frame; true_side: its longest side in the same unit.
    """
    moved = float(np.linalg.norm(correction.apply(center[None])[0] - center))
    return LayoutError(
        rotation=correction.degrees,
        translation=moved,
        distance=moved * true_side / max(float(np.linalg.norm(true_center)), 1e-12),
        scale_ratio=1 / correction.scale,
        scale=float(abs(np.log(correction.scale))),
    )
