"""Stage 1: layout latents to the pose of the object, and what a pose does to points and gaussians.

Inside `model/` poses follow the published row-vector convention,
p_camera = (scale ∘ p_local) · R(rotation) + translation, where R is the usual matrix of the
quaternion for column vectors. The local frame is z up; the camera frame is x left, y up,
z forward. `camera_pose` translates to the frames of the rest of the package.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import LayoutConfig
from sam3d_nb.model.constants import constant
from sam3d_nb.model.preprocess import Moments
from sam3d_nb.model.sampler import Latents, check_finite

KERNEL_MARGIN = 1.1  # placed extents stay above this many minimum kernel sizes

CAMERA_TO_OPENCV = (0.0, 0.0, 0.0, 1.0)  # half a turn about z: (x, y, z) → (-x, -y, z)
MESH_TO_LOCAL = (0.5**0.5, 0.5**0.5, 0.0, 0.0)  # quarter turn about x: (x, y, z) → (x, -z, y)


@dataclass(frozen=True)
class Layout:
    """Pose of objects in the published camera frame, row-vector convention."""

    rotation: Tensor  # (B, 4) unit quaternions (w, x, y, z), w >= 0
    translation: Tensor  # (B, 3), in the unit of the point map
    scale: Tensor  # (B, 3), three equal numbers


def decode_layout(
    latents: Latents,
    moments: Moments | None = None,
    factor: float = 1,
    config: LayoutConfig | None = None,
) -> Layout:
    """Turn the layout latents (B, 1, channels) into a pose.

    `moments` are those of the point map; without them the pose stays in normalized units.
    `factor` is that of the voxels (`Voxels.factor`). Raises `InputError` for missing latents,
    wrong shapes, or values that are not finite.
    """
    config = config or LayoutConfig()
    used = {"6drotation_normalized": 6, "translation": 3, "scale": 3}
    for name, channels in used.items():
        if name not in latents or tuple(latents[name].shape[1:]) != (1, channels):
            got = tuple(latents[name].shape) if name in latents else "none"
            raise InputError(f"latent {name!r} must be (B, 1, {channels}), got {got}")
    check_finite({name: latents[name] for name in used})
    rotation, translation, scale = (latents[name][:, 0].float() for name in used)
    mean, std = rotation.new_tensor(config.rotation_mean), rotation.new_tensor(config.rotation_std)
    quaternion = quaternion_from_matrix(matrix_from_six(rotation * std + mean))
    scale = scale.exp()
    if moments is not None:
        unit, shift = moments.scale.to(scale), moments.shift.to(scale)  # (3,) each
        scale, translation = scale * unit, translation * unit + shift
    scale = scale.mean(-1, keepdim=True).expand(-1, 3) * factor
    return Layout(quaternion, translation, scale)


def matrix_from_six(six: Tensor) -> Tensor:
    """Orthonormalize two columns (..., 6) into a rotation matrix (..., 3, 3)."""
    first, second = six[..., :3], six[..., 3:]
    x = F.normalize(first, dim=-1)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


# --- Quaternions (w, x, y, z) ---------------------------------------------------------------


def matrix_from_quaternion(q: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3), for column vectors, of quaternions (..., 4).

    Quaternions need not have length one.
    """
    w, x, y, z = F.normalize(q, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """Return unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3).

    Of the four ways to start, the one with the largest divisor is taken (Shepperd).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrix.unbind(-2))
    # row i holds 4 · q_i · (w, x, y, z)
    products = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
            torch.stack([zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx], -1),
            torch.stack([xz - zx, yx + xy, 1 - xx + yy - zz, yz + zy], -1),
            torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], -1),
        ],
        -2,
    )  # (..., 4, 4)
    best = products.diagonal(dim1=-2, dim2=-1).argmax(-1)  # (...)
    row = products.take_along_dim(best[..., None, None], -2).squeeze(-2)  # (..., 4)
    return standardize(F.normalize(row, dim=-1))


def standardize(q: Tensor) -> Tensor:
    """Flip the sign of quaternions (..., 4) where w is negative: the same rotation."""
    return torch.where(q[..., :1] < 0, -q, q)


def conjugate(q: Tensor) -> Tensor:
    """Return the inverse of unit quaternions (..., 4)."""
    return q * constant((1, -1, -1, -1), q.device, q.dtype)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the quaternion product a ⊗ b, (..., 4): first b, then a, on column vectors."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


# --- Placement ------------------------------------------------------------------------------


class Posed(NamedTuple):
    """Activated values of gaussians."""

    centers: Tensor  # (N, 3)
    orientations: Tensor  # (N, 4) unit quaternions
    extents: Tensor  # (N, 3) standard deviations, the minimum kernel included
    kernel: float  # minimum kernel size


def single_scale(layout: Layout) -> float:
    """Return the one scale of a layout of one object; raise `InputError` where axes differ."""
    if layout.scale.shape[0] != 1:
        raise InputError(f"placement takes one object, got {layout.scale.shape[0]} poses")
    values = layout.scale[0].tolist()
    if max(values) - min(values) > 1e-6 * max(values) or min(values) <= 0:
        raise InputError(f"a pose needs one positive scale on all axes, got {values}")
    return values[0]


def place_points(points: Tensor, layout: Layout) -> Tensor:
    """Carry local points (N, 3) into the published camera frame, (N, 3)."""
    rotation = matrix_from_quaternion(layout.rotation[0])
    return (points * layout.scale[0]) @ rotation + layout.translation[0]


def place_gaussians(local: Posed, layout: Layout) -> Posed:
    """Carry gaussians of one object from its local frame into the published camera frame."""
    scale = single_scale(layout)
    kernel = local.kernel * scale
    return Posed(
        place_points(local.centers, layout),
        standardize(multiply(conjugate(layout.rotation), local.orientations)),
        (local.extents * scale).clamp_min(KERNEL_MARGIN * kernel),
        kernel,
    )


def camera_pose(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Return quaternion (B, 4), translation (B, 3) and scale (B, 3) for mesh coordinates.

    p_opencv = R(quaternion) (scale ∘ p_mesh) + translation on column vectors, with p_mesh in the
    y-up frame of the GLB file and the camera looking along +z, x right, y down.
    """
    q = layout.rotation
    turned = multiply(q.new_tensor(CAMERA_TO_OPENCV), conjugate(q))
    quaternion = standardize(multiply(turned, q.new_tensor(MESH_TO_LOCAL)))
    flip = q.new_tensor([-1, -1, 1])
    return quaternion, layout.translation * flip, layout.scale
