"""Pictures of gaussians, headless: blended from front to back, as viewers of splats do it.

Each gaussian is projected to an ellipse by the derivative of the camera at its center (EWA
splatting, Zwicker and others 2001) and is a little wider than a pixel at least (Kerbl and others
2023).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.splats import Gaussians
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.scan import expand

WIDEN = 0.3  # variance in pixels that is added to every ellipse
REACH = 3.0  # standard deviations that are drawn
FAINTEST = 1 / 255
PIECE = 1 << 21  # pixels of ellipses worked on at once
NEAR = 1e-6


def splat_picture(
    gaussians: Gaussians, camera: Camera, background: tuple[int, int, int]
) -> np.ndarray:
    """Return what a pinhole `camera` sees of gaussians in its world, (H, W, 3) uint8 sRGB."""
    ellipses = _project(gaussians, camera)
    pixels = camera.height * camera.width
    color = torch.zeros(pixels, 3, dtype=torch.float64)
    clear = torch.ones(pixels, dtype=torch.float64)  # how much of what is behind comes through
    for first, last in pairwise(_pieces(ellipses)):
        part = {name: values[first:last] for name, values in ellipses.items()}
        _blend(part, camera, color, clear)
    behind = torch.tensor(background, dtype=torch.float64) / 255
    seen = color + clear[:, None] * behind
    picture = (seen.clamp(0, 1) * 255).round().to(torch.uint8)
    return picture.view(camera.height, camera.width, 3).numpy()


def _project(gaussians: Gaussians, camera: Camera) -> dict[str, Tensor]:
    """Return the ellipses on the screen, the nearest first.

    center (N, 2) in pixels, conic (N, 3) with the exponent -(a x^2 + 2 b x y + c y^2) / 2, low and
    high (N, 2) pixels inclusive, color (N, 3), opacity (N,).
    """
    place = camera.to_camera(torch.from_numpy(gaussians.centers))  # (K, 3) float64
    kept = ((place[:, 2] > NEAR) & torch.from_numpy(gaussians.opacities > FAINTEST)).nonzero()[:, 0]
    kept = kept[place[kept, 2].argsort(stable=True)]
    x, y, z = place[kept].unbind(1)
    k = torch.from_numpy(camera.intrinsics)
    zero = torch.zeros_like(z)
    slope = torch.stack(
        [
            torch.stack([k[0, 0] / z, k[0, 1] / z, -(k[0, 0] * x + k[0, 1] * y) / z**2], 1),
            torch.stack([zero, k[1, 1] / z, -k[1, 1] * y / z**2], 1),
        ],
        1,
    )  # (N, 2, 3)
    axes = torch.from_numpy(gaussians.axes)
    spread = slope @ torch.from_numpy(camera.rotation) @ axes[kept]  # (N, 2, 3)
    spread = spread @ spread.mT + WIDEN * torch.eye(2, dtype=torch.float64)  # (N, 2, 2)
    center = torch.stack([k[0, 0] * x + k[0, 1] * y, k[1, 1] * y], 1) / z[:, None] + k[:2, 2]
    reach = REACH * torch.stack([spread[:, 0, 0], spread[:, 1, 1]], 1).sqrt()
    most = torch.tensor([camera.width - 1, camera.height - 1])
    low = (center - reach - 0.5).ceil().clamp(-1, 1 << 20).long().clamp(min=0)
    high = (center + reach - 0.5).floor().clamp(-1, 1 << 20).long().minimum(most)
    flat = torch.linalg.det(spread)
    conic = torch.stack([spread[:, 1, 1], -spread[:, 0, 1], spread[:, 0, 0]], 1) / flat[:, None]
    return {
        "center": center,
        "conic": conic,
        "low": low,
        "high": high,
        "color": torch.from_numpy(gaussians.colors)[kept].double().clamp(0, 1),
        "opacity": torch.from_numpy(gaussians.opacities)[kept].double(),
    }


def _pieces(ellipses: dict[str, Tensor]) -> list[int]:
    """Return where to cut the ellipses so that each piece has about `PIECE` pixels."""
    sides = (ellipses["high"] - ellipses["low"] + 1).clamp(min=0)
    total = sides.prod(1).cumsum(0)
    if not len(total):
        return [0]
    goals = torch.arange(PIECE, int(total[-1]) + PIECE, PIECE)
    cuts = torch.searchsorted(total, goals).add(1).clamp(max=len(total)).tolist()
    return sorted({0, *cuts, len(total)})


def _blend(part: dict[str, Tensor], camera: Camera, color: Tensor, clear: Tensor) -> None:
    """Lay a piece of ellipses, the nearest first, behind what `color` and `clear` hold."""
    sides = (part["high"] - part["low"] + 1).clamp(min=0)
    count = sides.prod(1)
    pieces = list(expand(count, max(1, int(count.sum()))))
    if not pieces:
        return
    owner, step = (torch.cat(lists) for lists in zip(*pieces, strict=True))
    u = part["low"][owner, 0] + step % sides[owner, 0]
    v = part["low"][owner, 1] + torch.div(step, sides[owner, 0], rounding_mode="floor")
    off_u = u + 0.5 - part["center"][owner, 0]
    off_v = v + 0.5 - part["center"][owner, 1]
    a, b, c = part["conic"][owner].unbind(1)
    power = -(a * off_u**2 + 2 * b * off_u * off_v + c * off_v**2) / 2
    alpha = (part["opacity"][owner] * power.exp()).clamp(max=0.99)
    pixel = v * camera.width + u
    strong = ((alpha > FAINTEST) & (clear[pixel] > 1e-3)).nonzero()[:, 0]
    strong = strong[pixel[strong].argsort(stable=True)]  # by pixel, and there the nearest first
    owner, pixel, alpha = owner[strong], pixel[strong], alpha[strong]
    if not len(pixel):
        return
    through = torch.log1p(-alpha)
    before = through.cumsum(0) - through
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    start = before[first][first.cumsum(0) - 1]
    weight = alpha * clear[pixel] * (before - start).exp()
    color.index_add_(0, pixel, weight[:, None] * part["color"][owner])
    clear *= torch.zeros_like(clear).index_add_(0, pixel, through).exp()
