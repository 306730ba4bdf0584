"""Where a picture is taken from: the photo's own camera, or one that orbits an object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sam3d_nb.errors import InputError

LARGEST_SIDE = 1 << 16


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole or orthographic camera with a picture of `height` by `width` pixels.

    intrinsics: K (3, 3) in pixels, last row (0, 0, 1). An orthographic camera projects
    (x, y, z) to K (x, y, 1), so that K's diagonal holds pixels a unit. rotation (3, 3) and
    translation (3,): p_camera = rotation p + translation, with x right, y down, z forward.

    Raises InputError for a size, K or pose that is no camera.
    """

    height: int
    width: int
    intrinsics: np.ndarray
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))
    orthographic: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.height <= LARGEST_SIDE and 1 <= self.width <= LARGEST_SIDE):
            raise InputError(
                f"a picture has 1 to {LARGEST_SIDE} pixels a side but {self.height} x {self.width}"
                " were asked for"
            )
        for name, shape in (("intrinsics", (3, 3)), ("rotation", (3, 3)), ("translation", (3,))):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise InputError(f"a camera's {name} are {shape} finite numbers but got {value}")
            object.__setattr__(self, name, value)
        focal = self.intrinsics[0, 0], self.intrinsics[1, 1]
        if min(focal) <= 0 or not np.allclose(self.intrinsics[2], (0, 0, 1)):
            raise InputError(
                "intrinsics are [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels with positive"
                f" focal lengths but got {self.intrinsics.tolist()}"
            )

    def corners(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """Return the triangles' projective screen corners (F, 3, 4) in float64.

        vertices: (V, 3) in the world; faces: (F, 3). The last axis is (X, Y, W, Q), linear in
        space: pixel position (X / W, Y / W), and Q / W, which grows with depth and is linear on
        the screen. Points behind a pinhole camera have W <= 0.
        """
        points = self.to_camera(vertices)  # (V, 3)
        k = torch.as_tensor(self.intrinsics, dtype=torch.float64, device=points.device)
        one = torch.ones_like(points[:, 2:])
        if self.orthographic:
            plane = torch.cat([points[:, :2], one], 1)
            screen = torch.cat([plane @ k.T, points[:, 2:]], 1)  # (V, 4)
        else:
            screen = torch.cat([points @ k.T, -one], 1)  # (V, 4)
        return screen[faces]

    def to_camera(self, vertices: Tensor) -> Tensor:
        """Return world `vertices` (V, 3) in the camera frame, (V, 3) float64."""
        rotation = torch.as_tensor(self.rotation, dtype=torch.float64, device=vertices.device)
        shift = torch.as_tensor(self.translation, dtype=torch.float64, device=vertices.device)
        return vertices.to(torch.float64) @ rotation.T + shift

    @property
    def position(self) -> np.ndarray:
        """Where a pinhole camera stands in the world, (3,)."""
        return -self.rotation.T @ self.translation


def orbit_camera(
    center: ArrayLike,
    radius: float,
    azimuth: float = 0.0,
    elevation: float = 0.0,
    *,
    size: int | tuple[int, int] = 512,
    field_of_view: float = 30.0,
    orthographic: bool = False,
) -> Camera:
    """Return a camera that looks at a ball in a Y-up world and just holds it in the picture.

    center: (3,), radius: of the ball. azimuth, elevation: degrees; 0, 0 looks from +z along -z,
    azimuth 90 from +x, elevation 90 from above. size: pixels, a side or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    center, radius = np.asarray(center, dtype=np.float64), max(float(radius), 1e-12)
    a, e = np.radians(azimuth), np.radians(elevation)
    backward = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0, -np.sin(a)])
    rotation = np.stack([right, np.cross(right, backward), -backward])  # x right, y down, z away
    half, half_angle = min(height, width) / 2, np.radians(field_of_view) / 2
    distance = radius / np.sin(half_angle)
    focal = half / radius if orthographic else half / np.tan(half_angle)
    return Camera(
        height,
        width,
        np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
        rotation,
        -rotation @ (center + distance * backward),
        orthographic,
    )
