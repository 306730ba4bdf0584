"""Camera of a point map: focal length and depth shift by least squares, and intrinsics.

Wang et al. 2024, MoGe (https://arxiv.org/abs/2410.19115). Points are in the OpenCV frame. A focal
length is relative to half the image diagonal; arithmetic is float64 on the CPU.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam3d_nb.errors import InputError

CPU = torch.device("cpu")
SAMPLES = 64  # per axis, whatever the aspect
FTOL = 1e-3  # the released solver stops this early


def uv_map(rows: int, columns: int, aspect: float, like: Tensor) -> Tensor:
    """Return the pixel centers of a view plane whose half-diagonal is 1: (rows, columns, 2).

    u first, positive to the right; v positive down; `aspect` width / height of the plane; dtype and
    device as `like`.
    """
    axes = _uv_axes if torch.compiler.is_compiling() else _kept_axes
    u, v = axes(rows, columns, aspect, like.device, like.dtype)
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)  # (rows, columns, 2)


def recover_focal_shift(
    points: Tensor, valid: Tensor, focal: float | None = None
) -> tuple[float, float]:
    """Fit focal length f and depth shift s so that f (x, y) / (z + s) is each pixel's place.

    `points` (H, W, 3); `valid` bool (H, W), pixels that take part; a given `focal` is kept and s
    alone fitted. Returns (f, s); with fewer than two samples (1 or the given focal, 0). Raises
    `InputError` for points that fix no camera, such as those of depth 0.
    """
    if points.ndim != 3 or points.shape[2] != 3 or valid.shape != points.shape[:2]:
        raise InputError(
            f"point map of shape {tuple(points.shape)} and valid mask of shape "
            f"{tuple(valid.shape)} must be (H, W, 3) and (H, W)"
        )
    from scipy.optimize import least_squares  # slow to import, so not before it is needed

    xy, z, uv = _samples(points, valid)
    if len(z) < 2:
        return (1.0 if focal is None else focal), 0.0
    if not (z != 0).all() or (focal is None and not xy.any()):
        raise InputError(
            f"point map: {int((z == 0).sum())} of {len(z)} sampled points have depth 0, or all lie "
            "on the optical axis; mark unknown points as NaN"
        )

    def residuals(shift: np.ndarray) -> np.ndarray:
        scale = _best_focal(xy, z, uv, shift) if focal is None else focal
        return (scale * xy / (z + shift)[:, None] - uv).ravel()

    with np.errstate(divide="ignore", invalid="ignore"):  # a step may meet a pole, then turns back
        fit = least_squares(residuals, x0=np.zeros(1), method="lm", ftol=FTOL)
        shift = float(np.float32(fit.x[0]))
        best = float(_best_focal(xy, z, uv, shift)) if focal is None else focal
    if not math.isfinite(best) or not math.isfinite(shift):
        raise InputError(
            f"point map: its {len(z)} sampled points fix no camera (focal {best}, shift {shift}); "
            "check its frame and unit"
        )
    return best, shift


def recover_focal(points: Tensor, valid: Tensor) -> float:
    """Fit focal length f alone so that f (x, y) / z is each pixel's place.

    `points` (H, W, 3); `valid` bool (H, W). Returns 1 with fewer than two samples. Raises
    `InputError` for points that fix no camera.
    """
    xy, z, uv = _samples(points, valid)
    if len(z) < 2:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        focal = float(_best_focal(xy, z, uv, 0.0))
    if not (math.isfinite(focal) and focal > 0):
        raise InputError(f"point map: its {len(z)} sampled points fix no camera (focal {focal})")
    return focal


def intrinsics_matrix(focal: float, aspect: float) -> Tensor:
    """Return the camera matrix (3, 3) float32, normalized by image width and height, OpenCV style.

    `aspect` = width / height; pixels are square and the center is (0.5, 0.5).
    """
    fy = focal / 2 * math.hypot(1, aspect)
    rows = [[fy / aspect, 0, 0.5], [0, fy, 0.5], [0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


def fit_intrinsics(points: Tensor) -> Tensor:
    """Return the normalized camera matrix (3, 3) of a point map (H, W, 3), OpenCV frame.

    Points that are not finite are left out. The map may lack a constant depth shift, which is
    fitted too. Raises `InputError` as `recover_focal_shift`.
    """
    focal, _ = recover_focal_shift(points, points.isfinite().all(dim=-1))
    return intrinsics_matrix(focal, points.shape[1] / points.shape[0])


def _best_focal(xy: np.ndarray, z: np.ndarray, uv: np.ndarray, shift: np.ndarray | float) -> float:
    """Return the focal length that fits best at a given shift, in closed form."""
    q = xy / (z + shift)[:, None]
    return (q * uv).sum() / np.square(q).sum()


def _samples(points: Tensor, valid: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample a 64 x 64 grid by plain nearest: xy (K, 2), z (K,), uv (K, 2) of the valid samples."""
    height, width = valid.shape
    rows, columns = (
        F.interpolate(_count(n)[None, None], SAMPLES, mode="nearest")[0, 0].long()
        for n in (height, width)
    )
    u, v = _uv_axes(height, width, width / height)
    uv = torch.stack(torch.meshgrid(u[columns], v[rows], indexing="xy"), dim=-1)  # (64, 64, 2)
    there = rows.to(points.device)[:, None], columns.to(points.device)  # (64, 1), (64,)
    sampled, used = points[there].float().cpu(), valid[there].cpu()  # (64, 64, 3), (64, 64)
    used = used & sampled.isfinite().all(dim=-1)
    p, uv = sampled[used].double(), uv[used].double()  # (K, 3), (K, 2)
    return p[:, :2].numpy(), p[:, 2].numpy(), uv.numpy()


@lru_cache(maxsize=64)
def _kept_axes(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return what `_uv_axes` does, kept: photos often have the size of the one before."""
    with torch.inference_mode(False):  # else no gradient could ever go through their products
        return _uv_axes(*arguments)


def _uv_axes(
    rows: int,
    columns: int,
    aspect: float,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return u of every column (columns,) and v of every row (rows,), worked out on the CPU."""
    diagonal = math.hypot(1, aspect)
    u, v = (
        half * (2 * _count(n) + 1 - n) / n
        for half, n in ((aspect / diagonal, columns), (1 / diagonal, rows))
    )
    return u.to(device, dtype), v.to(device, dtype)


def _count(n: int) -> Tensor:
    """Return 0 … n - 1 as float32 on the CPU, whatever the default device."""
    return torch.arange(n, dtype=torch.float32, device="cpu")
