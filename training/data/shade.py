"""Colors of what rays meet: materials, light, shadow, and what a camera does to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.scenes import Random, Scenes

SOLID, STRIPE, CHECK, CLOUD, PLANK, TILE = range(6)
LUMA = (0.299, 0.587, 0.114)


def to_linear(srgb: Tensor) -> Tensor:
    """Return linear light of sRGB in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Return sRGB in [0, 1] of linear light."""
    light = light.clamp(0, 1)
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055
    )


def colors(r: Random, shape: tuple[int, ...], saturation: float = 0.8) -> Tensor:
    """Return random sRGB (..., 3): hue uniform, saturation squared, value mid to high."""
    h = r.uniform((*shape, 1)) + torch.tensor([0, 2 / 3, 1 / 3], device=r.device)
    pure = ((h % 1 * 6 - 3).abs() - 1).clamp(0, 1)
    s = r.uniform((*shape, 1)).square() * saturation
    return (1 - s * (1 - pure)) * r.uniform((*shape, 1), 0.12, 0.98)


@dataclass
class Look:
    """How B scenes look; drawn once, used for the full view and the crop."""

    tint: Tensor  # (B, K, 2, 3, 4), two affine maps of sRGB
    wave: Tensor  # (B, K, 4), where the second one holds: sin(w · p + w3) > 0.2, object frame
    grain: Tensor  # (B, K, 3), noise on objects: strength, frequency, place
    gloss: Tensor  # (B, K, 2), strength and exponent
    kind: Tensor  # (B, 3), pattern of floor and walls
    paint: Tensor  # (B, 3, 2, 3), sRGB
    pattern: Tensor  # (B, 3, 4), frequency, angle, contrast, place
    backdrop: Tensor  # (B, 2, 3), linear, above and below
    sun: Tensor  # (B, 3), towards the light, camera frame
    light: Tensor  # (B, 4), sun, ambient, fill, softness
    tone: Tensor  # (B, 5): brightness, contrast, three gains


def looks(r: Random, scenes: Scenes) -> Look:
    """Draw materials, lights, camera settings."""
    b, k = scenes.ids.shape
    kind = r.integers((b, 3), 6)
    kind[:, 1:] = torch.where(r.chance((b, 2), 0.6), SOLID, kind[:, 1:])  # walls are mostly plain
    paint = colors(r, (b, 3, 2), 0.6)
    brown = torch.tensor([0.62, 0.42, 0.25], device=r.device) * r.uniform((b, 3, 1, 1), 0.5, 1.4)
    paint = torch.where((r.chance((b, 3), 0.5) | (kind == PLANK))[..., None, None], brown, paint)
    near = paint[:, :, :1] * r.uniform((b, 3, 1, 1), 0.6, 1.3)
    paint[:, :, 1] = torch.where(r.chance((b, 3, 1), 0.75), near[:, :, 0], paint[:, :, 1])
    pale = torch.lerp(paint[:, 1:, :1], torch.ones_like(paint[:, 1:, :1]), 0.6)
    paint[:, 1:, :1] = torch.where(r.chance((b, 2, 1, 1), 0.6), pale, paint[:, 1:, :1])
    pattern = torch.stack(
        [
            r.uniform((b, 3), math.log(2.0), math.log(40.0)).exp(),
            r.uniform((b, 3), 0, 3.14),
            r.uniform((b, 3), 0.3, 1.0),
            r.uniform((b, 3)),
        ],
        -1,
    )
    azimuth, height = r.uniform((b,), -3.14, 3.14), r.uniform((b,), 0.4, 1.4)
    sun = [azimuth.sin() * height.cos(), height.sin(), azimuth.cos() * height.cos()]
    sun = (scenes.world @ torch.stack(sun, -1)[..., None])[..., 0]
    light = [r.uniform((b,), 0.15, 1.3), r.uniform((b,), 0.35, 0.9), r.uniform((b,), 0, 0.35)]
    light.append(r.uniform((b,), math.log(1.5), math.log(25)).exp())
    grain = [r.uniform((b, k)).square() * 0.5, r.uniform((b, k), 0.5, 5), r.uniform((b, k))]
    gloss = [r.uniform((b, k)).square() * 0.6, r.uniform((b, k), 2, 6).exp()]
    gains = r.normal((b, 3), 0.06).exp()
    tone = torch.cat([r.uniform((b, 1), 0.16, 0.42), r.uniform((b, 1), 0.85, 1.2), gains], 1)
    backdrop = to_linear(colors(r, (b, 2), 0.5).clamp_min(0.3))
    white = r.chance((b, 1, 1), 0.35)
    backdrop = torch.where(white, torch.ones_like(backdrop) * 0.9, backdrop)
    backdrop[:, 1] = torch.where(r.chance((b, 1), 0.5), backdrop[:, 0], backdrop[:, 1])
    grains, glosses, lights = (torch.stack(x, -1) for x in (grain, gloss, light))
    tint, wave = tints(r, b, k)
    paint = paint.clamp(0, 1)
    return Look(tint, wave, grains, glosses, kind, paint, pattern, backdrop, sun, lights, tone)


def tints(r: Random, b: int, k: int) -> tuple[Tensor, Tensor]:
    """Return recolorings: mostly slight, else another hue, one color, or stripes of one."""
    kind = r.uniform((b, k, 1, 1))
    eye = torch.eye(3, device=r.device)
    luma = torch.tensor(LUMA, device=r.device).expand(3, 3)
    slight = eye * r.uniform((b, k, 1, 1), 0.75, 1.25)
    turn = r.integers((b, k), 3)
    roll = torch.stack([eye, eye.roll(1, 0), eye.roll(2, 0)])[turn]  # channels exchanged
    mix = r.uniform((b, k, 1, 1))
    hue = torch.lerp(roll, roll.roll(1, 2), mix) * 0.9 + luma * 0.1
    scale = torch.where((kind > 0.55) & (kind <= 0.75), hue, slight)
    one = luma * r.uniform((b, k, 1, 1), 0.0, 0.5)
    base = colors(r, (b, k))[..., None] * r.uniform((b, k, 1, 1), 0.6, 1.0)
    solid = torch.cat([one, base], -1)  # (b, k, 3, 4)
    plain = torch.cat([scale, torch.zeros_like(base)], -1)
    first = torch.where((kind > 0.75) & (kind <= 0.9), solid, plain)
    second = torch.where(kind > 0.9, solid, first)
    wave = r.normal((b, k, 4)) * r.uniform((b, k, 1), 5, 25)
    return torch.stack([first, second], 2), wave


def recolor(tint: Tensor, wave: Tensor, points: Tensor, color: Tensor) -> Tensor:
    """Return sRGB (N, 3) of objects that were recolored.

    tint (N, 2, 3, 4), wave (N, 4), points (N, 3) in the object frame, color (N, 3) in [0, 1].
    """
    second = ((points * wave[:, :3]).sum(-1) + wave[:, 3]).sin() > 0.2  # (N,)
    chosen = torch.where(second[:, None, None], tint[:, 1], tint[:, 0])
    return ((chosen[:, :, :3] @ color[..., None])[..., 0] + chosen[:, :, 3]).clamp(0, 1)


class Noise:
    """Smooth noise in [0, 1] that repeats: four octaves, one table."""

    def __init__(self, device: torch.device | str, size: int = 256):
        generator = torch.Generator().manual_seed(5)
        total = torch.zeros(1, 1, size, size)
        for octave, weight in ((8, 1.0), (16, 0.6), (32, 0.4), (64, 0.3), (256, 0.15)):
            raw = F.pad(
                torch.randn(1, 1, octave, octave, generator=generator), (2,) * 4, "circular"
            )
            up = F.interpolate(raw, scale_factor=size // octave, mode="bicubic")
            edge = 2 * (size // octave)
            total += weight * up[..., edge : edge + size, edge : edge + size]
        total = ((total - total.mean()) / total.std() * 0.2 + 0.5).clamp(0, 1)
        self.table = F.pad(total, (0, 1, 0, 1), "circular").to(device)

    def __call__(self, u: Tensor, v: Tensor) -> Tensor:
        """Return noise at coordinates of any shape; it repeats with period 1."""
        at = torch.stack([u, v], -1)
        at = (at - at.floor()).view(1, 1, -1, 2) * 2 - 1
        return F.grid_sample(self.table, at, align_corners=True).view(u.shape)


def plane_color(
    noise: Noise, kind: Tensor, paint: Tensor, pattern: Tensor, u: Tensor, v: Tensor, blur: Tensor
) -> Tensor:
    """Return sRGB (B, R, 3) of plane points u, v (B, R); blur: a pixel's size there.

    kind (B, R), paint (B, R, 2, 3), pattern (B, R, 4).
    """
    frequency, angle, contrast, place = pattern.unbind(-1)
    x = (u * angle.cos() + v * angle.sin()) * frequency + place * 50
    y = (v * angle.cos() - u * angle.sin()) * frequency
    cloud = noise(x * 0.05 + place, y * 0.05)
    fine = noise(x * 0.013 + place, y * 0.3) - 0.5
    row = (y / 1.5).floor()
    each = ((row * 12.9898 + ((x / 9 + row * 0.37).floor()) * 4.1).sin() * 43758.5453) % 1
    seam = ((y / 1.5) % 1 < 0.05) | ((x / 9 + row * 0.37) % 1 < 0.008)
    grout = ((x / 3) % 1 < 0.06) | ((y / 3) % 1 < 0.06)
    choices = torch.stack(
        [
            torch.zeros_like(x),
            (x.sin() > 0).float(),
            ((x.sin() * y.sin()) > 0).float(),
            ((cloud - 0.5) * 2.5 + 0.5).clamp(0, 1),
            (each * 0.6 + fine * 0.8 + seam * 0.5).clamp(0, 1.2),
            grout.float(),
        ],
        -1,
    )
    mix = choices.gather(-1, kind[..., None])[..., 0]
    keep = (1.3 - blur * frequency * 0.5).clamp(0, 1)
    mix = 0.4 + (mix - 0.4) * keep
    mix = torch.where(kind == SOLID, 0.0, mix) * contrast
    color = torch.lerp(paint[..., 0, :], paint[..., 1, :], mix[..., None])
    return (color * (0.9 + 0.2 * cloud[..., None])).clamp(0, 1)


def light_up(
    albedo: Tensor,  # (B, R, 3), linear
    normal: Tensor,  # (B, R, 3), camera frame
    view: Tensor,  # (B, R, 3), unit, towards the camera
    shadow: Tensor,  # (B, R), 1 in the light
    open: Tensor,  # (B, R), 1 where nothing is near
    gloss: Tensor,  # (B, R, 2)
    look: Look,
    up: Tensor,  # (B, 3)
) -> Tensor:
    """Return linear light (B, R, 3): sun with shadow, sky from above, fill from the camera."""
    sun = look.sun[:, None]
    facing = (normal * sun).sum(-1).clamp_min(0) * shadow
    sky = 0.65 + 0.35 * (normal * up[:, None]).sum(-1)
    fill = (normal * view).sum(-1).clamp_min(0)
    strength = look.light[:, None]
    open = 0.35 + 0.65 * open
    total = strength[..., 0] * facing + (strength[..., 1] * sky + strength[..., 2] * fill) * open
    middle = F.normalize(sun + view, dim=-1)
    shine = (normal * middle).sum(-1).clamp_min(1e-4) ** gloss[..., 1] * gloss[..., 0]
    return albedo * total[..., None] + (shine * shadow * strength[..., 0])[..., None]


def exposure(light: Tensor, valid: Tensor, look: Look) -> Tensor:
    """Return the gain (B, 1, 1) that brings the photo's mean luminance to the wanted one."""
    luma = (light * light.new_tensor(LUMA)).sum(-1).clamp_max(4) * valid
    mean = luma.sum(1) / valid.sum(1).clamp_min(1)
    return (look.tone[:, 0] / mean.clamp_min(1e-4))[:, None, None]


def develop(
    light: Tensor,  # (B, R, 3), linear
    gain: Tensor,  # (B, 1, 1)
    look: Look,
    size: int,
    r: Random,
) -> Tensor:
    """Return photos (B, 3, S, S) in [0, 1]: tone, blur, noise, blocks of JPEG."""
    x = light * gain * look.tone[:, None, 2:]
    x = torch.where(x < 0.8, x, 1 - 0.2 * torch.exp(-(x - 0.8) / 0.2))  # a soft shoulder
    x = to_srgb(x) ** look.tone[:, None, 1:2]
    x = x.mT.reshape(-1, 3, size, size)
    b = len(x)
    wide = r.chance((b,), 0.12)
    sigma = torch.where(wide, r.uniform((b,), 0.7, 1.6), r.uniform((b,), 0.3, 0.65))
    x = blur(x, sigma)
    strength = r.uniform((b, 1, 1, 1)).square() * 0.035
    x = x + strength * r.normal((b, 3, size, size))
    if size % 8 == 0:
        quality = r.uniform((b,)).square() * 0.12 * r.chance((b,), 0.5)
        x = jpeg(x, quality)
    return x.clamp(0, 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Return images (B, C, H, W) after a Gaussian blur of sigma (B,) pixels."""
    b, c, h, w = x.shape
    taps = torch.arange(-3, 4, device=x.device)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]  # (BC, 1, 7)
    y = F.pad(x.reshape(1, b * c, h, w), (3, 3, 3, 3), mode="reflect")
    y = F.conv2d(y, kernel[:, :, None], groups=b * c)
    return F.conv2d(y, kernel[..., None], groups=b * c).view(b, c, h, w)


def jpeg(x: Tensor, strength: Tensor) -> Tensor:
    """Round 8 x 8 cosine transforms of images (B, C, H, W); coarser for high frequencies."""
    k = torch.arange(8, device=x.device, dtype=torch.float32)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) / 2
    basis[0] /= math.sqrt(2)
    b, c, h, w = x.shape
    blocks = x.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)  # (B, C, h, w, 8, 8)
    waves = basis @ blocks @ basis.T
    step = (strength[:, None, None] * (1 + k[:, None] + k)).view(b, 1, 1, 1, 8, 8).clamp_min(1e-4)
    blocks = basis.T @ ((waves / step).round() * step) @ basis
    return blocks.transpose(3, 4).reshape(b, c, h, w)
