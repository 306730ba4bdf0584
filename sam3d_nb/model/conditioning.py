"""Condition embedders of both stages: preprocessed inputs to the tokens that the flows attend to.

Each input goes through a frozen network (DINOv2, or the patch embedder of point maps), a gated
projection to the common width, and gets the learned index embedding of its view. Parameter names
are the published ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import ConditionConfig, PointEmbedConfig, VisionConfig
from sam3d_nb.model.constants import constant, onto
from sam3d_nb.model.layers import OUTPUT_EPS, LayerNorm, layer_norm, set_linear_dtype
from sam3d_nb.model.vision import Block, VisionTransformer

IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet
IMAGE_STD = (0.229, 0.224, 0.225)

Features = Callable[["ImageEmbed", Tensor], Tensor]
"""Does what `ImageEmbed.features` does, such as `accelerate.AcceleratedVision`."""


class ImageEmbed(nn.Module):
    """DINOv2 on an image or a mask."""

    def __init__(self, config: VisionConfig, *, prenorm: bool) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.backbone = VisionTransformer(config)

    def forward(
        self, image: Tensor, cache: SceneCache | None = None, features: Features | None = None
    ) -> Tensor:
        """Embed `image` (B, 3 or 1, H, W) in [0, 1], on any device.

        Returns (B, 1 + P, C), the class token and P patches after DINOv2's final norm; with
        `prenorm` (B, 1 + registers + P, C), all tokens before it through a norm without weights.
        """
        backbone, x = self.backbone, self.recall(image, cache, features)
        if self.prenorm:
            return layer_norm(x, OUTPUT_EPS)
        return backbone.norm(torch.cat([x[:, :1], x[:, backbone.prefix :]], dim=1))

    def recall(
        self, image: Tensor, cache: SceneCache | None = None, features: Features | None = None
    ) -> Tensor:
        """Return `features(self, image)`, by default its own, if `cache` does not know it."""
        compute = self.features if features is None else partial(features, self)
        return compute(image) if cache is None else cache.recall(self.backbone, image, compute)

    def features(self, image: Tensor) -> Tensor:
        """Return the tokens before the final norm, (B, 1 + registers + P, C), float32.

        They are the same in both stages; masks are repeated to three channels and normalized with
        the ImageNet mean and deviation too.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise InputError(f"image or mask: shape {tuple(image.shape)} must be (B, 3 or 1, H, W)")
        size = self.backbone.config.image_size
        x = onto(image, self.backbone.cls_token.device).float()
        if tuple(x.shape[-2:]) != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear")
        x = x.expand(-1, 3, -1, -1)
        mean, std = constant((IMAGE_MEAN, IMAGE_STD), x.device, x.dtype)[..., None, None]
        return self.backbone((x - mean) / std)


class PointPatchEmbed(nn.Module):
    """Patches of a point map to tokens, by one transformer block inside each patch."""

    def __init__(self, config: PointEmbedConfig) -> None:
        super().__init__()
        width, patch = config.width, config.patch
        self.config = config
        self.side = config.input_size // patch
        self.point_proj = nn.Linear(3, width)
        self.invalid_xyz_token = nn.Parameter(torch.zeros(width))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, width, self.side, self.side))
        self.pos_embed_window = nn.Parameter(torch.empty(1, 1 + patch**2, width))
        for table in (self.cls_token, self.pos_embed, self.pos_embed_window):
            nn.init.trunc_normal_(table, std=0.02)
        self.blocks = nn.ModuleList(
            [Block(width, config.heads, config.mlp_ratio, layer_scale=False)]
        )

    def forward(
        self, pointmap: Tensor, cache: SceneCache | None = None, features: Features | None = None
    ) -> Tensor:
        """Embed `pointmap` (B, 3, H, W) in network units, not finite where unknown.

        Returns (B, side², C), row-major, where side = input size / patch. `cache` and `features`
        are not used: the full view is normalized by each object's own moments.
        """
        if pointmap.ndim != 4 or pointmap.shape[1] != 3:
            raise InputError(f"point map: shape {tuple(pointmap.shape)} must be (B, 3, H, W)")
        windows = self._windows(self._points(pointmap))  # (B side², patch², C)
        x = torch.cat([self.cls_token.expand(len(windows), -1, -1), windows], dim=1)
        x = x.float() + self.pos_embed_window.float()  # (B side², 1 + patch², C)
        (block,) = self.blocks
        tokens = block(x, keep=1).unflatten(0, (len(pointmap), -1)).squeeze(2)  # (B, side², C)
        return tokens + self.pos_embed.float().flatten(2).transpose(1, 2)

    def _points(self, pointmap: Tensor) -> Tensor:
        """Return a feature for each pixel of the resized point map: (B, S, S, C)."""
        size = self.config.input_size
        pointmap = onto(pointmap, self.point_proj.weight.device)
        points = F.interpolate(pointmap.float(), (size, size), mode="nearest").permute(0, 2, 3, 1)
        known = points.isfinite().all(dim=-1, keepdim=True)  # (B, S, S, 1)
        points = points.where(known, 0).to(self.point_proj.weight.dtype)
        return self.point_proj(points).where(known, self.invalid_xyz_token)

    def _windows(self, features: Tensor) -> Tensor:
        """Cut (B, S, S, C) into patches, row-major both levels: (B side², patch², C)."""
        shape = (self.side, self.config.patch)
        x = features.unflatten(2, shape).unflatten(1, shape)  # (B, side, patch, side, patch, C)
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


class SwiGLU(nn.Module):
    """Gated feed-forward without biases: w2(silu(w1 x) · w3 x)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, out, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., out)."""
        x = x.to(self.w1.weight.dtype)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class ConditionEmbedder(nn.Module):
    """The condition embedder of one stage."""

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        self.config = config
        hidden = swiglu_width(config.hidden_factor * config.width)
        self.module_list = nn.ModuleList(
            PointPatchEmbed(network)
            if isinstance(network, PointEmbedConfig)
            else ImageEmbed(network, prenorm=config.prenorm)
            for network in config.networks
        )
        self.projection_nets = nn.ModuleList(
            nn.Sequential(
                LayerNorm(network.width, eps=OUTPUT_EPS),
                SwiGLU(network.width, hidden, config.width),
            )
            for network in config.networks
        )
        groups = 1 + max(row.group for row in config.rows)
        self.idx_emb = nn.Parameter(torch.empty(groups + 1, config.width))  # last row never read
        nn.init.trunc_normal_(self.idx_emb, std=0.02)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        cache: SceneCache | None = None,
        features: Features | None = None,
    ) -> Tensor:
        """Return the condition tokens (B, N, width), blocks in the order of `config.rows`.

        `inputs` as `ConditionInputs.tensors` has them, on any device; N is 7,528 in stage 1 and
        5,496 in stage 2. With a `cache` each backbone sees each distinct image once, over both
        stages (if they share backbones) and over all objects of a scene. `features` runs the
        backbones instead of `ImageEmbed.features`. Raises `InputError` for a missing input.
        """
        missing = [row.input for row in self.config.rows if row.input not in inputs]
        if missing:
            raise InputError(f"condition embedder: inputs {missing} are missing; got {[*inputs]}")
        blocks = []
        for row in self.config.rows:
            x = self.module_list[row.network](inputs[row.input], cache, features)
            blocks.append(self.projection_nets[row.network](x) + self.idx_emb[row.group])
        return torch.cat(blocks, dim=1)


def swiglu_width(width: float) -> int:
    """Return the hidden width of a gated feed-forward: two thirds of `width`, in steps of 256."""
    return 256 * math.ceil(int(2 * width / 3) / 256)


def share_backbones(*embedders: ConditionEmbedder) -> int:
    """Let the embedders use one DINOv2 where their weights are equal; return how many remain.

    Changes no number: two backbones become one only if all their tensors are equal. What it gives
    is memory, and hits in a `SceneCache`, which tells backbones apart by identity.
    """
    distinct: list[VisionTransformer] = []
    for embedder in embedders:
        for network in embedder.module_list:
            if not isinstance(network, ImageEmbed):
                continue
            for known in distinct:
                if _same_weights(known, network.backbone):
                    network.backbone = known
                    break
            else:
                distinct.append(network.backbone)
    return len(distinct)


def condition_tokens(
    embedders: Sequence[ConditionEmbedder],
    inputs: Mapping[str, Tensor],
    cache: SceneCache | None = None,
    features: Features | None = None,
) -> list[Tensor]:
    """Return the condition tokens of several stages, each a (B, N, width).

    Every distinct pair of backbone and image is run once for all of them. A `cache` that outlives
    the call saves the full image's pass for the other objects of the photo. Inputs on the host are
    compared there, and a GPU need not be waited for. `features` as in `ConditionEmbedder`.
    """
    cache = SceneCache() if cache is None else cache
    return [embedder(inputs, cache, features) for embedder in embedders]


def begin_condition(
    embedders: Sequence[ConditionEmbedder],
    inputs: Mapping[str, Tensor],
    cache: SceneCache,
    features: Features | None = None,
) -> None:
    """Run the backbones on those inputs that are there, for a later `condition_tokens`.

    That is most of the work, and a GPU does it while the host prepares the other inputs.
    """
    for embedder in embedders:
        for row in embedder.config.rows:
            network = embedder.module_list[row.network]
            if isinstance(network, ImageEmbed) and row.input in inputs:
                network.recall(inputs[row.input], cache, features)


def build_condition_embedder(
    config: ConditionConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> ConditionEmbedder:
    """Return the condition embedder of one stage without weights, ready for `load_state_dict`.

    Matrix products run in `dtype`; norms, residual streams and tables stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        embedder = ConditionEmbedder(config)
    set_linear_dtype([embedder], dtype)
    return embedder.eval()


def _same_weights(a: VisionTransformer, b: VisionTransformer) -> bool:
    if a is b:
        return True
    if a.config != b.config:
        return False
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(x.dtype == y.dtype and x.device == y.device and torch.equal(x, y) for x, y in pairs)
