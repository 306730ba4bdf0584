"""A pool of rendered photos as the networks meet it: inputs, layouts, distances and colors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sam3d_nb.model.constants import constant
from training.estimates import Estimates
from training.targets import OPENCV_TO_CAMERA, Layouts, Views

if TYPE_CHECKING:
    from training.data.objects import Objects
    from training.data.pool import Pool

# given point maps are exact, estimated ones are not; in units of the object
POINT_NOISE = 0.02
DEPTH_NOISE = 0.1  # smooth, across the photo


class Samples:
    """A pool on the device with its targets, and batches of network inputs out of it."""

    def __init__(self, pool: Pool, objects: Objects, views: Views, layout: Layouts) -> None:
        self.pool, self.objects, self.views, self.layout = pool, objects, views, layout
        self.estimates: Estimates | None = None  # point maps of the depth network, see `use`
        self.share = 0.0

    def use(self, estimates: Estimates, share: float) -> None:
        """Let `pick` choose the point maps of the depth network for a share of all samples."""
        self.estimates, self.share = estimates, share

    def pick(self, rows: Tensor) -> Tensor:
        """Return which of samples `rows` (B,) come with an estimated point map, (B,) bool."""
        if self.estimates is None:
            return torch.zeros_like(rows, dtype=torch.bool)
        chance = torch.rand(len(rows), device=rows.device) < self.share
        return chance & self.estimates.usable[rows]

    def layouts(self, rows: Tensor, estimated: Tensor | None = None) -> dict[str, Tensor]:
        """Return the layout latents (B, 1, channels) that go with `inputs`."""
        true = {name: value[rows] for name, value in self.layout.latents.items()}
        if self.estimates is None or estimated is None:
            return true
        theirs, choice = self.estimates.layout.latents, estimated[:, None, None]
        return {name: torch.where(choice, theirs[name][rows], true[name]) for name in true}

    def __len__(self) -> int:
        return len(self.pool.object)

    def distance(self, views: Views) -> Callable[[Tensor], Tensor]:
        """Return `Views.distance` as a function of points alone."""
        return lambda points: views.distance(self.objects, points)

    def color(self, views: Views) -> Callable[[Tensor], Tensor]:
        """Return `Views.color` as a function of points alone."""
        return lambda points: views.color(self.pool, self.objects, points)

    def inputs(
        self, rows: Tensor, estimated: Tensor | None = None, *, noisy: bool = True
    ) -> dict[str, Tensor]:
        """Return the condition inputs of samples `rows` (B,), as `ConditionInputs.tensors`.

        estimated: (B,) bool, which have the point map of the depth network; the true ones are
        `noisy`.
        """
        pool = self.pool
        points = _in_units(
            pool.points[rows].float() + pool.center[rows, :, None, None], self.layout, rows
        )
        if noisy:
            points = points + _point_noise(points)
        if self.estimates is not None and estimated is not None:
            theirs = _in_units(self.estimates.points(rows), self.estimates.layout, rows)
            points = torch.where(estimated[:, None, None, None], theirs, points)
        points = points.where(pool.photo[rows][:, None], 0.0)  # as the package pads crops
        return {
            "image": pool.image[rows].float() / 255,
            "rgb_image": pool.full_image[rows].float() / 255,
            "mask": pool.mask[rows][:, None].float(),
            "pointmap": points,
        }


def _in_units(points: Tensor, layout: Layouts, rows: Tensor) -> Tensor:
    """Bring points (B, 3, S, S), OpenCV, to the network's frame and units."""
    flip = constant(OPENCV_TO_CAMERA, points.device)[:, None, None]
    shift, unit = layout.shift[rows], layout.unit[rows]
    return (points * flip - shift[:, :, None, None]) / unit[:, None, None, None]


def _point_noise(points: Tensor) -> Tensor:
    """Return what estimated point maps (B, 3, S, S), z forward, may be off by; little in most."""
    count, device = len(points), points.device
    single = torch.rand(count, 1, 1, 1, device=device) ** 2 * POINT_NOISE
    noise = single * points * torch.randn_like(points[:, :1])
    smooth = torch.rand(count, 1, 1, 1, device=device) ** 3 * DEPTH_NOISE
    bumps = torch.randn(count, 1, 5, 5, device=device)
    bumps = F.interpolate(bumps, size=points.shape[2:], mode="bicubic", align_corners=True)
    return noise + smooth * bumps * constant((0.0, 0.0, 1.0), points.device)[:, None, None]
