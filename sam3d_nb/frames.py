"""Coordinate frames by name, and the poses that carry one into another.

A frame is named by where its axes point: right, up and forward are those of the photo's camera, or
of somebody who looks at the front of an object; backward is towards the viewer.

| constant | x | y | z | hand | used for |
|---|---|---|---|---|---|
| `CAMERA` | right | down | forward | right | point maps, ground truth, poses; OpenCV |
| `NETWORK_CAMERA` | left | up | forward | right | point maps inside `model/`; the released code |
| `OPENGL_CAMERA` | right | up | backward | right | cameras of OpenGL, glTF, three.js |
| `BLENDER_CAMERA` | right | up | backward | right | cameras of Blender |
| `UNITY_CAMERA` | right | up | forward | left | cameras of Unity |
| `OBJECT` | right | up | backward | right | meshes in GLB, OBJ, PLY, STL; unit cube around 0 |
| `SPLATS` | right | up | backward | right | our PLY and .splat files: as the mesh |
| `LATENT` | right | forward | up | right | the networks' voxels and gaussians; official PLY files |
| `WORLD` | right | up | backward | right | scenes; the floor is y = 0 once re-aligned |
| `BLENDER` | right | forward | up | right | worlds, objects in Blender after glTF import |
| `UNITY` | left | up | backward | left | worlds, objects in Unity after glTF import |

The origin of the first five is the camera; the others stand in an object or on a floor. Axes of
frames of one kind differ by a fixed matrix, see `change_of_axes`; a camera and an object differ by
a pose. Unity is left-handed: its importers keep up and front and mirror x, so that an object's
left and right stay what they were for the viewer. A mirror is no rotation: a pose converts to Unity
only if both of its frames do.

Points are rows of an (N, 3) array, in meters where that is known. Pixel (u, v) has its center at
(u + 0.5, v + 0.5); intrinsics K are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError

Array = NDArray[np.floating]

DIRECTIONS = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "up": (0, 1, 0),
    "down": (0, -1, 0),
    "backward": (0, 0, 1),
    "forward": (0, 0, -1),
}


@dataclass(frozen=True)
class Frame:
    """Where the axes of a coordinate frame point; see the table of this module.

    kind: a "camera" is the origin of its frame; an "object" frame is one of an object or a world.
    """

    name: str
    kind: Literal["camera", "object"]
    x: str
    y: str
    z: str

    @property
    def axes(self) -> Array:
        """The axes as columns (3, 3) along right, up and backward."""
        return np.array([DIRECTIONS[side] for side in (self.x, self.y, self.z)], dtype=float).T

    @property
    def right_handed(self) -> bool:
        """Whether x, y and z are as thumb, index and middle finger of the right hand."""
        return bool(np.linalg.det(self.axes) > 0)


CAMERA = Frame("camera", "camera", "right", "down", "forward")
NETWORK_CAMERA = Frame("network camera", "camera", "left", "up", "forward")
OPENGL_CAMERA = Frame("OpenGL camera", "camera", "right", "up", "backward")
BLENDER_CAMERA = Frame("Blender camera", "camera", "right", "up", "backward")
UNITY_CAMERA = Frame("Unity camera", "camera", "right", "up", "forward")
OBJECT = Frame("object", "object", "right", "up", "backward")
SPLATS = Frame("splats", "object", "right", "up", "backward")
LATENT = Frame("latent", "object", "right", "forward", "up")
WORLD = Frame("world", "object", "right", "up", "backward")
BLENDER = Frame("Blender", "object", "right", "forward", "up")
UNITY = Frame("Unity", "object", "left", "up", "backward")

FRAMES = {
    frame.name: frame
    for frame in (
        *(CAMERA, NETWORK_CAMERA, OPENGL_CAMERA, BLENDER_CAMERA, UNITY_CAMERA),
        *(OBJECT, SPLATS, LATENT, WORLD, BLENDER, UNITY),
    )
}

FACING_CAMERA = (0.0, 1.0, 0.0, 0.0)
"""Half a turn about x: an object frame seen from the front, as a quaternion (w, x, y, z)."""


@dataclass(frozen=True)
class Pose:
    """Carries object coordinates into the camera frame: p_camera = R(q) (scale * p) + translation.

    rotation: unit quaternion (w, x, y, z), w >= 0; translation: (3,) in meters where known;
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
        if abs(length - 1) > 1e-12:  # else a pose made from another's numbers is not the same
            quaternion = quaternion / length
        quaternion = -quaternion if quaternion[0] < 0 else quaternion
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

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Pose:
        """Return the pose of a homogeneous matrix (4, 4) that acts on column vectors.

        Raises InputError where that mirrors or shears, which no pose does.
        """
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape != (4, 4) or not np.isfinite(m).all() or not np.allclose(m[3], (0, 0, 0, 1)):
            raise InputError(f"a pose's matrix is (4, 4) with the last row 0 0 0 1 but got {m}")
        scale = np.linalg.norm(m[:3, :3], axis=0)
        if not (scale > 0).all():
            raise InputError(f"a pose needs a positive scale on all axes but got {scale.tolist()}")
        return cls(
            quaternion_from_matrix(m[:3, :3] / scale), tuple(m[:3, 3].tolist()), tuple(scale)
        )

    def __matmul__(self, inner: Pose) -> Pose:
        """Return the pose that does `inner` first and then this one, which has one scale.

        Raises InputError where this pose scales its axes differently: the result could shear.
        """
        size = self._single_scale()
        w, x, y, z = (_quaternion(self.rotation) * _quaternion(inner.rotation)).as_quat(
            scalar_first=True
        )
        shift = self.apply([inner.translation])[0]
        scale = np.asarray(inner.scale) * size
        return Pose((w, x, y, z), tuple(shift.tolist()), tuple(scale.tolist()))

    def inverse(self) -> Pose:
        """Return the pose that carries back; raises InputError unless there is one scale."""
        size = self._single_scale()
        w, x, y, z = self.rotation
        shift = self.inverse_apply([(0.0, 0.0, 0.0)])[0]
        return Pose((w, -x, -y, -z), tuple(shift.tolist()), (1 / size,) * 3)

    def _single_scale(self) -> float:
        if not np.allclose(self.scale, self.scale[0], rtol=1e-6, atol=0):
            raise InputError(f"this needs a pose with one scale on all axes, not {self.scale}")
        return self.scale[0]


def change_of_axes(source: Frame, target: Frame) -> Array:
    """Return the matrix (3, 3) that turns `source` coordinates, as columns, into `target` ones.

    Both name the same place: their origin is one. The determinant is -1 where one of them is
    left-handed. Raises InputError where one is a camera's frame and the other is not.
    """
    if source.kind != target.kind:
        raise InputError(
            f"no fixed change of axes leads from the {source.name} frame to the {target.name} "
            "frame: an object's pose, or a scene's `world`, carries one into the other"
        )
    return target.axes.T @ source.axes


def convert_points(points: ArrayLike, source: Frame, target: Frame) -> Array:
    """Return points or vectors (..., 3) of the frame `source` in the frame `target`, (..., 3)."""
    return np.asarray(points, dtype=np.float64) @ change_of_axes(source, target).T


def convert_matrix(
    matrix: ArrayLike, source: tuple[Frame, Frame], target: tuple[Frame, Frame]
) -> Array:
    """Return a homogeneous matrix (4, 4) between two frames as one between two others.

    source: the frames of what the matrix takes and of what it gives, such as (OBJECT, CAMERA);
    target: the same two in another program, such as (BLENDER, BLENDER_CAMERA).
    """
    taken, given = np.eye(4), np.eye(4)
    taken[:3, :3] = change_of_axes(target[0], source[0])
    given[:3, :3] = change_of_axes(source[1], target[1])
    return given @ np.asarray(matrix, dtype=np.float64) @ taken


def convert_pose(pose: Pose, source: tuple[Frame, Frame], target: tuple[Frame, Frame]) -> Pose:
    """Return a pose between two frames as one between two others, see `convert_matrix`.

    Raises InputError where one of the target frames is left-handed and the other is not: that
    takes a mirror, which no pose has. `convert_matrix` can do it.
    """
    hands = [frame.right_handed for frame in (*source, *target)]
    if (hands[0] == hands[1]) != (hands[2] == hands[3]):
        names = " to ".join(frame.name for frame in target)
        raise InputError(
            f"no pose leads from {names}, since only one of them is left-handed; convert both "
            "frames, or take convert_matrix"
        )
    return Pose.from_matrix(convert_matrix(pose.matrix(), source, target))


def pose_between(source: Frame, target: Frame) -> Pose:
    """Return `change_of_axes` as a pose, for what takes one, such as `Gaussians.placed`.

    Raises InputError where one of them is left-handed.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = change_of_axes(source, target)
    if np.linalg.det(matrix) < 0:
        raise InputError(
            f"no rotation leads from {source.name} to {target.name}: one of them is left-handed; "
            "convert_points does it for points"
        )
    return Pose.from_matrix(matrix)


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


def _quaternion(rotation: ArrayLike) -> Rotation:
    return Rotation.from_quat(rotation, scalar_first=True)


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
