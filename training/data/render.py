"""Pictures, masks and point maps of scenes, by sphere tracing; batched over scenes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.objects import Objects
from training.data.scenes import Scenes
from training.data.shade import Look, Noise, light_up, plane_color, recolor, to_linear
from training.data.trace import Atlas, gradient, meet_cubes, trace, visibility

FAR = 40.0
"""Planes beyond this depth, in sizes of the target, count as background."""


@dataclass
class View:
    """What R rays of B scenes see."""

    light: Tensor  # (B, R, 3), linear, before exposure
    mask: Tensor  # (B, R) bool, visible target
    whole: Tensor  # (B, R) bool, target if nothing stood before it
    points: Tensor  # (B, R, 3), camera frame, NaN for background
    photo: Tensor  # (B, R) bool, inside the photo


def pixel_rays(intrinsics: Tensor, size: int) -> Tensor:
    """Return rays (B, S * S, 3) with z = 1 through pixel centers."""
    at = torch.arange(size, device=intrinsics.device) + 0.5
    v, u = torch.meshgrid(at, at, indexing="ij")
    x = (u.reshape(1, -1) - intrinsics[:, :1, 2]) / intrinsics[:, :1, 0]
    y = (v.reshape(1, -1) - intrinsics[:, 1:2, 2]) / intrinsics[:, 1:2, 1]
    return torch.stack([x, y, torch.ones_like(x)], -1)


class Renderer:
    """Renders views of one batch of scenes; keeps their distance grids together."""

    def __init__(self, objects: Objects, scenes: Scenes, look: Look, noise: Noise):
        self.scenes, self.look, self.noise = scenes, look, noise
        self.atlas = Atlas(objects, scenes.ids)
        self.origin, self.inverse = scenes.inverse()

    def view(self, intrinsics: Tensor, size: int) -> View:
        """Render at `size` x `size` pixels with intrinsics (B, 3, 3)."""
        s = self.scenes
        rays = pixel_rays(intrinsics, size)
        depths = trace(self.atlas, self.origin, self.inverse, s.extent, s.present, rays)
        nearest, which = depths.min(1)  # (B, R)
        plane, which_plane = self._planes(rays)
        on_object = nearest < plane
        depth = torch.minimum(nearest, plane)
        hit = depth < torch.inf
        points = rays * torch.where(hit, depth, 1.0)[..., None]
        albedo, normal, gloss = self._surfaces(points, on_object, which, which_plane, intrinsics)
        view = -F.normalize(rays, dim=-1)
        normal = torch.where((normal * view).sum(-1, keepdim=True) < 0, -normal, normal)
        shadow, open = self._surroundings(points, normal, hit)
        light = light_up(albedo, normal, view, shadow, open, gloss, self.look, s.world[:, :, 1])
        height = (view * -s.world[:, None, :, 1]).sum(-1, keepdim=True)
        fade = (height * 1.5 + 0.5).clamp(0, 1)
        sky = torch.lerp(self.look.backdrop[:, None, 1], self.look.backdrop[:, None, 0], fade)
        light = torch.where(hit[..., None], light, sky)
        photo = self._photo(rays)
        mask = on_object & (which == 0) & photo
        return View(
            light, mask, (depths[:, 0] < torch.inf) & photo,
            torch.where((hit & photo)[..., None], points, torch.nan), photo,
        )  # fmt: skip

    def _photo(self, rays: Tensor) -> Tensor:
        at = rays[..., :2] * self.scenes.focal[:, None, None] + 0.5  # (B, R, 2), sides
        low, high = self.scenes.photo[:, None, :2], self.scenes.photo[:, None, 2:]
        return ((at >= low) & (at < high)).all(-1)

    def _planes(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Return depth (B, R) and number (B, R) of the nearest plane."""
        s = self.scenes
        slope = torch.einsum("bpi,bri->bpr", s.planes[..., :3], rays)
        depth = s.planes[:, :, 3:] / torch.where(slope.abs() < 1e-6, -1e-6, slope)
        good = (depth > 1e-3) & (depth < FAR) & (slope < 0) & s.plane_there[..., None]
        return torch.where(good, depth, torch.inf).min(1)

    def _surfaces(
        self, points: Tensor, on_object: Tensor, which: Tensor, plane: Tensor, intrinsics: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return linear albedo, normal (B, R, 3) and gloss (B, R, 2) of the nearest surfaces."""
        albedo, normal = self._plane_surfaces(points, plane, intrinsics)
        gloss = torch.zeros_like(points[..., :2])
        gloss[..., 1] = 1
        b, ray = on_object.nonzero(as_tuple=True)  # waits for the device
        k = which[b, ray]
        slot = self.atlas.slots[b, k]
        inverse = self.inverse[b, k]
        local = (inverse @ points[b, ray, :, None])[..., 0] + self.origin[b, k]
        color = self.atlas.albedo(slot, local)
        color = recolor(self.look.tint[b, k], self.look.wave[b, k], local, color)
        strength, frequency, place = self.look.grain[b, k].unbind(-1)
        u = (local[:, 0] + 0.37 * local[:, 2]) * frequency + place
        grain = self.noise(u, (local[:, 1] + 0.61 * local[:, 2]) * frequency)
        albedo[b, ray] = to_linear(color) * (1 + strength * (grain - 0.5) * 2)[:, None]
        way = gradient(self.atlas, slot, local)
        normal[b, ray] = F.normalize((inverse.mT @ way[..., None])[..., 0], dim=-1)
        gloss[b, ray] = self.look.gloss[b, k]
        return albedo, normal, gloss

    def _plane_surfaces(
        self, points: Tensor, plane: Tensor, intrinsics: Tensor
    ) -> tuple[Tensor, Tensor]:
        s, look = self.scenes, self.look
        index = plane[..., None]
        normal = s.planes[..., :3].gather(1, index.expand(-1, -1, 3))
        up, right = s.world[:, None, :, 1], s.world[:, None, :, 0]
        on_floor = index == 0
        first = torch.where(on_floor, right.expand_as(normal), torch.linalg.cross(up, normal))
        first = F.normalize(first - (first * normal).sum(-1, keepdim=True) * normal, dim=-1)
        second = torch.linalg.cross(normal, first)
        u, v = (points * first).sum(-1), (points * second).sum(-1)
        slope = (F.normalize(points, dim=-1) * normal).sum(-1).abs().clamp_min(0.02)
        blur = points[..., 2] / intrinsics[:, :1, 0] / slope
        kind = look.kind.gather(1, plane)
        paint = look.paint.gather(1, plane[..., None, None].expand(-1, -1, 2, 3))
        pattern = look.pattern.gather(1, index.expand(-1, -1, 4))
        srgb = plane_color(self.noise, kind, paint, pattern, u, v, blur)
        return to_linear(srgb), normal

    def _surroundings(self, points: Tensor, normal: Tensor, hit: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much sun (B, R) reaches points, and how open (B, R) their surroundings are."""
        s, atlas = self.scenes, self.atlas
        start = points + normal * 0.012
        sun = self.look.sun
        way = torch.einsum("bkij,bj->bki", self.inverse, sun)[:, :, None]  # (B, K, 1, 3)
        at = torch.einsum("bkij,brj->bkri", self.inverse, start) + self.origin[:, :, None]
        margin = s.extent[:, :, None] + 0.03
        enter, leave = meet_cubes(at, way, margin)
        candidate = (enter < leave) & (leave > 0.01) & s.present[:, :, None] & hit[:, None]
        b, k, r = candidate.nonzero(as_tuple=True)  # waits for the device
        soft = self.look.light[b, 3]
        seen = visibility(
            atlas,
            atlas.slots[b, k],
            at[b, k, r],
            way[b, k, 0],
            enter[b, k, r],
            leave[b, k, r],
            soft,
        )
        shadow = torch.ones_like(enter)
        shadow[b, k, r] = seen
        return shadow.amin(1), self._open(points, normal, hit)

    def _open(self, points: Tensor, normal: Tensor, hit: Tensor) -> Tensor:
        """Return ambient visibility (B, R): distances at steps along the normal, nearby objects."""
        s, atlas = self.scenes, self.atlas
        result = torch.ones_like(points[..., 0])
        for length in (0.04, 0.14):
            at = points + normal * length
            local = torch.einsum("bkij,brj->bkri", self.inverse, at) + self.origin[:, :, None]
            near = (local.abs() < s.extent[:, :, None] + length / s.size[..., None, None]).all(-1)
            near &= s.present[:, :, None] & hit[:, None]
            b, k, r = near.nonzero(as_tuple=True)  # waits for the device
            d = atlas.distance(atlas.slots[b, k], local[b, k, r]) * s.size[b, k]
            share = torch.ones_like(near, dtype=torch.float32)
            share[b, k, r] = (d / length).clamp(0, 1)
            result = result * (0.5 + 0.5 * share.amin(1))
            height = torch.einsum("bpi,bri->bpr", s.planes[..., :3], at) - s.planes[:, :, 3:]
            height = torch.where(s.plane_there[..., None], height, torch.inf)
            result = result * (0.6 + 0.4 * (height / length).clamp(0, 1).amin(1))
        return result
