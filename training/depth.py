"""The depth network: what it sees, and what its training minimizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sam3d_nb.model.constants import constant
from training.loop import Losses

if TYPE_CHECKING:
    from training.samples import Samples


def looked(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the depth network sees in square photos (B, 3, S, S), 0 to 255, float32.

    The slopes of the rays (B, 2, S, S), x / z and y / z; log depth (B, S, S); mask (B, S, S),
    above 0.5 where there is a depth.
    """
    normal = (image.float() / 255 - network.image_mean) / network.image_std
    maps = network.backbone.feature_maps(normal, network.taken_blocks)
    with torch.autocast(image.device.type, enabled=False):  # relief is a few percent of the depth
        raw, mask = network.head([x.float() for x in maps], tuple(image.shape[-2:]))
    return raw[:, :2], raw[:, 2], mask[:, 0]


def focal_of(slopes: Tensor, valid: Tensor) -> Tensor:
    """Return the focal lengths (B,) in pixels that fit slopes (B, 2, S, S) best where `valid`.

    As `model.focal` has it without a shift; the optical axis meets the middle.
    """
    size = slopes.shape[-1]
    from_middle = torch.arange(size, device=slopes.device) + 0.5 - size / 2
    v, u = torch.meshgrid(from_middle, from_middle, indexing="ij")
    place = torch.stack([u, v])  # (2, S, S)
    used = slopes * valid[:, None]
    square = used.square().sum((1, 2, 3)).clamp_min(1e-6)
    return ((used * place).sum((1, 2, 3)) / square).clamp(0.2 * size, 10 * size)


def moge(network: nn.Module, samples: Samples, batch: int) -> Callable[[int], Losses]:
    """Log depth up to one factor a photo, directions of the rays, and where there is a depth."""
    pool = samples.pool

    def losses(step: int) -> Losses:
        rows = torch.randint(len(samples), (batch,), device=pool.object.device)
        points = pool.full_points[rows].float() + pool.center[rows, :, None, None]
        mirrored = torch.rand(batch, 1, 1, 1, device=points.device) < 0.5
        points = torch.where(
            mirrored,
            points.flip(3) * constant((-1.0, 1.0, 1.0), points.device)[:, None, None],
            points,
        )
        known = points.isfinite().all(1)  # (B, S, S)
        points = points.where(known[:, None], 1.0)
        image = pool.full_image[rows]
        image = torch.where(mirrored, image.flip(3), image)
        slopes, log_z, mask = looked(network, toned(image))
        on_object = pool.full_mask[rows]
        on_object = torch.where(mirrored[:, 0], on_object.flip(2), on_object) & known
        weight = known.float() + 3 * on_object
        total = weight.sum((1, 2)).clamp_min(1)
        error = log_z - points[:, 2].clamp_min(1e-3).log()
        shift = (error * weight).sum((1, 2)) / total
        depth = ((error - shift[:, None, None]).abs() * weight).sum((1, 2)) / total
        rays = points[:, :2] / points[:, 2:].clamp_min(1e-3)
        ray = ((slopes - rays).abs().sum(1) * weight).sum((1, 2)) / total
        focal = (focal_of(slopes, known) / pool.full_intrinsics[rows, 0, 0]).log()
        own = relief_error(error, on_object, samples.views.side[rows], points[:, 2])
        return {
            "depth": depth.mean(),
            "own": own.clamp_max(1).mean(),
            "rays": ray.mean(),
            "focal": focal.abs().mean() * 0.3,
            "slope": _slopes(error, known) * 2,
            "scale": shift.square().mean() * 0.01,
            "mask": (mask - known.float()).square().mean() * 0.2,
        }

    return losses


def toned(image: Tensor) -> Tensor:
    """Return photos (B, 3, S, S) uint8 as float32 from 0 to 255, of other brightness and tint."""
    count, device = len(image), image.device
    power = (torch.randn(count, 1, 1, 1, device=device) * 0.25).exp()
    gain = (torch.randn(count, 3, 1, 1, device=device) * 0.06).exp()
    return ((image.float() / 255) ** power * gain).clamp(0, 1) * 255


def relief_error(error: Tensor, on_object: Tensor, side: Tensor, depth: Tensor) -> Tensor:
    """Return the mean error (B,) of an object's depth up to a factor, in sides of its view cube.

    error: (B, S, S), of log depth; on_object: (B, S, S) bool; side: (B,); depth: (B, S, S), true.
    """
    inside = on_object.float()
    count = inside.sum((1, 2)).clamp_min(1)
    middle = (error * inside).sum((1, 2)) / count
    distance = (depth * inside).sum((1, 2)) / count
    off = ((error - middle[:, None, None]).abs() * inside).sum((1, 2)) / count
    return off * distance / side


def _slopes(error: Tensor, known: Tensor) -> Tensor:
    """Return the mean absolute difference of an error between neighboring pixels."""
    right = known[:, :, 1:] & known[:, :, :-1]
    down = known[:, 1:] & known[:, :-1]
    across = (error[:, :, 1:] - error[:, :, :-1]).abs().clamp_max(0.2) * right
    along = (error[:, 1:] - error[:, :-1]).abs().clamp_max(0.2) * down
    return (across.sum() + along.sum()) / (right.sum() + down.sum()).clamp_min(1)
