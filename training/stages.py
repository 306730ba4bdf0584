"""What each stage of training minimizes. Stages run one after another, see `training.train`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.model.grid import Grid
from sam3d_nb.model.structure_flow import SHAPE
from sam3d_nb.model.surface import ATTRIBUTES
from sam3d_nb.tiny.config import VOXELS
from training.loop import Losses
from training.samples import Samples
from training.targets import (
    Views,
    cube_points,
    structure_fields,
    structured_latents,
)

FINE = 4 * VOXELS  # voxels a side of the mesh decoder's output
DISTANCE_GAIN = 16.0  # output of the mesh decoder / signed distance in sides of the cube
LAYOUT_WEIGHTS = {"translation": 2.0, "scale": 2.0, "6drotation_normalized": 0.3}
KL_WEIGHT = 1e-3


def structure_vae(
    encoder: nn.Module, decoder: nn.Module, samples: Samples, batch: int
) -> Callable[[int], Losses]:
    """Occupancy back out of its latent, with a latent near the normal distribution."""

    def losses(step: int) -> Losses:
        rows = torch.randint(len(samples), (batch,), device=samples.views.side.device)
        with torch.no_grad():
            fields, occupied = structure_fields(samples.objects, samples.views[rows])
        mean, log_variance = encoder(fields)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        logits = decoder(latent)[:, 0]
        target = occupied.float()
        weight = 1 + 2 * target
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        wrong = ((logits > 0) != occupied).float().sum() / target.sum()
        return {
            "occupancy": F.binary_cross_entropy_with_logits(logits, target, weight) * 10,
            "kl": KL_WEIGHT * kl,
            "wrong": wrong.detach(),
        }

    return losses


@torch.no_grad()
def encode_pool(
    encoder: nn.Module, samples: Samples, batch: int = 64, rows: Tensor | None = None
) -> Tensor:
    """Return the shape latents (N, 512, 8) of samples `rows` (N,), or of all, float16."""
    everything = torch.arange(len(samples), device=samples.views.side.device)
    parts = []
    for part in (everything if rows is None else rows).split(batch):
        mean, _ = encoder(structure_fields(samples.objects, samples.views[part])[0])
        parts.append(mean.flatten(2).transpose(1, 2).half())
    return torch.cat(parts)


def flow_times(count: int, device: torch.device, rescale: float = 3.0) -> Tensor:
    """Return times in [0, 1), (count,), spread evenly and dense where the sampler's steps are."""
    u = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    u = u[torch.randperm(count, device=device)]
    return u / (1 + (rescale - 1) * (1 - u))


def structure_flow(
    embedder: nn.Module,
    flow: nn.Module,
    shapes: Tensor,  # (N, 512, 8)
    samples: Samples,
    batch: int,
    draws: int = 2,
) -> Callable[[int], Losses]:
    """Velocity from noise to shape latent and layout, several noises for one condition."""
    deviation = float(shapes[:4096].float().std())

    def losses(step: int) -> Losses:
        rows = torch.randint(len(samples), (batch,), device=shapes.device)
        estimated = samples.pick(rows)
        condition = flow.prepare(embedder(samples.inputs(rows, estimated)))
        condition = tuple(_repeat(layer, draws) for layer in condition)
        again = rows.repeat_interleave(draws)
        layout = samples.layouts(rows, estimated)
        data = {name: value.repeat_interleave(draws, 0) for name, value in layout.items()}
        data[SHAPE] = shapes[again].float()
        t = flow_times(len(again), rows.device)
        noise = {name: torch.randn_like(value) for name, value in data.items()}
        state = {name: torch.lerp(noise[name], data[name], t[:, None, None]) for name in data}
        velocity = flow(state, flow.modulation(1000 * t), condition)
        goal = {name: data[name] - noise[name] for name in data}
        found = {"shape": (velocity[SHAPE].float() - goal[SHAPE]).square().mean() / deviation**2}
        for name, weight in LAYOUT_WEIGHTS.items():
            found[name[:11]] = weight * F.smooth_l1_loss(velocity[name].float(), goal[name])
        return found

    return losses


def _repeat(layer, draws: int):
    return {
        stream: c._replace(
            tokens=type(c.tokens)(*(x.repeat_interleave(draws, 0) for x in c.tokens))
        )
        for stream, c in layer.items()
    }


# --- Stage 2 --------------------------------------------------------------------------------


def voxels_of(occupied: Tensor, *, disturbed: bool) -> Tensor:
    """Return the coordinates (N, 4) of occupied voxels (B, R, R, R), sorted.

    disturbed: as stage 1 gives them, see `disturb`.
    """
    return (disturb(occupied) if disturbed else occupied).nonzero()


def disturb(occupied: Tensor) -> Tensor:
    """Return voxels (B, R, R, R) with the errors of stage 1, from none to many an item.

    Single voxels are missing or too many at the surface; in some places the shell is up to five
    voxels thick, in some it has a hole.
    """
    count, device = len(occupied), occupied.device
    solid = occupied.half()[:, None]
    near, far = (F.max_pool3d(solid, size, 1, size // 2)[:, 0] > 0 for size in (3, 5))
    level = torch.rand(count, 1, 1, 1, device=device) ** 2 * 0.3
    draw = torch.rand(occupied.shape, device=device)
    again = torch.rand(occupied.shape, device=device)
    found = (occupied & (draw > level / 3)) | (near & ~occupied & (again < level / 2))

    places = torch.randn(count, 1, 5, 5, 5, device=device)
    places = F.interpolate(places, size=occupied.shape[1:], mode="trilinear")[:, 0]
    share = torch.rand(2, count, 1, 1, 1, device=device) ** 2
    thick = places > 1.6 - 1.2 * share[0]
    wide = torch.rand(count, 1, 1, 1, device=device) < 0.5
    found |= thick & torch.where(wide, far, near)
    return found & (places > -2.0 + 0.9 * share[1])


def latent_flow(
    embedder: nn.Module, flow: nn.Module, samples: Samples, batch: int
) -> Callable[[int], Losses]:
    """Velocity from noise to the structured latent of the true voxels, somewhat disturbed."""

    def losses(step: int) -> Losses:
        rows = torch.randint(len(samples), (batch,), device=samples.views.side.device)
        with torch.no_grad():
            views = samples.views[rows]
            coords = voxels_of(structure_fields(samples.objects, views)[1], disturbed=True)
            data = structured_latents(samples.pool, samples.objects, views, coords)
            gain = color_gain(samples, rows)[coords[:, 0]]
            data = torch.cat([data[:, :4], _recolored(data[:, 4:7], gain), data[:, 7:]], 1)
            grid = Grid(coords.int(), VOXELS)
        t = flow_times(batch, rows.device, rescale=1.0)
        noise = torch.randn_like(data)
        state = torch.lerp(noise, data, t[coords[:, 0]][:, None])
        condition = flow.prepare(embedder(samples.inputs(rows, samples.pick(rows))))
        velocity = flow(state, flow.modulation(1000 * t), condition, grid)
        error = (velocity - (data - noise)).square()
        return {
            "geometry": error[:, :4].mean(),
            "color": error[:, 4:7].mean(),
            "bend": error[:, 7:].mean() / 4,
        }

    return losses


def color_gain(samples: Samples, rows: Tensor) -> Tensor:
    """Return how much brighter the photo shows each object than its albedo is, (B, 3) in sRGB."""
    pool = samples.pool
    mask = pool.mask[rows].flatten(1)  # (B, S²)
    picks = torch.multinomial(mask.float() + 1e-9, 128, replacement=True)  # (B, 128)
    points = pool.points[rows].float().flatten(2).gather(2, picks[:, None].expand(-1, 3, -1))
    camera = points.transpose(1, 2) + (pool.center - pool.offset)[rows, None]
    there = camera @ torch.linalg.inv(pool.linear[rows]).transpose(1, 2)
    there = there.nan_to_num()
    albedo = samples.objects.albedo(samples.views.ids[rows], there)
    albedo = pool.recolor(rows, there, albedo).mean(1)
    seen = pool.image[rows].flatten(2).gather(2, picks[:, None].expand(-1, 3, -1)).float() / 255
    return (seen.mean(2) / albedo.clamp_min(0.05)).clamp(0.3, 1.8)


def _recolored(color: Tensor, gain: Tensor) -> Tensor:
    return (((color / 1.5 + 1) / 2 * gain).clamp(0, 1) * 2 - 1) * 1.5


# --- Decoders -------------------------------------------------------------------------------


def mesh_decoder(decoder: nn.Module, samples: Samples, batch: int) -> Callable[[int], Losses]:
    """Signed distance and color at the corners of fine voxels; no deformation, even weights."""

    def losses(step: int) -> Losses:
        device = samples.views.side.device
        rows = torch.randint(len(samples), (batch,), device=device)
        with torch.no_grad():
            views = samples.views[rows]
            coords, latent = _disturbed_latents(samples, views)
            grid = Grid(coords.int(), VOXELS)
        channels, fine = decoder(latent, grid)  # (64 N, 101)
        picks = torch.randint(len(channels), (60_000 * batch // 4,), device=device)
        with torch.no_grad():
            corners = fine.xyz[picks, None].float() + cube_points(1, device, corners=True) + 0.5
            points = corners / FINE - 0.5  # (P, 8, 3), corner 4 x + 2 y + z
            items, order = fine.coords[picks, 0].long(), _published_corners(device)
            points = points[:, order]
            distance = by_rows(samples.distance(views), items, points)
            color = by_rows(samples.color(views), items, points)
        found = channels[picks]
        target = distance.clamp(-0.06, 0.06) * DISTANCE_GAIN + 1 / FINE
        near = (distance.abs() < 2.5 / FINE).float()
        attributes = found[:, 53:].unflatten(1, (8, ATTRIBUTES))
        rgb = (attributes[..., :3].sigmoid() - color).square().mean(2)
        return {
            "distance": ((found[:, :8] - target).abs() * (0.2 + near)).mean() * 10,
            "color": (rgb * near).sum() / near.sum().clamp_min(1) * 4,
            "rest": (found[:, 8:53].square().mean() + attributes[..., 3:].square().mean()) * 0.1,
        }

    return losses


def _published_corners(device: torch.device) -> Tensor:
    """Return, for each corner in the order of FlexiCubes, its place in x, y, z order."""
    from sam3d_nb.model.flexicubes_tables import CORNERS

    return torch.tensor([4 * x + 2 * y + z for x, y, z in CORNERS], device=device)


def _disturbed_latents(samples: Samples, views: Views) -> tuple[Tensor, Tensor]:
    """Return voxels and their latents, both as imperfect as the flows give them."""
    occupied = structure_fields(samples.objects, views)[1]
    coords = voxels_of(occupied, disturbed=True)
    latent = structured_latents(samples.pool, samples.objects, views, coords)
    level = torch.rand(len(occupied), 1, device=latent.device) ** 2 * 0.4
    return coords, latent + torch.randn_like(latent) * level[coords[:, 0]]


def by_rows(query: Callable[[Tensor], Tensor], items: Tensor, points: Tensor) -> Tensor:
    """Query points (P, K, 3) that belong to batch items (P,), in any order; return (P, K, ...)."""
    order = items.argsort(stable=True)
    counts = torch.bincount(items, minlength=int(items.max()) + 1)
    rank = torch.arange(len(items), device=items.device)
    place = rank - (counts.cumsum(0) - counts)[items[order]]
    padded = points.new_zeros(len(counts), int(counts.max()), *points.shape[1:])
    padded[items[order], place] = points[order]
    found = query(padded.flatten(1, 2)).unflatten(1, padded.shape[1:3])
    back = torch.empty_like(order)
    back[order] = rank
    return found[items[order], place][back]


def splat_decoder(decoder: nn.Module, samples: Samples, batch: int) -> Callable[[int], Losses]:
    """Each gaussian at the point of the surface nearest to its place in the voxel, in its color."""
    settings = decoder.config.gaussians
    spread = decoder.offset_perturbation.tanh() * (0.5 * settings.voxel_size / VOXELS)  # (G, 3)

    def losses(step: int) -> Losses:
        device = samples.views.side.device
        rows = torch.randint(len(samples), (batch,), device=device)
        with torch.no_grad():
            views = samples.views[rows]
            coords, latent = _disturbed_latents(samples, views)
            grid = Grid(coords.int(), VOXELS)
            start = (coords[:, None, 1:].float() + 0.5) / VOXELS - 0.5 + spread  # (N, G, 3)
            target = start
            for _ in range(2):
                target = _towards_surface(samples, views, coords[:, 0], target)
            distance = by_rows(samples.distance(views), coords[:, 0], target)
            color = by_rows(samples.color(views), coords[:, 0], target)
            good = (distance.abs() < 0.15 / VOXELS) & ((target - start).norm(dim=2) < 1.2 / VOXELS)
        found = decoder(latent, grid)
        count = settings.per_voxel
        xyz, rgb = found.xyz.view(-1, count, 3), found.rgb.view(-1, count, 3)
        raw_opacity = found.raw_opacity.view(-1, count)
        weight = good.float()
        total = weight.sum().clamp_min(1)
        opaque = torch.where(good, 5.0, -3.0)
        return {
            "place": ((xyz - target).norm(dim=2) * weight).sum() / total * VOXELS,
            "color": ((rgb - color).square().mean(2) * weight).sum() / total * 4,
            "opacity": (raw_opacity - opaque).square().mean() * 0.02,
            "shape": (found.raw_scale.square().mean() + found.raw_rotation.square().mean()) * 0.1,
        }

    return losses


def _towards_surface(samples: Samples, views: Views, items: Tensor, points: Tensor) -> Tensor:
    """Move points (N, G, 3) along the gradient of the distance by the distance."""
    step = 0.4 / FINE
    eye = torch.eye(3, device=points.device) * step
    probes = torch.cat([eye.new_zeros(1, 3), eye, -eye])
    around = (points[:, :, None] + probes).flatten(1, 2)  # (N, 7 G, 3)
    distance = by_rows(samples.distance(views), items, around)
    distance = distance.view(*points.shape[:2], 7)
    gradient = F.normalize(distance[..., 1:4] - distance[..., 4:], dim=2, eps=1e-6)
    return points - gradient * distance[..., :1].clamp(-0.06, 0.06)


def both(makers: list[Callable[[int], Losses]]) -> Callable[[int], Losses]:
    """Return the losses of several networks that train side by side, names numbered."""

    def losses(step: int) -> Losses:
        return {
            f"{name} {number}": value
            for number, maker in enumerate(makers, 1)
            for name, value in maker(step).items()
        }

    return losses
