"""Point maps as the depth network sees the photos of a pool, and the layouts that go with them.

Who has no point map meets these. The network's focal length differs from the true one, and its
depth by a factor: an object is then where it covers the same pixels, at the depth that the network
gives to its visible surface. Its shape stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.pool import Pool
from training.data.render import pixel_rays
from training.depth import focal_of, looked
from training.targets import Layouts, Views, layouts_of, opencv_center

LEAST_SEEN = 8
"""Pixels of an object with a depth, below which its own estimate says nothing."""


@dataclass(frozen=True)
class Estimates:
    """What the depth network says of N samples, and their layouts in its cameras."""

    log_depth: Tensor  # (N, S, S) float16, of the crops, less `level`; NaN where unknown
    level: Tensor  # (N,)
    intrinsics: Tensor  # (N, 3, 3) of the crops
    usable: Tensor  # (N,) bool
    layout: Layouts

    def points(self, rows: Tensor) -> Tensor:
        """Return the point maps (B, 3, S, S) of the crops of samples `rows`, OpenCV."""
        depth = (self.log_depth[rows].float() + self.level[rows, None, None]).exp()
        return _unprojected(depth, self.intrinsics[rows])


@torch.no_grad()
def estimate(network: nn.Module, pool: Pool, views: Views, batch: int = 512) -> Estimates:
    """Look at all photos of a pool with the depth network."""
    device = pool.object.device
    found = [
        _estimated(network, pool, views, rows)
        for rows in torch.arange(len(pool), device=device).split(batch)
    ]
    return Estimates(
        *(
            torch.cat([getattr(part, name) for part in found])
            for name in ("log_depth", "level", "intrinsics", "usable")
        ),
        Layouts.joined([part.layout for part in found]),
    )


def _estimated(network: nn.Module, pool: Pool, views: Views, rows: Tensor) -> Estimates:
    with torch.autocast("cuda", torch.bfloat16, enabled=rows.is_cuda):
        slopes, log_z, mask = looked(network, pool.full_image[rows])
    known = mask > 0.5
    true_focal = pool.full_intrinsics[rows, 0, 0]
    gain = focal_of(slopes, known) / true_focal  # estimated / true
    place = _in_full(pool, rows)  # (B, S, S, 2) in -1 ... 1
    log_depth = F.grid_sample(log_z[:, None], place, align_corners=False, padding_mode="border")
    there = F.grid_sample(known[:, None].float(), place, align_corners=False)
    log_depth = log_depth[:, 0].masked_fill(there[:, 0] < 0.5, torch.nan)
    intrinsics = pool.intrinsics[rows].clone()
    intrinsics[:, 0, 0] *= gain
    intrinsics[:, 1, 1] *= gain

    on_object = pool.mask[rows]
    true_z = pool.points[rows, 2].float() + pool.center[rows, 2, None, None]
    log_ratio = (log_depth - true_z.log()).masked_fill(~on_object, torch.nan).flatten(1)
    usable = log_ratio.isfinite().sum(1) >= LEAST_SEEN
    ratio = log_ratio.nanmedian(1).values.nan_to_num().exp()  # estimated / true depth
    seen = true_z.masked_fill(~on_object, torch.nan).flatten(1).nanmedian(1).values
    center = _moved(opencv_center(views[rows]), seen, ratio, gain)
    side = views.side[rows] * ratio / gain
    points = _unprojected(log_depth.exp(), intrinsics)
    layout = layouts_of(points, on_object, center, side, pool.up[rows])
    level = log_depth.flatten(1).nanmedian(1).values.nan_to_num()
    offset = (log_depth - level[:, None, None]).half()
    return Estimates(offset, level, intrinsics, usable, layout)


def _moved(center: Tensor, seen: Tensor, ratio: Tensor, gain: Tensor) -> Tensor:
    """Return centers (B, 3) in the estimated camera: on the same pixels, behind what is seen.

    seen: (B,) true depth of the visible surface; ratio, gain: (B,) estimated / true, of depth and
    focal length. Lengths across are ratio / gain times as long, and so is the object.
    """
    depth = ratio * seen + ratio / gain * (center[:, 2] - seen)
    across = center[:, :2] / center[:, 2:] * (depth / gain)[:, None]
    return torch.cat([across, depth[:, None]], 1)


def _in_full(pool: Pool, rows: Tensor) -> Tensor:
    """Return where the pixels of crops lie in the square photos (B, S, S, 2), from -1 to 1."""
    size = pool.image.shape[-1]
    rays = pixel_rays(pool.intrinsics[rows], size)[..., :2]  # (B, S², 2)
    full = pool.full_intrinsics[rows]
    focal = torch.stack([full[:, 0, 0], full[:, 1, 1]], 1)[:, None]
    pixels = rays * focal + full[:, None, :2, 2]
    return (pixels * 2 / size - 1).unflatten(1, (size, size))


def _unprojected(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Return points (B, 3, S, S) at `depth` (B, S, S) along the rays of the pixels."""
    size = depth.shape[-1]
    rays = pixel_rays(intrinsics, size).mT.unflatten(2, (size, size))
    return rays * depth[:, None]
