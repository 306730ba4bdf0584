"""Random scenes: which objects stand where, and what camera looks at them; batched.

Units: the target's longest side is 1 before its stretch; `unit` makes metres of it. Camera frame:
OpenCV. World axes: x right of the camera, y up, z towards it (all horizontal or vertical).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.objects import Objects

CANDIDATES = 6
OBJECTS = 4
"""The target and up to three others."""
STANDING, TRUNCATED = 0.85, 0.12
PITCH, WIDE_PITCH = (5.0, 35.0), (-5.0, 50.0)
FIELD_OF_VIEW = (30.0, 75.0)
"""Of the held-out photos, and of what the first runs of training saw, in degrees."""
ANY_FIELD_OF_VIEW = (18.0, 78.0)
"""Of what training sees: telephoto and wide-angle lenses, too."""
SIZES = (0.18, 0.95)
"""Longest side of the object in the photo, in sides of the photo."""


@dataclass
class Scenes:
    """B scenes of K objects, the target first; tensors on one device, camera frame."""

    ids: Tensor  # (B, K) int64, objects
    present: Tensor  # (B, K) bool
    linear: Tensor  # (B, K, 3, 3), object -> camera
    offset: Tensor  # (B, K, 3)
    size: Tensor  # (B, K), mean scale, for lengths along normals
    extent: Tensor  # (B, K, 3), half sides in the object frames
    world: Tensor  # (B, 3, 3), columns: world axes in the camera frame
    floor: Tensor  # (B,), height of the floor along up, below the camera: negative
    planes: Tensor  # (B, 3, 4): floor and walls as n · p = d, n towards the camera
    plane_there: Tensor  # (B, 3) bool
    focal: Tensor  # (B,), in sides of the photo
    photo: Tensor  # (B, 4), x0, y0, x1, y1 of the photo in its padded square, in sides
    inside: Tensor  # (B,), share of the target inside the photo
    valid: Tensor  # (B,) bool
    unit: Tensor  # (B,), metres

    def inverse(self) -> tuple[Tensor, Tensor]:
        """Return the camera's place (B, K, 3) and directions' map (B, K, 3, 3) in object frames."""
        inverse = torch.linalg.inv(self.linear)
        return -(inverse @ self.offset[..., None])[..., 0], inverse

    def intrinsics(self, size: int) -> Tensor:
        """Return pixel intrinsics (B, 3, 3) of the photo's square at `size` pixels."""
        k = torch.zeros(len(self.focal), 3, 3, device=self.focal.device)
        k[:, 0, 0] = k[:, 1, 1] = self.focal * size
        k[:, 0, 2] = k[:, 1, 2] = size / 2
        k[:, 2, 2] = 1
        return k


class Random:
    """Random tensors of one generator and device."""

    def __init__(self, generator: torch.Generator):
        self.generator, self.device = generator, generator.device

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return uniform numbers."""
        draw = torch.rand(shape, generator=self.generator, device=self.device)
        return draw * (high - low) + low

    def normal(self, shape: tuple[int, ...], sigma: float = 1.0) -> Tensor:
        """Return Gaussian numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device) * sigma

    def chance(self, shape: tuple[int, ...], p: float) -> Tensor:
        """Return true with probability p."""
        return self.uniform(shape) < p

    def integers(self, shape: tuple[int, ...], high: int) -> Tensor:
        """Return int64 below `high`."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)


def rotation(axis: int, angle: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) about a coordinate axis by angles in radians."""
    c, s, one, nil = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    rows = {
        0: [one, nil, nil, nil, c, -s, nil, s, c],
        1: [c, nil, s, nil, one, nil, -s, nil, c],
        2: [c, -s, nil, s, c, nil, nil, nil, one],
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def camera(r: Random, shape: tuple[int, ...]) -> Tensor:
    """Return world axes in the camera frame (..., 3, 3)."""
    pitch = torch.where(
        r.chance(shape, 0.85), r.uniform(shape, *PITCH), r.uniform(shape, *WIDE_PITCH)
    )
    pitch = torch.deg2rad(pitch)
    roll = torch.deg2rad(r.normal(shape, 1.5).clamp(-5, 5))
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], device=r.device))  # y up to y down
    return rotation(2, roll) @ rotation(0, pitch) @ flip


def shapes(r: Random, shape: tuple[int, ...], upright: Tensor) -> Tensor:
    """Return object -> world maps (..., 3, 3): turn, stretch, mirror; tilted if not upright."""
    front = r.normal(shape, 0.9)
    yaw = torch.where(r.chance(shape, 0.5), front, r.uniform(shape, -math.pi, math.pi))
    tilt = rotation(0, r.uniform(shape, -3.1, 3.1)) @ rotation(2, r.uniform(shape, -1.6, 1.6))
    tilt = torch.where(upright[..., None, None], torch.eye(3, device=r.device), tilt)
    stretch = r.uniform((*shape, 3), math.log(0.8), math.log(1.25)).exp()
    stretch = torch.where(r.chance((*shape, 1), 0.75), stretch, 1.0)
    mirror = 1 - 2.0 * r.chance(shape, 0.5)
    diagonal = torch.cat([(stretch[..., 0] * mirror)[..., None], stretch[..., 1:]], -1)
    return rotation(1, yaw) @ tilt * diagonal[..., None, :]


def photo_frame(r: Random, count: int) -> Tensor:
    """Return the photo's rectangle (B, 4) in its padded square: square, landscape or portrait."""
    kind = r.uniform((count,))
    share = torch.tensor([0.75, 0.667, 0.5625], device=r.device)[r.integers((count,), 3)]
    width = torch.where(kind > 0.88, share, 1.0)
    height = torch.where((kind > 0.55) & (kind <= 0.88), share, 1.0)
    return torch.stack([1 - width, 1 - height, 1 + width, 1 + height], 1) / 2


def _place(
    r: Random,
    cloud: Tensor,  # (N, P, 3), the target's points about its center, camera axes
    focal: Tensor,  # (N,)
    photo: Tensor,  # (N, 4)
    truncated: Tensor,  # (N,) bool
) -> tuple[Tensor, Tensor]:
    """Return the target's center (N, 3) and the share (N,) of its points inside the photo."""
    count = len(cloud)
    wish = r.uniform((count,), *SIZES) * (photo[:, 2:] - photo[:, :2]).amin(1)
    wish = torch.where(truncated, wish * r.uniform((count,), 1.0, 1.5), wish)
    nearest = -cloud[..., 2].amin(1)
    depth = focal / wish
    way = torch.zeros(count, 2, device=r.device)  # x / z and y / z of the center
    place = r.uniform((count, 2), -1, 1)
    for _ in range(4):
        depth = torch.maximum(depth, nearest + 0.25)
        center = torch.cat([way * depth[:, None], depth[:, None]], 1)
        low, high = _box(cloud, center, focal)
        side = high - low  # (N, 2)
        depth = depth * (side.amax(1) / wish).clamp(0.5, 2)
        room = (photo[:, 2:] - photo[:, :2] - side).clamp_min(0) / 2
        room = room + torch.where(truncated[:, None], 0.4 * side, 0.0)
        middle = (low + high) / 2
        way = way + (place * room - middle) / focal[:, None]
    depth = torch.maximum(depth, nearest + 0.25)
    center = torch.cat([way * depth[:, None], depth[:, None]], 1)
    at = _project(cloud, center, focal) + 0.5
    inside = ((at > photo[:, None, :2]) & (at < photo[:, None, 2:])).all(-1).float().mean(1)
    return center, inside


def _project(cloud: Tensor, center: Tensor, focal: Tensor) -> Tensor:
    points = cloud + center[:, None]
    return points[..., :2] / points[..., 2:].clamp_min(1e-2) * focal[:, None, None]


def _box(cloud: Tensor, center: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    at = _project(cloud, center, focal)
    return at.amin(1), at.amax(1)


def sample(
    objects: Objects,
    count: int,
    r: Random,
    targets: Tensor | None = None,
    field_of_view: tuple[float, float] = FIELD_OF_VIEW,
) -> Scenes:
    """Return random scenes; the best of a few candidates each. field_of_view: in degrees."""
    n = count * CANDIDATES
    target = r.integers((count,), len(objects)) if targets is None else targets
    fov = torch.deg2rad(r.uniform((n,), *field_of_view))
    focal = 0.5 / (fov / 2).tan()
    photo = photo_frame(r, n)
    world = camera(r, (n,))
    pose = r.uniform((n,))
    upright = pose < STANDING + 0.07
    shape = world @ shapes(r, (n,), upright)
    points = objects.points[target.repeat_interleave(CANDIDATES), :256].float()
    cloud = points @ shape.mT  # (n, 256, 3), camera axes
    truncated = r.chance((n,), TRUNCATED)
    center, inside = _place(r, cloud, focal, photo, truncated)
    up = world[:, :, 1]
    all_points = objects.points[target].float().repeat_interleave(CANDIDATES, 0)
    lowest = (all_points @ shape.mT @ up[:, :, None])[..., 0].amin(1)
    raised = torch.where(pose >= STANDING, r.uniform((n,), 0.1, 1.2), 0.0)
    raised = torch.where(upright | r.chance((n,), 0.3), raised, 0.0)
    floor = (center * up).sum(1) + lowest - raised
    least = torch.where(truncated, 0.7, 0.999)
    valid = (floor < -0.12) & (inside >= least)
    pick = torch.arange(count, device=r.device) * CANDIDATES
    pick = pick + valid.view(count, CANDIDATES).float().argmax(1)
    return _furnish(
        objects, r, target, shape[pick], center[pick], world[pick], floor[pick], focal[pick],
        photo[pick], inside[pick], valid[pick],
    )  # fmt: skip


def _furnish(
    objects: Objects,
    r: Random,
    target: Tensor,
    shape: Tensor,
    center: Tensor,
    world: Tensor,
    floor: Tensor,
    focal: Tensor,
    photo: Tensor,
    inside: Tensor,
    valid: Tensor,
) -> Scenes:
    """Add other objects and planes to the targets."""
    count, others = len(target), OBJECTS - 1
    ids = torch.cat([target[:, None], r.integers((count, others), len(objects))], 1)
    extent = objects.extent[ids]  # (B, K, 3)
    upright = torch.ones(count, others, dtype=torch.bool, device=r.device)
    scale = r.uniform((count, others), math.log(0.3), math.log(1.7)).exp()
    maps = world[:, None] @ shapes(r, (count, others), upright) * scale[..., None, None]
    linear = torch.cat([shape[:, None], maps], 1)
    up, towards = world[:, :, 1], -center
    towards = F.normalize(towards - (towards * up).sum(1, keepdim=True) * up, dim=1)
    beside = torch.linalg.cross(up, towards)
    angle = r.uniform((count, others), -math.pi, math.pi)
    in_front = r.chance((count, others), 0.3)
    angle = torch.where(in_front, angle * 0.25, angle)  # 0 is towards the camera
    way = angle.cos()[..., None] * towards[:, None] + angle.sin()[..., None] * beside[:, None]
    reach = _support(linear[:, :1], extent[:, :1], way) + _support(maps, extent[:, 1:], way)
    gap = r.uniform((count, others), 0.02, 1.0).square() * 1.2 + 0.01
    place = center[:, None] + (reach + gap)[..., None] * way  # (B, 3, 3)
    half = _support(maps, extent[:, 1:], up[:, None].expand_as(way))
    height = floor[:, None] + half - (place * up[:, None]).sum(-1)
    place = place + height[..., None] * up[:, None]
    radius = (maps.square().sum(2) * extent[:, 1:].square()).sum(-1).sqrt()
    near = place.norm(dim=-1) < radius * 1.15 + 0.2 * center[:, None].norm(dim=-1)
    number = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3], device=r.device)[r.integers((count, 1), 8)]
    there = (torch.arange(others, device=r.device) < number) & ~near
    present = torch.cat([torch.ones_like(there[:, :1]), there], 1)
    planes, plane_there = _planes(r, linear[:, 0], extent[:, 0], center, up, towards, floor)
    size = linear.square().sum(2).sqrt().mean(-1)
    unit = r.uniform((count,), math.log(0.15), math.log(2.5)).exp()
    offset = torch.cat([center[:, None], place], 1)
    return Scenes(ids, present, linear, offset, size, extent, world, floor, planes, plane_there,
                  focal, photo, inside, valid, unit)  # fmt: skip


def _support(linear: Tensor, extent: Tensor, way: Tensor) -> Tensor:
    """Return how far boxes reach from their centers along unit vectors `way` (..., 3)."""
    along = (linear.mT @ way[..., None])[..., 0]  # (..., 3)
    return (along.abs() * extent).sum(-1)


def _planes(
    r: Random,
    linear: Tensor,
    extent: Tensor,
    center: Tensor,
    up: Tensor,
    towards: Tensor,
    floor: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return floor, back wall and side wall (B, 3, 4), and which are there (B, 3)."""
    count = len(center)
    angle = r.normal((count, 1), 0.45).clamp(-1.1, 1.1)
    side = torch.linalg.cross(up, towards)
    back = angle.cos() * towards + angle.sin() * side
    beside = (1 - 2.0 * r.chance((count, 1), 0.5)) * torch.linalg.cross(up, back)
    planes = [torch.cat([up, floor[:, None]], 1)]
    there = [r.chance((count,), 0.92)]
    for normal, probability in ((back, 0.7), (beside, 0.35)):
        gap = r.uniform((count,), 0.0, 1.6).square() + 0.01
        at = (center * normal).sum(1) - _support(linear, extent, normal) - gap
        planes.append(torch.cat([normal, at[:, None]], 1))
        there.append(r.chance((count,), probability) & (at < -0.3) & there[0])
    return torch.stack(planes, 1), torch.stack(there, 1)
