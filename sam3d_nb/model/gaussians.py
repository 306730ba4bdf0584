"""A set of 3D gaussians: the raw values that the decoder gives, and what they stand for.

Raw values are what the network learns and what goes through no clamp; activated values are what a
renderer or a file needs. The frame is that of the voxels, z up, the object inside [-0.5, 0.5]^3,
until a pose moves the set (`gaussian_scene`).
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import GaussianConfig
from sam3d_nb.model.constants import constant

SH_BAND_0 = 0.28209479177387814  # the constant spherical harmonic
CUBE_MIN = -0.5  # raw positions count from this corner of the unit cube

PLY_PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
"""Float properties of a vertex in the order of the usual 3D gaussian splatting file."""

RAW_WIDTHS = {"raw_xyz": 3, "raw_color": 3, "raw_scale": 3, "raw_rotation": 4, "raw_opacity": 1}


@dataclass(frozen=True, eq=False)
class GaussianSet:
    """K gaussians by their raw values, float32, rows in voxel order.

    Raises `InputError` where the tensors do not have K rows and the widths below.
    """

    raw_xyz: Tensor  # (K, 3), in the unit cube [0, 1]^3
    raw_color: Tensor  # (K, 3), coefficients of the constant spherical harmonic
    raw_scale: Tensor  # (K, 3)
    raw_rotation: Tensor  # (K, 4), added to the identity quaternion (w, x, y, z)
    raw_opacity: Tensor  # (K, 1)
    kernel_size: float = GaussianConfig.kernel_size  # smallest scale, same unit as `xyz`
    scale_bias: float = GaussianConfig.scale_bias  # scale of a raw value of 0, kernel aside
    opacity_bias: float = GaussianConfig.opacity_bias  # opacity of a raw value of 0

    def __post_init__(self) -> None:
        count = self.raw_xyz.shape[0]
        for name, width in RAW_WIDTHS.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (count, width):
                raise InputError(f"{name} of {count} gaussians must be {(count, width)}: {shape}")

    def __len__(self) -> int:
        return self.raw_xyz.shape[0]

    @property
    def xyz(self) -> Tensor:
        """Centers, (K, 3)."""
        return self.raw_xyz + CUBE_MIN

    @property
    def rgb(self) -> Tensor:
        """Colors, (K, 3); 0 to 1 for what a screen can show, and not clamped."""
        return 0.5 + SH_BAND_0 * self.raw_color

    @property
    def scale(self) -> Tensor:
        """Standard deviations along the gaussian's own axes, (K, 3), at least `kernel_size`."""
        learned = F.softplus(self.raw_scale + _inverse_softplus_of(self.scale_bias))
        return (learned.square() + self.kernel_size**2).sqrt()

    @property
    def rotation(self) -> Tensor:
        """Unit quaternions (w, x, y, z), (K, 4)."""
        return F.normalize(self._shifted_rotation, dim=-1)

    @property
    def opacity(self) -> Tensor:
        """Opacities in 0 to 1, (K, 1)."""
        return torch.sigmoid(self._opacity_logit)

    @property
    def _shifted_rotation(self) -> Tensor:
        return self.raw_rotation + _identity(self.raw_rotation)

    @property
    def _opacity_logit(self) -> Tensor:
        return self.raw_opacity + math.log(self.opacity_bias / (1 - self.opacity_bias))

    def to(self, device: torch.device | str) -> Self:
        """Return the set on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in RAW_WIDTHS})

    def with_activated(
        self, *, xyz: Tensor, scale: Tensor, kernel_size: float, rotation: Tensor | None = None
    ) -> Self:
        """Return the set with other centers, scales, smallest scale and, if given, rotations.

        They are written back through the inverse activations; a scale at or below `kernel_size`,
        which no raw value gives, becomes the next one that can be stored.
        """
        learned = (scale.square() - kernel_size**2).clamp_min(1e-14).sqrt()
        raw_rotation = self.raw_rotation
        if rotation is not None:
            raw_rotation = rotation - _identity(rotation)
        return replace(
            self,
            raw_xyz=xyz - CUBE_MIN,
            raw_scale=_inverse_softplus(learned) - _inverse_softplus_of(self.scale_bias),
            raw_rotation=raw_rotation,
            kernel_size=kernel_size,
        )

    def ply_table(self) -> Tensor:
        """Return the rows of a gaussian splatting file, (K, 17) float32, see `PLY_PROPERTIES`.

        Normals are zero, scales natural logarithms with the smallest kernel included, opacities
        logits, rotations not normalized; no change of axes.
        """
        columns = (
            self.xyz,
            torch.zeros_like(self.raw_xyz),
            self.raw_color,
            self._opacity_logit,
            self.scale.log(),
            self._shifted_rotation,
        )
        return torch.cat([column.float() for column in columns], dim=1)

    @classmethod
    def from_ply_table(
        cls,
        table: Tensor,  # (K, 17)
        kernel_size: float = GaussianConfig.kernel_size,
        scale_bias: float = GaussianConfig.scale_bias,
        opacity_bias: float = GaussianConfig.opacity_bias,
    ) -> Self:
        """Return the set whose `ply_table` is `table`.

        The file does not hold `kernel_size`: give that of the set that was written. Raises
        `InputError` for another shape.
        """
        if table.dim() != 2 or table.shape[1] != len(PLY_PROPERTIES):
            raise InputError(f"a gaussian table must be (K, 17), got {tuple(table.shape)}")
        xyz, _, color, opacity, scale, rotation = table.float().split([3, 3, 3, 1, 3, 4], dim=1)
        raw_opacity = opacity - math.log(opacity_bias / (1 - opacity_bias))
        biases = {"scale_bias": scale_bias, "opacity_bias": opacity_bias}
        unset = cls(xyz, color, scale, rotation, raw_opacity, **biases)
        return unset.with_activated(
            xyz=xyz, scale=scale.exp(), rotation=rotation, kernel_size=kernel_size
        )


def _identity(like: Tensor) -> Tensor:
    """Return the quaternion (w, x, y, z) of no rotation, (4,)."""
    return constant((1, 0, 0, 0), like.device, like.dtype)


def _inverse_softplus(y: Tensor) -> Tensor:
    """Return x with softplus(x) = y, for y > 0."""
    return y + (-torch.expm1(-y)).log()


def _inverse_softplus_of(y: float) -> float:
    return y + math.log(-math.expm1(-y))
