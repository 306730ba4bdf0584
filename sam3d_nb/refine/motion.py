"""Small motions of a placed object."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from sam3d_nb.frames import Pose


def moved(
    pose: Pose, center: np.ndarray, turn: np.ndarray, shift: np.ndarray, growth: float
) -> Pose:
    """Return `pose` turned and scaled by exp(growth) about `center` (3,), then shifted (3,).

    turn: (3,) axis times angle in radians. All in the camera frame.
    """
    turned = Rotation.from_rotvec(turn)
    factor = float(np.exp(growth))
    w, x, y, z = turned.as_quat(scalar_first=True).tolist()
    a, b, c = (center + shift - factor * turned.apply(center)).tolist()
    return Pose((w, x, y, z), (a, b, c), (factor,) * 3) @ pose


def pushed(pose: Pose, factor: float) -> Pose:
    """Return `pose` moved away from the camera and grown by `factor`: its outline stays."""
    return Pose(scale=(factor,) * 3) @ pose
