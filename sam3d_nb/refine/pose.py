"""A pose that fits the photo better, step by step; each step must prove itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.frames import Pose
from sam3d_nb.images import check_mask
from sam3d_nb.mesh import Mesh
from sam3d_nb.refine.outline import by_outline
from sam3d_nb.refine.points import by_icp, by_medians
from sam3d_nb.refine.shape import Shape, coarse
from sam3d_nb.refine.window import Window, crop_around, hidden_by_depth, make_window

STEPS: dict[str, Callable[[Shape, Pose, Window], Pose | None]] = {
    "points": by_medians,
    "icp": by_icp,
    "outline": by_outline,
}
"""The steps by name, in their order."""
SIDE, MARGIN, TRIANGLES = 120, 0.3, 3_000
"""Of the window and of the shape that the steps work with."""
FINE_SIDE, FINE_MARGIN = 1024, 1.0
"""Of the window in which, with the whole mesh, a step is accepted or not."""


@dataclass(frozen=True)
class Refinement:
    """What a refinement did.

    iou_before, iou_after: intersection over union of the object's outline and its mask, where
    nothing else may hide the object. accepted: the steps that raised it, in order. tried: the IoU
    that each step led to; steps that could not be done are missing.
    """

    iou_before: float
    iou_after: float
    accepted: tuple[str, ...] = ()
    tried: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        done = ", ".join(self.accepted) or "none, the pose stays"
        return f"IoU {self.iou_before:.3f} to {self.iou_after:.3f}; accepted: {done}"


def refine_pose(
    mesh: Mesh,
    pose: Pose,
    intrinsics: np.ndarray,
    mask: np.ndarray,
    pointmap: np.ndarray | None = None,
    occluders: np.ndarray | None = None,
) -> tuple[Pose, Refinement]:
    """Return a pose that fits mask and point map better, and what was done for it.

    mesh: in the object frame; pose: into the camera frame (OpenCV). intrinsics: K (3, 3) in pixels.
    mask: (H, W) bool. pointmap: (H, W, 3) in the camera frame, NaN where unknown; without one only
    the outline tells, and not how far away the object is. occluders: (H, W) bool, where other
    things are seen that may hide the object; by default what the point map shows before it.

    In turn: scale and place by medians of the points, ICP of the visible surface, and the outline.
    A step is accepted only if it raises the IoU of outline and mask, so that this never falls;
    depth and turn may get worse. No chance, no GPU. Scales keep their ratios. Raises InputError for
    a mesh without triangles, and where mask, point map, occluders or intrinsics are not what they
    need to be.
    """
    if not len(mesh.faces):
        raise InputError("a layout is refined by the mesh's outline, but this mesh has no triangle")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"the mask is a bool array (H, W) but got {_kind(mask)}")
    check_mask(mask, (mask.shape[0], mask.shape[1]))
    if np.shape(intrinsics) != (3, 3):
        raise InputError(f"intrinsics are K (3, 3) in pixels but got {_kind(intrinsics)}")
    points = None if pointmap is None else _known(pointmap, mask.shape)
    hidden = _hidden(mask, points, occluders)
    fine = make_window(crop_around(mask, FINE_MARGIN), FINE_SIDE, intrinsics, mask, hidden)
    window = make_window(crop_around(mask, MARGIN), SIDE, intrinsics, mask, hidden, points)
    whole, small = Shape(mesh.vertices, mesh.faces), coarse(mesh, TRIANGLES)

    before = best = fine.iou(whole.covered(pose, fine))
    accepted, tried = [], {}
    for name, step in STEPS.items():
        found = step(small, pose, window)
        if found is None:
            continue
        tried[name] = fine.iou(whole.covered(found, fine))
        if tried[name] > best:
            pose, best = found, tried[name]
            accepted.append(name)
    return pose, Refinement(before, best, tuple(accepted), tried)


def _hidden(
    mask: np.ndarray, points: np.ndarray | None, occluders: np.ndarray | None
) -> np.ndarray:
    """Return where something else may stand before the object, (H, W) bool."""
    if occluders is not None:
        if np.shape(occluders) != mask.shape or np.asarray(occluders).dtype != np.bool_:
            raise InputError(f"occluders are bool {mask.shape} but got {_kind(occluders)}")
        return occluders & ~mask
    return np.zeros_like(mask) if points is None else hidden_by_depth(mask, points)


def _known(pointmap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the point map (H, W, 3) with NaN wherever a point is not before the camera."""
    if np.shape(pointmap) != (*shape, 3):
        raise InputError(f"the point map is {np.shape(pointmap)} but the mask is {shape}")
    points = np.array(pointmap, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(points).all(-1) & (points[..., 2] > 0)
    points[~known] = np.nan
    return points


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
