"""Coordinate frames by name, and the poses that carry one into another.

All frames are right-handed; points are rows of an (N, 3) array.

| frame | x | y | z | unit | used for |
|---|---|---|---|---|---|
| camera | right | down | forward | metre, where known | point maps, ground truth, poses (OpenCV) |
| object | right | up | towards the viewer | unit cube around 0 | meshes and gaussians (GLB) |

Pixel (u, v) has its centre at (u + 0.5, v + 0.5); intrinsics K are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError

Array = NDArray[np.floating]

FACING_CAMERA = (0.0, 1.0, 0.0, 0.0)
"""Half a turn about x: an object frame seen from the front, as a quaternion (w, x, y, z)."""


@dataclass(frozen=True)
class Pose:
    """Carries object coordinates into the camera frame: p_camera = R(q) (scale * p) + translation.

    rotation: unit quaternion (w, x, y, z), w >= 0; translation: (3,) in metres where known;
    scale: (3,) along the object's axes, all equal for a uniform scale.
    """

    rotation: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        quaternion = np.asarray(self.rotation, dtype=np.float64)
        scale = np.asarray(self.scale, dtype=np.float64)
        length = float(np.linalg.norm(quaternion))
        if quaternion.shape != (4,) or not np.isfinite(length) or length < 1e-8:
            raise InputError(f"a rotation is a quaternion (w, x, y, z) but got {self.rotation}")
        if np.shape(self.translation) != (3,) or not np.isfinite(self.translation).all():
            raise InputError(f"a translation is three finite numbers but got {self.translation}")
        if scale.shape not in ((), (1,), (3,)) or not (np.isfinite(scale) & (scale > 0)).all():
            raise InputError(f"a scale is one or three positive numbers but got {self.scale}")
        quaternion = quaternion / length * (-1.0 if quaternion[0] < 0 else 1.0)
        object.__setattr__(self, "rotation", tuple(quaternion.tolist()))
        object.__setattr__(self, "translation", tuple(float(x) for x in self.translation))
        object.__setattr__(self, "scale", tuple(np.broadcast_to(scale, 3).tolist()))

    def apply(self, points: ArrayLike) -> Array:
        """Return object-frame `points` (N, 3) in the camera frame, (N, 3)."""
        scaled = np.asarray(points, dtype=np.float64) * self.scale
        return scaled @ rotation_matrix(self.rotation).T + self.translation

    def inverse_apply(self, points: ArrayLike) -> Array:
        """Return camera-frame `points` (N, 3) in the object frame, (N, 3)."""
        centered = np.asarray(points, dtype=np.float64) - self.translation
        return (centered @ rotation_matrix(self.rotation)) / self.scale

    def matrix(self) -> Array:
        """Return the homogeneous matrix (4, 4) that acts on column vectors."""
        result = np.eye(4)
        result[:3, :3] = rotation_matrix(self.rotation) * self.scale
        result[:3, 3] = self.translation
        return result


def rotation_matrix(quaternion: ArrayLike) -> Array:
    """Return the rotation matrix (3, 3), for column vectors, of a unit quaternion (w, x, y, z)."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_matrix(matrix: ArrayLike) -> tuple[float, float, float, float]:
    """Return the unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3)."""
    r = np.asarray(matrix, dtype=np.float64)
    if r.shape != (3, 3) or not np.allclose(r @ r.T, np.eye(3), atol=1e-4) or np.linalg.det(r) < 0:
        raise InputError(f"a rotation matrix is orthonormal and right-handed but got {r.tolist()}")
    x, y, z, w = Rotation.from_matrix(r).as_quat(canonical=True)
    return float(w), float(x), float(y), float(z)


def project(points: ArrayLike, intrinsics: ArrayLike) -> Array:
    """Return the pixel positions (N, 2), u right and v down, of camera-frame `points` (N, 3)."""
    homogeneous = np.asarray(points, dtype=np.float64) @ np.asarray(intrinsics).T  # (N, 3)
    return homogeneous[:, :2] / homogeneous[:, 2:]


def default_intrinsics(height: int, width: int, field_of_view: float = 50.0) -> Array:
    """Return pixel intrinsics K (3, 3) for a photo whose camera is unknown.

    field_of_view: degrees across the longer side; 50 is about what a phone's main camera sees
    after the usual crop.
    """
    focal = max(height, width) / 2 / np.tan(np.radians(field_of_view) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def intrinsics_from_pointmap(pointmap: Array) -> Array | None:
    """Return pixel intrinsics K (3, 3) fitted to a camera-frame point map (H, W, 3).

    The principal point is the image center and pixels are square; one focal length is fitted by
    least squares over the finite points in front of the camera. None where fewer than 16 exist.
    """
    height, width = pointmap.shape[:2]
    v, u = np.mgrid[:height, :width] + 0.5
    valid = np.isfinite(pointmap).all(-1) & (pointmap[..., 2] > 1e-6)
    if valid.sum() < 16:
        return None
    x, y, z = pointmap[valid].astype(np.float64).T
    rays = np.concatenate([x / z, y / z])
    pixels = np.concatenate([u[valid] - width / 2, v[valid] - height / 2])
    focal = float(rays @ pixels / max(float(rays @ rays), 1e-12))
    if focal <= 0:
        return None
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
