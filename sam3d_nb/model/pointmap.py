"""Point map of one image: the MoGe network, then focal length, shift, mask and projection.

Wang et al. 2024 (https://arxiv.org/abs/2410.19115), as SAM 3D Objects calls it. Points are in the
OpenCV frame; `preprocess.flip_frame` takes them to the network's camera frame.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import MogeConfig, VisionConfig
from sam3d_nb.model.focal import (
    intrinsics_matrix,
    recover_focal,
    recover_focal_shift,
    uv_map,
)
from sam3d_nb.model.moge import Moge

CHOICES = {
    "remap_output": ("linear", "sinh", "exp", "sinh_exp"),
    "res_block_norm": ("group_norm", "layer_norm"),
    "output_mask": (True,),  # legacy keys, true in every checkpoint
    "split_head": (True,),
}
ENCODERS = {
    "dinov2_vits14": VisionConfig(width=384, depth=12, heads=6, registers=0),
    "dinov2_vitb14": VisionConfig(width=768, depth=12, heads=12, registers=0),
    "dinov2_vitl14": VisionConfig(width=1024, depth=24, heads=16, registers=0),
}


@dataclass(frozen=True)
class PointMapOptions:
    """How to call the network; the defaults are what SAM 3D Objects does."""

    level: float = 9  # resolution level, 0 to 9
    num_tokens: int | None = None  # image tokens; replaces `level`
    fov_x: float | None = None  # degrees; horizontal field of view, if it is known
    fit_shift: bool = True  # of the depth; else it is known up to a factor alone
    force_projection: bool = False  # put points on the rays of the recovered camera
    apply_mask: bool = True  # +inf where the mask says invalid


@dataclass(frozen=True)
class PointMap:
    """A point map with its camera, OpenCV frame, unit of the network (not metric)."""

    points: Tensor  # (H, W, 3) float32; +inf where invalid and masked
    depth: Tensor  # (H, W) float32; +inf where invalid and masked
    mask: Tensor  # (H, W) bool; valid
    intrinsics: Tensor  # (3, 3) float32 on the CPU, normalized by width and height
    focal: float  # relative to half the image diagonal
    shift: float  # added to the network's depth


@torch.no_grad()
def estimate_pointmap(
    network: Moge,
    image: Tensor,
    options: PointMapOptions | None = None,
    cache: SceneCache | None = None,
) -> PointMap:
    """Estimate the point map and camera of one image.

    `image` float32 (3, H, W) in [0, 1]; the result is on the device of the network, in the OpenCV
    frame. An image without a valid pixel gives focal 1, shift 0 and, masked, points that are all
    +inf. A `cache` gives the result of an earlier call for the same image and options. Raises
    `InputError` as the network does, and for options out of range.
    """
    options = options or PointMapOptions()
    tokens = options.num_tokens
    if tokens is None:
        tokens = tokens_at_level(network.config.token_range, options.level)

    def compute(x: Tensor) -> PointMap:
        points, raw_mask = network(x.to(network.image_mean.device), tokens)
        return locate(points, raw_mask > network.config.mask_threshold, options)

    return compute(image) if cache is None else cache.recall((network, options), image, compute)


def locate(points: Tensor, mask: Tensor, options: PointMapOptions) -> PointMap:
    """Recover focal length and shift of the network's points (H, W, 3) and apply `options`.

    `mask` (H, W) bool tells the valid pixels.
    """
    height, width = mask.shape
    aspect = width / height
    known = None if options.fov_x is None else _focal_of_view(options.fov_x, aspect)
    if options.fit_shift:
        focal, shift = recover_focal_shift(points, mask, known)
    else:
        focal, shift = recover_focal(points, mask) if known is None else known, 0.0
    depth = points[..., 2] + shift  # (H, W)
    if options.force_projection:
        rays = uv_map(height, width, aspect, like=points) / focal  # (H, W, 2), at depth 1
        points = torch.cat([rays * depth[..., None], depth[..., None]], dim=-1)
    else:
        points = torch.cat([points[..., :2], depth[..., None]], dim=-1)
    if options.apply_mask:
        points = points.masked_fill(~mask[..., None], math.inf)
        depth = depth.masked_fill(~mask, math.inf)
    return PointMap(points, depth, mask, intrinsics_matrix(focal, aspect), focal, shift)


def tokens_at_level(token_range: tuple[int, int], level: float) -> int:
    """Return the number of image tokens at a resolution level from 0 to 9."""
    if not 0 <= level <= 9:
        raise InputError(f"point map: resolution level {level} must lie between 0 and 9")
    low, high = token_range
    return int(low + (level / 9) * (high - low))


def moge_config(published: Mapping[str, Any]) -> MogeConfig:
    """Return the configuration that a checkpoint's `model_config` describes.

    Absent keys have the defaults of the published constructor; the legacy `trained_area_range`
    replaces `num_tokens_range`. Unknown keys are named in a warning and ignored. Raises
    `WeightsError` for a setting that this network does not have.
    """
    known = {
        "dim_proj": "projection_width",
        "dim_upsample": "level_widths",
        "dim_times_res_block_hidden": "hidden_factor",
        "num_res_blocks": "blocks_per_level",
        "res_block_norm": "block_norm",
        "last_res_blocks": "output_blocks",
        "last_conv_channels": "output_width",
        "last_conv_size": "output_kernel",
        "intermediate_layers": "intermediate_layers",
        "remap_output": "remap",
        "mask_threshold": "mask_threshold",
        "num_tokens_range": "token_range",
    }
    encoder = published.get("encoder", "dinov2_vitb14")
    if encoder not in ENCODERS:
        raise WeightsError(f"MoGe encoder {encoder!r} is unknown; known are {sorted(ENCODERS)}")
    for key, choices in CHOICES.items():
        if key in published and published[key] not in choices:
            raise WeightsError(
                f"MoGe configuration: {key} is {published[key]!r}, not one of {choices}"
            )
    unknown = set(published) - set(known) - {"encoder", "trained_area_range", *CHOICES}
    if unknown:
        warnings.warn(f"MoGe configuration: ignored {sorted(unknown)}", stacklevel=2)
    values: dict[str, Any] = {
        known[key]: tuple(value) if isinstance(value, list) else value
        for key, value in published.items()
        if key in known
    }
    if "trained_area_range" in published:
        values["token_range"] = tuple(area // 196 for area in published["trained_area_range"])
    constructor = MogeConfig(
        level_widths=(256, 128, 128),
        hidden_factor=1,
        blocks_per_level=1,
        remap="linear",
        token_range=(1200, 2500),
    )
    return replace(constructor, vision=ENCODERS[encoder], **values)


def _focal_of_view(fov_x: float, aspect: float) -> float:
    """Return the focal length of a horizontal field of view in degrees."""
    if not 0 < fov_x < 180:
        raise InputError(f"point map: field of view {fov_x} must lie between 0 and 180 degrees")
    return aspect / math.hypot(1, aspect) / math.tan(math.radians(fov_x) / 2)
