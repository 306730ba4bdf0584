"""The outline of a decoded surface made that of the mask, finer than the grid is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.devices import with_doubles
from sam3d_nb.frames import Array
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.tiny.nearest import nearest, outside
from sam3d_nb.tiny.pixels import between, pixel_of, project
from sam3d_nb.tiny.sculpt import OTHERS, Sculptor, covered, surely
from sam3d_nb.tiny.sight import in_camera, in_cube
from sam3d_nb.tiny.window import Window, around

FINEST = 512  # about so many pixels across the mask are looked at
FARTHEST = 1 / 64  # sides of the cube by which a vertex moves at most, or FEWEST pixels
FEWEST = 2
ROUNDS = 3
WAY = 0.98  # share of its way that a vertex moves: no two come to the same place


def trimmed(surface: Surface, sculptor: Sculptor) -> Surface:
    """Return the surface with what a photo shows beside its mask moved to the mask's outline.

    surface: in the view cube, see `Sculptor`, which leaves it a little too wide. Vertices keep
    their depth and move in the plane of the picture; those that are hidden by something else, or
    too far away, stay.
    """
    pose, vertices = sculptor.pose, surface.vertices
    reach = sculptor.intrinsics[0, 0] * FARTHEST * pose.scale[0] / max(pose.translation[2], 1e-9)
    part = around(sculptor.mask, 2 + int(min(reach, FINEST)), FINEST)
    if part is None or min(part.height, part.width) < 2:
        return surface
    device = with_doubles(vertices.device)
    points = in_camera(vertices.to(device).double(), pose)  # (V, 3)
    intrinsics = part.intrinsics(sculptor.intrinsics)
    away = outside(torch.from_numpy(part.some(sculptor.mask)).to(device))  # (h, w) pixels
    chosen = _beside(points, away, sculptor, part).nonzero()[:, 0]
    points[chosen] = _moved(points[chosen], away, intrinsics)
    return replace(surface, vertices=in_cube(points, pose).to(vertices))


def _beside(points: Tensor, away: Tensor, sculptor: Sculptor, part: Window) -> Tensor:
    """Return which points (V, 3) in the camera are seen close beside the mask, (V,) bool.

    away: pixels of the window `part` from the mask, (h, w).
    """
    intrinsics = part.intrinsics(sculptor.intrinsics)
    at = project(points, intrinsics)
    inside, pixel = pixel_of(at, away.shape)
    side = sculptor.pose.scale[0]
    limit = (intrinsics[0, 0] * side * FARTHEST / points[:, 2]).clamp(min=FEWEST)  # pixels
    found = between(away[..., None], at)[:, 0]
    chosen = inside & (points[:, 2] > 0) & (found > 0) & (found < limit)
    if sculptor.exact:
        seen = torch.from_numpy(part.depth(sculptor.pointmap)).to(points)
        sure = torch.from_numpy(surely(part, sculptor.mask)).to(points.device)
        hidden = covered(seen, sure, nearest(sure), OTHERS * side)
        chosen &= (points[:, 2] - seen.take(pixel) < OTHERS * side) | ~hidden.take(pixel)
    return chosen


def _moved(points: Tensor, away: Tensor, intrinsics: Array) -> Tensor:
    """Return points (N, 3) in the camera, moved at their depth to where `away` (h, w) is 0."""
    down, right = torch.gradient(away)
    field = torch.stack([away, right, down], -1)  # (h, w, 3)
    at = project(points, intrinsics)
    for _ in range(ROUNDS):
        left, slope = between(field, at).split([1, 2], dim=1)
        length = torch.linalg.vector_norm(slope, dim=1, keepdim=True).clamp(min=1e-6)
        at = at - left.clamp(min=0) * slope / length
    at = torch.lerp(project(points, intrinsics), at, WAY)
    inverse = points.new_tensor(np.linalg.inv(intrinsics))
    return (at @ inverse[:, :2].T + inverse[:, 2]) * points[:, 2:]
