"""Sphere tracing of distance grids, batched over rays and over objects in scenes.

Every object of every scene is traced alone, over the rays that meet its cube; the nearest hit
wins. Rays are in the camera frame with z = 1, so that their parameter is the depth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.objects import HALF, Objects

STEPS = 48
SHADOW_STEPS = 20
BISECTIONS = 4


class Atlas:
    """The grids of all objects in a batch of scenes, one above the other in one volume."""

    def __init__(self, objects: Objects, ids: Tensor):
        shape = ids.shape  # (B, K)
        self.count = ids.numel()
        self.size = objects.sdf.shape[-1]
        self.step = objects.step
        flat = ids.reshape(-1)
        self.sdf = objects.sdf[flat, 0].float().view(1, 1, -1, self.size, self.size)
        self.color, self.ids = objects.color, flat
        self.slots = torch.arange(self.count, device=ids.device).view(shape)

    def distance(self, slot: Tensor, points: Tensor) -> Tensor:
        """Return distances (P,) of points (P, 3), object frame, from objects slot (P,)."""
        inside = points.clamp(-HALF, HALF)
        beyond = (points - inside).square().sum(-1).sqrt()
        return self._read(self.sdf, self.size, slot, inside)[0] + beyond

    def albedo(self, slot: Tensor, points: Tensor) -> Tensor:
        """Return sRGB (P, 3) in [0, 1] at the nearest nodes, which keeps colors apart."""
        size = self.color.shape[-1]
        at = (points.clamp(-HALF, HALF) / (2 * HALF) + 0.5) * (size - 1)
        x, y, z = (at + 0.5).long().unbind(-1)
        return self.color[self.ids[slot], :, z, y, x].float() / 255

    def _read(self, volume: Tensor, size: int, slot: Tensor, points: Tensor) -> Tensor:
        """Trilinear values (C, P) at points (P, 3) inside of the cubes slot (P,)."""
        last = float(self.count * size - 1)
        z = slot * size + (points[:, 2] / (2 * HALF) + 0.5) * (size - 1)
        grid = torch.stack([points[:, 0] / HALF, points[:, 1] / HALF, z * (2 / last) - 1], -1)
        value = F.grid_sample(
            volume, grid.view(1, 1, 1, -1, 3), align_corners=True, padding_mode="border"
        )
        return value[0, :, 0, 0]


def meet_cubes(
    origin: Tensor,  # (B, K, 1 or R, 3), object frames
    way: Tensor,  # (B, K, R, 3)
    half: Tensor,  # (B, K, 1, 3), half sides
) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave boxes, both (B, K, R); enter >= leave is a miss."""
    inverse = 1 / torch.where(way.abs() < 1e-9, 1e-9, way)
    near, far = (-half - origin) * inverse, (half - origin) * inverse
    enter = torch.minimum(near, far).amax(-1)
    leave = torch.maximum(near, far).amin(-1)
    return enter.clamp_min(1e-3), leave


def trace(
    atlas: Atlas,
    origin: Tensor,  # (B, K, 3), the camera in the object frames
    inverse: Tensor,  # (B, K, 3, 3), camera directions to object directions
    extent: Tensor,  # (B, K, 3), half sides of the objects' boxes
    present: Tensor,  # (B, K) bool
    rays: Tensor,  # (B, R, 3)
) -> Tensor:
    """Return the depth (B, K, R) at which rays meet each object, inf where they do not."""
    way = torch.einsum("bkij,brj->bkri", inverse, rays)
    margin = extent[:, :, None] + atlas.step
    enter, leave = meet_cubes(origin[:, :, None], way, margin)
    candidate = (enter < leave) & present[:, :, None]
    b, k, r = candidate.nonzero(as_tuple=True)  # waits for the device, once
    slot, at, direction = atlas.slots[b, k], origin[b, k], way[b, k, r]
    found = march(atlas, slot, at, direction, enter[b, k, r], leave[b, k, r])
    depth = torch.full_like(enter, torch.inf)
    depth[b, k, r] = found
    return depth


def march(
    atlas: Atlas, slot: Tensor, origin: Tensor, way: Tensor, enter: Tensor, leave: Tensor
) -> Tensor:
    """Return the parameter (P,) of the first surface along rays (P, 3), inf for none."""
    speed = way.square().sum(-1).sqrt()
    small = 0.02 * atlas.step
    t, before = enter, enter
    done = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(STEPS):
        d = atlas.distance(slot, origin + t[:, None] * way)
        done = done | (d < 0)
        ahead = t + (d.clamp_min(small) + 0.01 * atlas.step) / speed
        before = torch.where(done, before, t)
        t = torch.where(done, t, torch.minimum(ahead, leave + 1e-4))
    d = atlas.distance(slot, origin + t[:, None] * way)
    hit = (d < 0.25 * atlas.step) & (t < leave)
    low, high = before, t
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = atlas.distance(slot, origin + middle[:, None] * way) < 0
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    return torch.where(hit, high, torch.inf)


def visibility(
    atlas: Atlas,
    slot: Tensor,
    origin: Tensor,
    way: Tensor,
    enter: Tensor,
    leave: Tensor,
    soft: Tensor,
) -> Tensor:
    """Return how much light (P,), 0 to 1, passes objects along rays; soft: 1 / penumbra's size."""
    speed = way.square().sum(-1).sqrt()
    t, light = enter, torch.ones_like(enter)
    for _ in range(SHADOW_STEPS):
        d = atlas.distance(slot, origin + t[:, None] * way)
        open = (soft * d / (speed * t).clamp_min(1e-3)).clamp(0, 1)
        light = torch.where(t < leave, torch.minimum(light, open), light)
        t = t + d.clamp_min(1.5 * atlas.step) / speed
    return light * light * (3 - 2 * light)


def gradient(atlas: Atlas, slot: Tensor, points: Tensor) -> Tensor:
    """Return the unit normal (P, 3) in the object frame, by a tetrahedron of four samples."""
    e = 0.6 * atlas.step
    total = torch.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        way = points.new_tensor(corner) * e
        total += way * atlas.distance(slot, points + way)[:, None]
    return F.normalize(total, dim=-1)
