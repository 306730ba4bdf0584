"""Image, mask and point map to network inputs: frames, moments, crop, padding, resizing.

Frames: OpenCV (x right, y down, z forward) outside the network; the network's camera frame is
x left, y up, z forward. Everything here is exact float32 tensor work on any device; a photo is
best prepared on the CPU.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import PreprocessConfig

NAN = float("nan")
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, half-open, may leave the image


@dataclass(frozen=True)
class Moments:
    """Scale and shift that take network units to units of the point map: x · scale + shift."""

    scale: Tensor  # (3,), three equal numbers
    shift: Tensor  # (3,), camera frame


@dataclass(frozen=True)
class ConditionInputs:
    """The preprocessed inputs of both stages' condition embedders, with a batch axis of 1.

    `tensors`: `image`, `rgb_image` (1, 3, S, S) in [0, 1]; `mask`, `rgb_image_mask` (1, 1, S, S);
    with a point map also `pointmap`, `rgb_pointmap` (1, 3, S, S), NaN where unknown. Names that
    begin with `rgb_` are the full view, the others the crop around the mask.
    """

    tensors: dict[str, Tensor]
    moments: Moments

    def to(self, device: torch.device | str) -> "ConditionInputs":
        """Return a copy on `device`; the moments stay where they are."""
        return replace(self, tensors={k: v.to(device) for k, v in self.tensors.items()})


def image_tensor(image: Tensor) -> Tensor:
    """Return an image uint8 (H, W, 3 or more) as float32 (3, H, W) in [0, 1], alpha dropped."""
    if image.ndim != 3 or image.shape[2] < 3 or image.dtype != torch.uint8:
        raise InputError(
            f"image: {_describe(image)} must be uint8 of shape (H, W, 3); convert it to 8-bit RGB"
        )
    return image[..., :3].permute(2, 0, 1).float() / 255


def mask_tensor(mask: Tensor) -> Tensor:
    """Return a mask (H, W), bool or soft in [0, 1], as float32 (1, H, W)."""
    if mask.ndim != 2 or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise InputError(
            f"mask: {_describe(mask)} must be bool, or floating in [0, 1], of shape (H, W)"
        )
    values = mask.float()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise InputError("mask: values must lie in [0, 1]; divide a 0..255 mask by 255")
    return values[None]


def flip_frame(points: Tensor) -> Tensor:
    """Turn points (..., 3) from the OpenCV frame into the network's camera frame, or back.

    x and y change sign. A point with a coordinate that is not finite becomes NaN in all three.
    """
    if points.shape[-1] != 3:
        raise InputError(f"points: shape {tuple(points.shape)} must end in 3 coordinates")
    flipped = points * points.new_tensor([-1.0, -1.0, 1.0])
    return flipped.masked_fill(~points.isfinite().all(dim=-1, keepdim=True), NAN)


def pointmap_tensor(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a point map (h, w, 3) in the camera frame to an image of `size` (H, W): (3, H, W).

    Plain nearest sampling (row floor(i h / H)); values pass through as they are.
    """
    if points.ndim != 3 or points.shape[2] != 3 or not points.is_floating_point():
        raise InputError(f"point map: {_describe(points)} must be floating of shape (h, w, 3)")
    return _nearest(points.float().permute(2, 0, 1), size)


def shrink(view: Tensor) -> Tensor:
    """Shrink an image or point map (C, H, W) for display; NaN spreads to what it touches.

    Half the side above 1200 px, a quarter above 1900 px, unchanged up to 1200 px.
    """
    longer = max(view.shape[-2:])
    factor = 0.25 if longer > 1900 else 0.5 if longer > 1200 else 1.0
    if factor == 1.0:
        return view
    small = F.interpolate(
        view.float().cpu()[None], scale_factor=factor, mode="bilinear", antialias=True
    )
    return small[0].to(view.device)


def resize_antialiased(
    x: Tensor, size: tuple[int, int], mode: Literal["bilinear", "bicubic"]
) -> Tensor:
    """Resize (C, H, W) to (C, *size) with antialiasing, in float32 (on MPS by way of the CPU)."""
    source = x.float().cpu() if x.device.type == "mps" else x.float()
    return F.interpolate(source[None], size, mode=mode, antialias=True)[0].to(x.device)


def pointmap_moments(
    pointmap: Tensor, mask: Tensor, unit: Literal["scene", "object"] = "scene"
) -> Moments:
    """Return the object's median point and the photo's, or the object's, median distance from it.

    `pointmap` (3, H, W) with holes, `mask` (1, H, W); pixels above 0.5 are the object. Medians
    leave NaN out and take the lower of two middle values. An object without any finite
    coordinate has scale 1 and shift 0. Raises `InputError` for a mask without such a pixel, and
    for a point map whose moments are not usable.
    """
    on_object = pointmap[:, mask[0] > 0.5]  # (3, n)
    if on_object.shape[1] == 0:
        raise InputError("mask: no value is above 0.5, so no point of the point map is selected")
    if not bool(on_object.isfinite().any()):
        return Moments(scale=pointmap.new_ones(3), shift=pointmap.new_zeros(3))
    shift = on_object.nanmedian(dim=1).values  # (3,)
    distance = (pointmap - shift[:, None, None]).abs().amax(dim=0)  # (H, W), NaN from any channel
    counted = distance if unit == "scene" else distance[mask[0] > 0.5]
    scale = counted.nanmedian().expand(3)
    if not bool(shift.isfinite().all() and scale.isfinite().all() and scale[0] > 0):
        raise InputError(
            f"point map: median point {shift.tolist()} of the object and median distance "
            f"{float(scale[0])} from it must be finite, the distance positive; mark unknown "
            "points as NaN, or leave the point map out"
        )
    return Moments(scale=scale, shift=shift)


def crop_box(mask: Tensor, factor: float) -> Box:
    """Return the square crop around the nonzero pixels of `mask` (1, H, W).

    Its side is `factor` times the longer side of the pixels' box, sides counted as largest minus
    smallest index. Corners are truncated towards zero, so that it can be one pixel off square.
    Raises `InputError` for an empty mask, and for a box below 2 px.
    """
    rows, columns = mask[0].any(dim=1).nonzero(), mask[0].any(dim=0).nonzero()
    if len(rows) == 0:
        raise InputError("mask: it is empty; choose a mask that covers the object")
    y0, y1, x0, x1 = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    width, height = x1 - x0, y1 - y0
    if width < 2 or height < 2:
        raise InputError(
            f"mask: it spans {width + 1} x {height + 1} px; an object needs at least 3 x 3 px"
        )
    half = int(factor * max(width, height)) // 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return int(x - half), int(y - half), int(x + half), int(y + half)


def crop(x: Tensor, box: Box, fill: Tensor | None = None) -> Tensor:
    """Cut `box` out of `x` (C, H, W); outside of the image is `fill` (C,), or 0."""
    x1, y1, x2, y2 = box
    height, width = x.shape[-2:]
    out = _filled(x, (y2 - y1, x2 - x1), fill)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if left < right and top < bottom:
        out[:, top - y1 : bottom - y1, left - x1 : right - x1] = x[:, top:bottom, left:right]
    return out


def pad_square(x: Tensor, fill: Tensor | None = None) -> Tensor:
    """Pad `x` (C, H, W) to a square, centered, the smaller half first, with `fill` (C,) or 0."""
    height, width = x.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return crop(x, (-left, -top, side - left, side - top), fill)


def full_image(image: Tensor, config: PreprocessConfig, cache: SceneCache | None = None) -> Tensor:
    """Return an image (3, H, W), padded to a square, as a network input (1, 3, S, S)."""

    def view(x: Tensor) -> Tensor:
        return resize_antialiased(pad_square(x), (config.size, config.size), "bilinear")[None]

    return view(image) if cache is None else cache.recall((full_image, config), image, view)


def prepare_inputs(
    image: Tensor,  # (3, H, W) float32 in [0, 1]
    mask: Tensor,  # (1, H, W) float32 in [0, 1]
    pointmap: Tensor | None,  # (3, H, W) float32, camera frame, not finite where unknown
    config: PreprocessConfig,
    cache: SceneCache | None = None,  # keeps the full view of the image for the next mask
) -> ConditionInputs:
    """Make the inputs of both stages' condition embedders for one object.

    Without a point map the inputs are those of stage 2 alone, the moments scale 1 and shift 0.
    Raises `InputError` for shapes that disagree, an empty mask, a mask below 3 px.
    """
    _check_shapes(image, mask, pointmap)
    box = crop_box(mask, config.box_factor)
    tensors = image_inputs(image, mask, box, config, cache)
    if pointmap is None:
        return ConditionInputs(tensors, Moments(mask.new_ones(3), mask.new_zeros(3)))
    points = point_inputs(pointmap, mask, box, config)
    return replace(points, tensors=tensors | points.tensors)


def image_inputs(
    image: Tensor,  # (3, H, W)
    mask: Tensor,  # (1, H, W)
    box: Box,  # the mask's `crop_box`
    config: PreprocessConfig,
    cache: SceneCache | None = None,
) -> dict[str, Tensor]:
    """Return what `prepare_inputs` makes of photo and mask alone.

    Raises `InputError` for shapes that disagree.
    """
    _check_shapes(image, mask, None)
    square = (config.size, config.size)
    return {
        "image": full_image(crop(image, box), config),
        "rgb_image": full_image(image, config, cache),
        "mask": _nearest(pad_square(crop(mask, box)), square)[None],
        "rgb_image_mask": _nearest(pad_square(mask), square)[None],
    }


def point_inputs(
    pointmap: Tensor,  # (3, H, W)
    mask: Tensor,  # (1, H, W)
    box: Box,  # the mask's `crop_box`
    config: PreprocessConfig,
) -> ConditionInputs:
    """Return what `prepare_inputs` makes of the point map, its own inputs alone.

    Raises `InputError` as `pointmap_moments`; sizes are the caller's to check.
    """
    square = (config.size, config.size)
    moments = pointmap_moments(pointmap, mask, config.unit)
    # Padding is 0 in network units, which is the shift. Sampling first leaves less to normalize.
    cropped = crop(pointmap, box, moments.shift)
    views = {
        "pointmap": pad_square(cropped, torch.full_like(moments.shift, NAN)),
        "rgb_pointmap": pad_square(pointmap, moments.shift),
    }
    tensors = {n: _normalize(_nearest(v, square), moments)[None] for n, v in views.items()}
    return ConditionInputs(tensors, moments)


def _normalize(pointmap: Tensor, moments: Moments) -> Tensor:
    """Take (3, H, W) to network units; a point that is not finite becomes a NaN triple."""
    points = (pointmap - moments.shift[:, None, None]) / moments.scale[:, None, None]
    return points.masked_fill_(~points.isfinite().all(dim=0), NAN)


def _nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, H, W) by legacy nearest sampling: source index floor(i · float32(in / out))."""
    return F.interpolate(x[None], size, mode="nearest")[0]


def _filled(x: Tensor, size: tuple[int, int], fill: Tensor | None) -> Tensor:
    """Return (C, *size) of the kind of `x`, holding `fill` (C,) or 0."""
    if fill is None:
        return x.new_zeros(len(x), *size)
    return (
        fill.to(x.dtype)[:, None, None]
        .expand(-1, *size)
        .clone(memory_format=torch.contiguous_format)
    )


def _check_shapes(image: Tensor, mask: Tensor, pointmap: Tensor | None) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise InputError(f"image: {_describe(image)} must be floating in [0, 1] of shape (3, H, W)")
    for name, x, channels in (("mask", mask, 1), ("point map", pointmap, 3)):
        wanted = (channels, *image.shape[1:])
        if x is not None and tuple(x.shape) != wanted:
            raise InputError(
                f"{name}: shape {tuple(x.shape)} must be {wanted} for an image of shape "
                f"{tuple(image.shape)}"
            )


def _describe(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
