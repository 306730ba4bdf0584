"""Configurations as golden files write them, as ours; a file may leave out what is released."""

from dataclasses import replace
from typing import Any

from sam3d_nb.model.config import (
    STAGE1_CONDITION,
    STAGE2_CONDITION,
    ConditionConfig,
    GaussianConfig,
    LatentFlowConfig,
    MeshDecoderConfig,
    MogeConfig,
    PointEmbedConfig,
    SamplerConfig,
    SplatDecoderConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
    TrunkConfig,
    VisionConfig,
)
from sam3d_nb.model.pointmap import moge_config

Published = dict[str, Any]


def renamed(published: Published, names: dict[str, str]) -> dict[str, Any]:
    """Return the entries of `published` that are there, under our names."""
    return {ours: published[theirs] for theirs, ours in names.items() if theirs in published}


VISION = {
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "patch_size": "patch",
    "img_size": "image_size",
    "num_register_tokens": "registers",
    "registers": "registers",
}
POINTS = {
    "embed_dim": "width",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "input_size": "input_size",
    "patch_size": "patch",
}
FLOW = {
    "model_channels": "width",
    "num_blocks": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "cond_channels": "condition_width",
    "in_channels": "channels",
    "resolution": "resolution",
}
TRUNK = {
    "model_channels": "width",
    "channels": "width",
    "num_blocks": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "window_size": "window",
    "latent_channels": "channels",
    "resolution": "resolution",
}
GAUSSIANS = {
    "num_gaussians": "per_voxel",
    "voxel_size": "voxel_size",
    "3d_filter_kernel_size": "kernel_size",
    "scaling_bias": "scale_bias",
    "opacity_bias": "opacity_bias",
}
STRUCTURE_DECODER = {
    "num_res_blocks": "level_blocks",
    "num_res_blocks_middle": "middle_blocks",
    "latent_channels": "channels",
    "out_channels": "outputs",
}


def vision(published: Published) -> VisionConfig:
    return VisionConfig(**renamed(published, VISION))


def points(published: Published) -> PointEmbedConfig:
    values = renamed(published, POINTS)
    return PointEmbedConfig(**values | {"mlp_ratio": int(values.get("mlp_ratio", 2))})


def stage1_condition(published: Published) -> ConditionConfig:
    image = vision(published["dinov2"])
    return replace(STAGE1_CONDITION, networks=(image, image, points(published["point"])))


def stage2_condition(published: Published) -> ConditionConfig:
    return replace(STAGE2_CONDITION, networks=(vision(published),) * 2)


def structure_flow(published: Published) -> StructureFlowConfig:
    return StructureFlowConfig(**renamed(published, FLOW))


def structure_decoder(published: Published) -> StructureDecoderConfig:
    values = renamed(published, STRUCTURE_DECODER)
    return StructureDecoderConfig(tuple(published["channels"]), **values)


def latent_flow(published: Published) -> LatentFlowConfig:
    (io_width,) = published["io_block_channels"]
    return LatentFlowConfig(io_width=io_width, **renamed(published, FLOW))


def trunk(published: Published) -> TrunkConfig:
    return TrunkConfig(**renamed(published, TRUNK))


def gaussians(published: Published) -> GaussianConfig:
    rates = published["lr"]
    assert all(rate == 1 for name, rate in rates.items() if name != "_rotation")
    return GaussianConfig(rotation_rate=rates["_rotation"], **renamed(published, GAUSSIANS))


def splat_decoder(published: Published) -> SplatDecoderConfig:
    return SplatDecoderConfig(trunk(published), gaussians(published["representation_config"]))


def mesh_decoder(published: Published) -> MeshDecoderConfig:
    return MeshDecoderConfig(trunk(published))


def moge(published: Published) -> MogeConfig:
    config = moge_config(published["model_config"])
    return replace(
        config,
        vision=vision(published["backbone"]),
        token_range=tuple(published["num_tokens_range"]),
        mask_threshold=published["mask_threshold"],
    )


def sampler(released: SamplerConfig, published: Published) -> SamplerConfig:
    """Return `released` with the settings that `published` names."""
    interval = published["cfg_interval"]
    return replace(
        released,
        rescale=published["rescale_t"],
        guidance=published["cfg_strength"],
        interval=None if interval is None else tuple(interval),
    )
