"""What the networks of `tiny` are to predict, measured on the fields of the objects.

View frame: the network's local frame turned to the camera, z up: x right, y away from the camera,
z up in the photo. A view cube is the box of the object along these axes, made cubic: its center is
the pose's translation, its side the scale, and its voxels are those of stage 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from sam3d_nb.model.preprocess import NAN
from sam3d_nb.tiny.config import TINY, VOXELS

if TYPE_CHECKING:
    from training.data.objects import Objects
    from training.data.pool import Pool

OPENCV_TO_VIEW = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # columns: p_view = M p_cv
OPENCV_TO_CAMERA = (-1.0, -1.0, 1.0)  # to the network's camera frame: x left, y up, z forward
TRUNCATION = 2.0  # voxels at which distances end, for the structure encoder
LATENT_TRUNCATION = 1.5  # voxels at which distances end, in the structured latent
SHELL = 0.75  # of half a voxel: a point this near to a sample of the surface lies in its cube


@dataclass(frozen=True)
class Views:
    """Objects as the camera sees them: B view cubes, and how they map to the objects' fields."""

    sample: Tensor  # (B,) int64, in the pool
    ids: Tensor  # (B,) int64, of the objects
    to_object: Tensor  # (B, 3, 3): p_obj = to_object (side p + center in view axes) + shift
    shift: Tensor  # (B, 3)
    center: Tensor  # (B, 3) of the cube, view axes, camera origin
    side: Tensor  # (B,)
    stretch: Tensor  # (B,): length in the camera / length in the object's frame, on average

    def __getitem__(self, rows: Tensor) -> Views:
        return Views(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def in_object(self, points: Tensor) -> Tensor:
        """Return `points` (B, Q, 3) of the cubes, [-0.5, 0.5]^3, in the objects' own frames."""
        in_view = points * self.side[:, None, None] + self.center[:, None]
        return in_view @ self.to_object.transpose(1, 2) + self.shift[:, None]

    def distance(self, objects: Objects, points: Tensor) -> Tensor:
        """Return signed distances (B, Q), in sides of the cube, at `points` (B, Q, 3) of it.

        They are exact up to the unevenness of the stretch.
        """
        found = objects.distance(self.ids, self.in_object(points))
        return found * (self.stretch / self.side)[:, None]

    def color(self, pool: Pool, objects: Objects, points: Tensor) -> Tensor:
        """Return the albedo (B, Q, 3), sRGB in 0 to 1, at `points` (B, Q, 3) of the cube."""
        there = self.in_object(points)
        return pool.recolor(self.sample, there, objects.albedo(self.ids, there))


def view_cubes(pool: Pool, objects: Objects) -> Views:
    """Return the view cube of every sample of a pool."""
    to_view = torch.tensor(OPENCV_TO_VIEW, device=pool.linear.device)
    linear = to_view @ pool.linear  # (N, 3, 3): object to view axes
    offset = pool.offset @ to_view.T
    low, high = [], []
    for rows in torch.arange(len(linear), device=linear.device).split(4096):
        surface = objects.points[pool.object[rows]].float()  # (n, P, 3)
        placed = surface @ linear[rows].transpose(1, 2) + offset[rows, None]
        low.append(placed.amin(1))
        high.append(placed.amax(1))
    low, high = torch.cat(low), torch.cat(high)
    inverse = torch.linalg.inv(linear)
    shift = -(inverse @ offset[:, :, None])[:, :, 0]
    stretch = torch.linalg.det(linear).abs() ** (1 / 3)
    side = (high - low).amax(1) * 1.02  # surface points miss the utmost ends by a little
    sample = torch.arange(len(pool), device=side.device)
    return Views(sample, pool.object, inverse, shift, (low + high) / 2, side, stretch)


def cube_points(side: int, device: torch.device, *, corners: bool = False) -> Tensor:
    """Return centers (side³, 3), or corners ((side + 1)³, 3), of the voxels of the unit cube."""
    axis = torch.arange(side + corners, device=device)
    grid = torch.cartesian_prod(axis, axis, axis).float()
    return (grid + (0 if corners else 0.5)) / side - 0.5


def structure_fields(objects: Objects, views: Views) -> tuple[Tensor, Tensor]:
    """Return the encoder's input (B, 2, 32, 32, 32) and the occupancy (B, 32, 32, 32), bool.

    A voxel is occupied where one of its eight octants' centers lies so near to the surface that
    the surface can pass through the octant.
    """
    fine = cube_points(2 * VOXELS, views.side.device).expand(len(views.side), -1, -1)
    distance = views.distance(objects, fine).view(-1, 1, *(2 * VOXELS,) * 3)
    near = distance.abs() < SHELL / (2 * VOXELS)
    occupied = F.max_pool3d(near.half(), 2) > 0  # (B, 1, 32, 32, 32)
    coarse = F.avg_pool3d(distance, 2) * VOXELS / TRUNCATION
    return torch.cat([coarse.clamp(-1, 1), occupied.float()], 1), occupied[:, 0]


def structured_latents(pool: Pool, objects: Objects, views: Views, coords: Tensor) -> Tensor:
    """Return the structured latent (N, 8) of voxels (N, 4), each channel of order one.

    Channels: distance at the center, direction of its gradient, color, bend (mean distance of the
    six face centers less that of the center). Items of the batch need not have equally many voxels.
    """
    counts = torch.bincount(coords[:, 0], minlength=len(views.side))
    longest = int(counts.max())
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(coords), device=coords.device) - starts[coords[:, 0]]
    step = 0.5 / VOXELS
    eye = torch.eye(3, device=coords.device) * step
    probes = torch.cat([eye.new_zeros(1, 3), eye, -eye])  # (7, 3)
    centers = (coords[:, 1:].float() + 0.5) / VOXELS - 0.5
    padded = centers.new_zeros(len(views.side), longest, 3)
    padded[coords[:, 0], place] = centers
    points = (padded[:, :, None] + probes).flatten(1, 2)  # (B, longest * 7, 3)
    distance = views.distance(objects, points).view(-1, longest, 7)
    distance = distance[coords[:, 0], place] * VOXELS  # (N, 7) voxels
    color = views.color(pool, objects, padded)[coords[:, 0], place]  # (N, 3)
    gradient = (distance[:, 1:4] - distance[:, 4:]) / 2
    middle = distance[:, :1]
    bend = (distance[:, 1:].mean(1, keepdim=True) - middle) * 8
    limit = LATENT_TRUNCATION
    return torch.cat(
        [
            middle.clamp(-limit, limit),
            F.normalize(gradient, dim=1, eps=1e-3) * 1.5,
            (color * 2 - 1) * 1.5,
            bend.clamp(-3, 3),
        ],
        1,
    )


# --- Layout ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layouts:
    """Moments of the point maps and the layout latents that go with them."""

    unit: Tensor  # (N,)
    shift: Tensor  # (N, 3) camera frame of the network
    latents: dict[str, Tensor]  # (N, 1, channels)

    @classmethod
    def joined(cls, parts: list[Layouts]) -> Layouts:
        """Concatenate layouts."""
        names = parts[0].latents
        return cls(
            torch.cat([part.unit for part in parts]),
            torch.cat([part.shift for part in parts]),
            {name: torch.cat([part.latents[name] for part in parts]) for name in names},
        )


def layouts(pool: Pool, views: Views) -> Layouts:
    """Return moments of the true point maps of a pool, and the latents that go with them."""
    parts = []
    for rows in torch.arange(len(views.side), device=views.side.device).split(2048):
        points = pool.points[rows].float() + pool.center[rows, :, None, None]
        some = views[rows]
        parts.append(
            layouts_of(points, pool.mask[rows], opencv_center(some), some.side, pool.up[rows])
        )
    return Layouts.joined(parts)


def opencv_center(views: Views) -> Tensor:
    """Return the centers (B, 3) of view cubes in the camera, OpenCV axes."""
    return views.center @ views.center.new_tensor(OPENCV_TO_VIEW)


def layouts_of(points: Tensor, mask: Tensor, center: Tensor, side: Tensor, up: Tensor) -> Layouts:
    """Return moments as `preprocess.pointmap_moments` has them for objects, and the latents.

    points: (B, 3, S, S) OpenCV, NaN where unknown; mask: (B, S, S), the object's pixels; center
    (B, 3) OpenCV and side (B,): of the view cubes; up: (B, 3) OpenCV.
    """
    flip = points.new_tensor(OPENCV_TO_CAMERA)
    flipped = (points * flip[:, None, None]).flatten(2)  # (B, 3, S²), the network's camera frame
    flipped = flipped.masked_fill(~mask.flatten(1)[:, None], NAN)
    shift = flipped.nanmedian(2).values.nan_to_num()
    distance = (flipped - shift[:, :, None]).abs().amax(1)
    unit = distance.nanmedian(1).values.nan_to_num(1.0).clamp_min(1e-4)
    translation = (center * flip - shift) / unit[:, None]
    scale = (side / unit).log()[:, None]
    return Layouts(
        unit,
        shift,
        {
            "6drotation_normalized": _rotation(up * flip)[:, None],
            "translation": translation[:, None],
            "scale": scale.expand(-1, 3)[:, None],
            "translation_scale": scale[:, None] * 0,
        },
    )


def _rotation(up: Tensor) -> Tensor:
    """Return the normalized six numbers of the smallest turn that takes the photo's up to `up`.

    up: (N, 3) in the network's camera frame.
    """
    up = F.normalize(up, dim=1)
    axis_up = up.new_tensor([0.0, 1.0, 0.0]).expand_as(up)
    cross, cosine = torch.linalg.cross(axis_up, up), (axis_up * up).sum(1)
    zero = torch.zeros_like(cosine)
    x, y, z = cross.unbind(1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    turn = torch.eye(3, device=up.device) + skew + skew @ skew / (1 + cosine)[:, None, None]
    view = up.new_tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # rows: local axes
    rows = view @ turn.transpose(1, 2)  # p_camera = p_local @ rows
    six = torch.cat([rows[:, :, 0], rows[:, :, 1]], 1)
    config = TINY.layout
    return (six - six.new_tensor(config.rotation_mean)) / six.new_tensor(config.rotation_std)
