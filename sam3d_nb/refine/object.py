"""The refinement for whole objects, as notebooks use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example
from sam3d_nb.object3d import Object3D
from sam3d_nb.refine.pose import Refinement, refine_pose
from sam3d_nb.request import mask_index_of, resolve_request


def refine_layout(
    result: Object3D,
    example: Example,
    mask: int | np.ndarray | None = None,
    *,
    pointmap: np.ndarray | None = None,
) -> tuple[Object3D, Refinement]:
    """Return the object where it fits the photo better, and a report of what was done.

    mask: index of the mask in `example`, or (H, W) bool; by default the index that the object was
    made from.
    pointmap: (H, W, 3) in the camera frame, by default the example's. Pixels under other masks of
    the example count neither for nor against the object, which may be hidden there. Mesh and
    gaussians stay as they are; see `refine_pose` for what happens to the pose.

    Raises InputError where the object does not know its mask, or has no triangles.
    """
    chosen = mask_index_of(result, example) if mask is None else mask
    if chosen is None:
        raise InputError("this object does not know its mask: give it, or its index, as `mask`")
    request = resolve_request(example, chosen, pointmap, result.intrinsics)
    others = other_masks(example, request.mask_index, request.mask)
    pose, report = refine_pose(
        result.mesh, result.pose, request.intrinsics, request.mask, request.pointmap, others
    )
    settings = result.provenance.settings | about(report)
    provenance = replace(result.provenance, settings=settings)
    return replace(result, pose=pose, provenance=provenance), report


def about(report: Refinement) -> dict[str, str | int | float | bool]:
    """Return a report as it is kept with an object."""
    return {
        "refine_layout": True,
        "refined_by": ", ".join(report.accepted) or "nothing",
        "layout_iou_before": round(report.iou_before, 4),
        "layout_iou_after": round(report.iou_after, 4),
    }


def other_masks(example: Example, index: int | None, own: np.ndarray) -> np.ndarray:
    """Return where masks of other objects are, (H, W) bool; damaged ones do not count.

    index: of the object's mask `own`; None where it is not the example's, which may have the
    object by another mask then: one that shares more than half of the smaller of the two.
    """
    found = np.zeros(example.image.shape[:2], dtype=bool)
    for other, mask in example.readable_masks():
        is_own = _coincide(mask, own) if index is None else other == index
        if not is_own:
            found |= mask
    return found


def _coincide(one: np.ndarray, two: np.ndarray) -> bool:
    shared = np.count_nonzero(one & two)
    return bool(2 * shared > min(np.count_nonzero(one), np.count_nonzero(two)))
