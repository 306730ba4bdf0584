"""Rendered training samples, made in batches on the device.

python -m training.data.pool --count 2048 --bench     # rates and memory, stage by stage
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from training.data.objects import Objects, merge
from training.data.render import Renderer, View
from training.data.scenes import FIELD_OF_VIEW, Random, Scenes, sample
from training.data.shade import Look, Noise, develop, exposure, looks, recolor

ZOOM = 8
"""The crop's box is that of a mask whose pixels are split into ZOOM x ZOOM smaller ones."""
BOX_FACTOR = 1.2
LEAST_AREA, LEAST_VISIBLE = 0.015, 0.3


@dataclass
class Pool:
    """N samples; tensors on one device. Crops first, `full_` is the padded square photo."""

    image: Tensor  # (N, 3, S, S) uint8, black outside the photo
    full_image: Tensor  # (N, 3, S, S) uint8
    mask: Tensor  # (N, S, S) bool, visible pixels of the object
    full_mask: Tensor  # (N, S, S) bool
    points: Tensor  # (N, 3, S, S) float16, camera frame, minus center; NaN where unknown
    full_points: Tensor  # (N, 3, S, S) float16
    photo: Tensor  # (N, S, S) bool, inside the photo
    full_photo: Tensor  # (N, S, S) bool
    center: Tensor  # (N, 3), center of the object's box, camera frame, metres
    object: Tensor  # (N,) int64
    linear: Tensor  # (N, 3, 3), p_cam = linear @ p_obj + offset
    offset: Tensor  # (N, 3)
    up: Tensor  # (N, 3), up of the scene, camera frame
    intrinsics: Tensor  # (N, 3, 3), pixels of the crop
    full_intrinsics: Tensor  # (N, 3, 3)
    visible: Tensor  # (N,), visible share of the object's silhouette
    tint: Tensor  # (N, 2, 3, 4), see `recolor`
    wave: Tensor  # (N, 4)

    def __len__(self) -> int:
        return len(self.object)

    def recolor(self, index: Tensor, points: Tensor, color: Tensor) -> Tensor:
        """Return the samples' own sRGB (B, Q, 3): objects are recolored at random.

        index (B,), points (B, Q, 3) in the object frame, color (B, Q, 3) from `Objects.query`.
        """
        n = points.shape[1]
        tint, wave = (x[index].repeat_interleave(n, 0) for x in (self.tint, self.wave))
        return recolor(tint, wave, points.reshape(-1, 3), color.reshape(-1, 3)).view_as(color)

    def select(self, index: Tensor | slice) -> Pool:
        """Return samples `index`."""
        return Pool(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Pool:
        """Return a copy on `device`."""
        return Pool(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))


def join(parts: list[Pool]) -> Pool:
    """Concatenate pools."""
    return Pool(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Pool)})


def mask_boxes(mask: Tensor) -> Tensor:
    """Return crops (B, 3): left, top and side in pixels of masks (B, S, S), none of them empty.

    What `crop_box` and `pad_square` of the package make out of the mask after ZOOM-fold nearest
    upsampling, divided by ZOOM.
    """
    size = mask.shape[-1]
    at = torch.arange(size, device=mask.device)
    low, high = [], []
    for other in (1, 2):  # columns, rows
        line = mask.any(other)  # (B, S)
        low.append(torch.where(line, at, size).amin(1) * ZOOM)
        high.append(torch.where(line, at, -1).amax(1) * ZOOM + ZOOM - 1)
    first, last = torch.stack(low, 1).double(), torch.stack(high, 1).double()
    half = ((last - first).amax(1, keepdim=True) * BOX_FACTOR).floor() // 2
    middle = (first + last) / 2
    start, stop = (middle - half).trunc(), (middle + half).trunc()
    side = (stop - start).amax(1, keepdim=True)
    start = start - ((side - (stop - start)) / 2).floor()
    return (torch.cat([start, side], 1) / ZOOM).float()


def crop_intrinsics(full: Tensor, box: Tensor, size: int) -> Tensor:
    """Return intrinsics (B, 3, 3) of crops `box` (B, 3) at `size` pixels, of `full`."""
    scale = size / box[:, 2]
    k = full.clone()
    k[:, 0, 0], k[:, 1, 1] = full[:, 0, 0] * scale, full[:, 1, 1] * scale
    k[:, :2, 2] = (full[:, :2, 2] - box[:, :2]) * scale[:, None]
    return k


def _picked(thing, index: Tensor):
    return type(thing)(**{f.name: getattr(thing, f.name)[index] for f in fields(thing)})


def render_batch(
    objects: Objects,
    count: int,
    r: Random,
    noise: Noise,
    size: int,
    targets: Tensor | None = None,
    field_of_view: tuple[float, float] = FIELD_OF_VIEW,
) -> Pool | None:
    """Return the good ones of `count` random samples, None if none is; photo first, then crop."""
    scenes = sample(objects, count, r, targets, field_of_view)
    keep = scenes.valid.nonzero()[:, 0]
    if not len(keep):
        return None
    scenes = _picked(scenes, keep)
    look = looks(r, scenes)
    renderer = Renderer(objects, scenes, look, noise)
    k = scenes.intrinsics(size)
    full = renderer.view(k, size)
    visible = full.mask.sum(1) / full.whole.sum(1).clamp_min(1)
    good = (full.mask.sum(1) >= LEAST_AREA * full.photo.sum(1)) & (visible >= LEAST_VISIBLE)
    grid = full.mask.view(-1, size, size)
    good &= (grid.any(1).sum(1) > 3) & (grid.any(2).sum(1) > 3)
    keep = good.nonzero()[:, 0]
    if not len(keep):
        return None
    scenes, look, full = _picked(scenes, keep), _picked(look, keep), _picked(full, keep)
    k, visible = k[keep], visible[keep]
    gain = exposure(full.light, full.photo, look)
    box = mask_boxes(full.mask.view(-1, size, size))
    close = crop_intrinsics(k, box, size)
    crop = Renderer(objects, scenes, look, noise).view(close, size)
    parts = _pixels(crop, scenes, look, gain, size, r) | {
        f"full_{name}": x for name, x in _pixels(full, scenes, look, gain, size, r).items()
    }
    unit = scenes.unit[:, None]
    return Pool(
        **parts,
        center=scenes.offset[:, 0] * unit,
        object=scenes.ids[:, 0],
        linear=scenes.linear[:, 0] * unit[:, None],
        offset=scenes.offset[:, 0] * unit,
        up=scenes.world[:, :, 1],
        intrinsics=close,
        full_intrinsics=k,
        visible=visible,
        tint=look.tint[:, 0],
        wave=look.wave[:, 0],
    )


def _pixels(
    view: View, scenes: Scenes, look: Look, gain: Tensor, size: int, r: Random
) -> dict[str, Tensor]:
    image = develop(view.light, gain, look, size, r)
    photo = view.photo.view(-1, size, size)
    points = (view.points - scenes.offset[:, :1]) * scenes.unit[:, None, None]
    return {
        "image": ((image * photo[:, None]) * 255 + 0.5).byte(),
        "mask": view.mask.view(-1, size, size),
        "points": points.mT.reshape(-1, 3, size, size).half(),
        "photo": photo,
    }


def build_pool(
    objects: Objects,
    count: int,
    seed: int,
    device: torch.device | str | None = None,
    size: int = 112,
    batch: int | None = None,
    objects_in_turn: bool = False,
    field_of_view: tuple[float, float] = FIELD_OF_VIEW,
) -> Pool:
    """Render `count` samples of random objects; the same seed and device give the same pool.

    batch: scenes at once; the default needs some 12 GB at 112 pixels on a GPU. objects_in_turn:
    every object once before any comes twice (of good samples), instead of by chance. field_of_view:
    in degrees. Raises `ValueError` when none of some hundred scenes can be used.
    """
    device = torch.device(objects.device if device is None else device)
    if objects.device.type != device.type:
        objects = objects.to(device)
    if batch is None:
        batch = max(1, (256 if device.type == "cuda" else 8) * 112**2 // size**2)
    r = Random(torch.Generator(device).manual_seed(seed))
    noise = Noise(device)
    parts: list[Pool] = []
    made, turn, tried = 0, 0, 0
    while made < count:
        if tried >= 300 and not made:
            raise ValueError(
                f"no usable photo in {tried} scenes; are the {len(objects)} objects empty?"
            )
        tried += batch
        targets = None
        if objects_in_turn:
            targets = (torch.arange(batch, device=device) + turn) % len(objects)
            turn += batch
        part = render_batch(objects, batch, r, noise, size, targets, field_of_view)
        if part is not None:
            made += len(part)
            parts.append(part)
    return join(parts).select(slice(0, count))


def bench(count: int, device: torch.device, size: int, grid: int, path: Path) -> None:
    """Print rates and memory of every stage."""
    from training.data.fields import furniture
    from training.data.shapes import procedural

    def timed(label: str, make, number):
        start = time.perf_counter()
        result = make()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
        done = number(result)
        print(
            f"{label}: {done} in {spent:.2f} s, {done / spent:.1f} /s, peak {peak:.2f} GiB",
            flush=True,
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return result

    cuda = device.type == "cuda"
    parts = [timed("procedural objects", lambda: procedural(
        range(1000 if cuda else 16), device, grid), len)]  # fmt: skip
    if path.exists():
        parts.append(timed("furniture objects", lambda: furniture(
            path, device, grid, limit=None if cuda else 4), len))  # fmt: skip
    objects = merge(parts)
    bytes_each = (objects.sdf.nbytes + objects.color.nbytes + objects.points.nbytes) / len(objects)
    print(f"one object: {bytes_each / 2**20:.2f} MiB")
    timed("first samples", lambda: build_pool(objects, min(count, 64), 0, device, size), len)
    pool = timed("samples", lambda: build_pool(objects, count, 1, device, size), len)
    print(f"one sample: {pool.nbytes / len(pool) / 2**20:.3f} MiB")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--bench", action="store_true", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--grid", type=int, default=96)
    parser.add_argument("--furniture", type=Path, default=Path(".carry/furniture.npz"))
    a = parser.parse_args()
    bench(a.count, torch.device(a.device), a.size, a.grid, a.furniture)


if __name__ == "__main__":
    main()
