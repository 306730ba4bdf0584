"""Objects as fields on a grid: signed distance, color, surface points.

Object frame: GLB's y-up, centered at the box's center, longest side 1. The grids cover the cube
[-0.55, 0.55]^3, outermost nodes on its faces (`align_corners=True`), with axes (z, y, x), so that
`grid_sample` takes points (x, y, z) as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = 0.55
"""Half the side of the cube that the grids cover."""


@dataclass
class Objects:
    """O objects; all tensors are on one device.

    sdf is negative inside, in object units; color is sRGB albedo, defined near the surface.
    """

    sdf: Tensor  # (O, 1, G, G, G) float16
    color: Tensor  # (O, 3, C, C, C) uint8
    points: Tensor  # (O, P, 3) float16, on the surface
    extent: Tensor  # (O, 3) float32, half sides of the box; the largest is about 0.5
    kind: list[str]  # 'procedural/chair/17', 'furniture/Scopia#bed1'

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def device(self) -> torch.device:
        """Where the fields are."""
        return self.sdf.device

    @property
    def step(self) -> float:
        """Distance of two nodes of the distance grid."""
        return 2 * HALF / (self.sdf.shape[-1] - 1)

    def query(
        self,
        ids: Tensor,  # (B,) int64
        points: Tensor,  # (B, Q, 3), object frame
    ) -> tuple[Tensor, Tensor]:
        """Return distance (B, Q) and color (B, Q, 3) in [0, 1], both float32, trilinear.

        Points outside the cube read its face; their distance grows by that to the face.
        """
        return self.distance(ids, points), self.albedo(ids, points)

    def distance(self, ids: Tensor, points: Tensor) -> Tensor:
        """Return the distance (B, Q) of points (B, Q, 3), see `query`."""
        inside = points.float().clamp(-HALF, HALF)
        beyond = (points.float() - inside).norm(dim=-1)  # (B, Q)
        return _sample(self.sdf[ids].float(), inside)[..., 0] + beyond

    def albedo(self, ids: Tensor, points: Tensor) -> Tensor:
        """Return the color (B, Q, 3) in [0, 1] of points (B, Q, 3), see `query`."""
        return _sample(self.color[ids].float() / 255, points.float().clamp(-HALF, HALF))

    def normal(self, ids: Tensor, points: Tensor) -> Tensor:
        """Return the unit gradient (B, Q, 3) of the distance at points (B, Q, 3)."""
        e = 0.75 * self.step
        offsets = torch.eye(3, device=points.device) * e  # (3, 3)
        around = torch.cat([points[:, :, None] + offsets, points[:, :, None] - offsets], 2)
        d = self.distance(ids, around.flatten(1, 2)).unflatten(1, (-1, 6))  # (B, Q, 6)
        return F.normalize(d[..., :3] - d[..., 3:], dim=-1)

    def select(self, ids: Sequence[int]) -> Objects:
        """Return the objects `ids`, in this order."""
        at = torch.tensor(list(ids), device=self.device)
        kind = [self.kind[i] for i in ids]
        return Objects(self.sdf[at], self.color[at], self.points[at], self.extent[at], kind)

    def to(self, device: torch.device | str) -> Objects:
        """Return a copy on `device`."""
        parts = (self.sdf, self.color, self.points, self.extent)
        return Objects(*(x.to(device) for x in parts), self.kind)


def merge(parts: Sequence[Objects]) -> Objects:
    """Join sets of objects whose grids have the same sizes."""
    return Objects(
        torch.cat([p.sdf for p in parts]),
        torch.cat([p.color for p in parts]),
        torch.cat([p.points for p in parts]),
        torch.cat([p.extent for p in parts]),
        [kind for p in parts for kind in p.kind],
    )


def from_fields(
    sdf: Tensor,  # (O, 1, G, G, G)
    color: Tensor,  # (O, 3, C, C, C) uint8
    kind: list[str],
    points: int,
    generator: torch.Generator,
) -> Objects:
    """Complete objects by their surface points and boxes."""
    low, high = bounds(sdf)
    extent = torch.maximum(-low, high)
    cloud = [surface_points(part, points, generator) for part in chunks(sdf)]
    return Objects(sdf, color, torch.cat(cloud).half(), extent, kind)


def chunks(sdf: Tensor) -> Iterator[Tensor]:
    """Split fields (O, 1, G, G, G) so that float32 temporaries stay below some 100 MB."""
    yield from sdf.split(max(1, 2**25 // sdf[0].numel()))


def nodes(size: int, device: torch.device | str, half: float = HALF) -> Tensor:
    """Return the coordinates (size,) of a grid's nodes along one axis."""
    return torch.linspace(-half, half, size, device=device)


def bounds(sdf: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners low, high (O, 3), as x, y, z, of the box around the zero level."""
    size = sdf.shape[-1]
    x, step = nodes(size, sdf.device), 2 * HALF / (size - 1)
    low, high = [], []
    for axis in (3, 2, 1):  # x, y, z
        others = [a for a in (1, 2, 3) if a != axis]
        profile = torch.cat([p[:, 0].float().amin(others) for p in chunks(sdf)])  # (O, size)
        low.append(_first_crossing(profile, x, step))
        high.append(-_first_crossing(profile.flip(1), x, step))
    return torch.stack(low, 1), torch.stack(high, 1)


def _first_crossing(profile: Tensor, x: Tensor, step: float) -> Tensor:
    inside = (profile < 0).float()
    at = inside.argmax(1, keepdim=True)  # (O, 1), the first node inside
    here, before = profile.gather(1, at), profile.gather(1, (at - 1).clamp_min(0))
    back = (here / (here - before).clamp_max(-1e-6)).clamp(0, 1) * (at > 0)
    return (x[at] - back * step)[:, 0]


def surface_points(
    sdf: Tensor,  # (O, 1, G, G, G)
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Return points (O, count, 3), about uniform over the zero level's area.

    Random nodes beside the surface, jittered, then moved along the gradient four times.
    """
    field = sdf.float()
    size, device = sdf.shape[-1], sdf.device
    step = 2 * HALF / (size - 1)
    near = (field.flatten(1).abs() < step).int().cumsum(1, dtype=torch.int32)  # (O, G^3)
    draw = torch.rand(len(sdf), count, generator=generator, device=device)
    rank = (draw * near[:, -1:]).int() + 1  # 1 ... number of near nodes
    index = torch.searchsorted(near, rank).clamp_max(size**3 - 1)  # (O, count)
    x = nodes(size, device)
    points = torch.stack([x[index % size], x[index // size % size], x[index // size**2]], -1)
    jitter = torch.rand(points.shape, generator=generator, device=device) - 0.5
    points = points + jitter * step
    offsets = torch.eye(3, device=device) * step / 2
    for _ in range(4):
        around = torch.cat([points[:, :, None], points[:, :, None] + offsets], 2)  # (O, n, 4, 3)
        around = torch.cat([around, points[:, :, None] - offsets], 2).clamp(-HALF, HALF)
        d = _sample(field, around.flatten(1, 2))[..., 0].unflatten(1, (-1, 7))
        gradient = (d[..., 1:4] - d[..., 4:]) / step  # (O, n, 3)
        length = gradient.square().sum(-1, keepdim=True).clamp_min(0.1)
        points = points - (d[..., :1] * gradient / length).clamp(-step, step)
    return points.clamp(-HALF, HALF)


def _sample(volume: Tensor, points: Tensor) -> Tensor:
    """Read volumes (B, C, D, H, W) at points (B, Q, 3) inside the cube: (B, Q, C)."""
    grid = (points / HALF)[:, :, None, None]  # (B, Q, 1, 1, 3)
    value = F.grid_sample(volume, grid, align_corners=True, padding_mode="border")
    return value[..., 0, 0].transpose(1, 2)
