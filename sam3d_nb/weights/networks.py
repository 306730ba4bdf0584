"""Published settings of each network, as data, to its configuration.

The names of the fields are those of the public files as `reference/spec` and the golden files have
them. What acts in training only is let pass; whatever else is not known, or is not the value that
the networks are written for, is a problem under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sam3d_nb.model.config import (
    ConditionConfig,
    ConditionRow,
    GaussianConfig,
    LatentFlowConfig,
    MeshDecoderConfig,
    PointEmbedConfig,
    SplatDecoderConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
    TrunkConfig,
    VisionConfig,
)
from sam3d_nb.model.structure_blocks import LAYOUT
from sam3d_nb.model.structure_flow import LAYOUT_CHANNELS, latent_shapes
from sam3d_nb.weights.config import RELEASED
from sam3d_nb.weights.fields import Node, Problems, find_node, short

VISION = {
    "dinov2_vits14_reg": VisionConfig(width=384, depth=12, heads=6),
    "dinov2_vitb14_reg": VisionConfig(width=768, depth=12, heads=12),
    "dinov2_vitl14_reg": VisionConfig(),
}
GROUPS = {"cropped": 0, "full": 1}
TRAINING = (
    *("loss*", "training_*", "*self_consistency*", "cfg_modalities", "p_unconditional"),
    *("*shortcut*", "dropout*", "drop_modalities*", "freeze*", "use_checkpoint", "fm_*"),
    *("batch_mode", "ratio_*", "random_seed", "seed", "use_fp16", "use_bf16", "dtype"),
)
OVERRIDDEN = ("inference_steps", "rescale_t", "strength", "strength_*", "interval", "solver_*")
"""Settings of the samplers that the pipeline replaces by its own."""

# --- Generators: sampler, flow network, condition embedder -------------------------------------


def flow_node(data: Any, where: str, problems: Problems) -> Node:
    """Check the sampler around a flow network and return the node of the network."""
    sampler = find_node(data, where, ("reverse_fn",), problems)
    sampler.fixed("time_scale", 1000.0)
    sampler.fixed("sigma_min", 0.0)
    sampler.fixed("reversed_timestamp", False)
    sampler.idle(*TRAINING, *OVERRIDDEN)
    guidance = sampler.child("reverse_fn")
    guidance.fixed("unconditional_handling", "add_flag", "zeros")  # both: tokens times zero
    guidance.idle(*TRAINING, *OVERRIDDEN)
    network = guidance.child("backbone")
    guidance.finish()
    sampler.finish()
    return network


def _transformer(
    node: Node, released: StructureFlowConfig | LatentFlowConfig | TrunkConfig
) -> dict[str, int]:
    """Return the sizes that every transformer has, by their names in its configuration."""
    return {
        "width": node.integer("model_channels", released.width),
        "depth": node.integer("num_blocks", released.depth, high=256),
        "heads": node.integer("num_heads", released.heads),
        "mlp_ratio": node.integer("mlp_ratio", released.mlp_ratio),
    }


def _flow(node: Node, released: StructureFlowConfig | LatentFlowConfig) -> dict[str, int]:
    """Check what both flows are to have, and return the sizes of the flow, resolution aside."""
    node.fixed("qk_rms_norm", True)
    node.fixed("qk_rms_norm_cross", False)
    node.fixed("pe_mode", "ape")
    node.fixed("share_mod", False)
    node.fixed("force_zeros_cond", True)
    node.fixed("condition_embedder", None)
    node.fixed("num_head_channels", 64, None)
    node.idle(*TRAINING)
    channels = node.integer("in_channels", released.channels)
    node.fixed("out_channels", channels)
    condition_width = node.integer("cond_channels", released.condition_width)
    return _transformer(node, released) | {
        "channels": channels,
        "condition_width": condition_width,
    }


def structure_flow(node: Node) -> StructureFlowConfig:
    """Return the flow network of stage 1."""
    released = RELEASED.structure_flow
    node.fixed("patch_size", 1)
    node.fixed("is_shortcut_model", True)
    resolution = node.integer("resolution", released.resolution, high=64)
    config = StructureFlowConfig(**_flow(node, released), resolution=resolution)
    for name in ("latent_mapping", "latent_share_transformer"):
        _latents(node, name, config)
    node.finish()
    return config


def _latents(node: Node, name: str, config: StructureFlowConfig) -> None:
    """Check the names and widths of the five latents, where the settings list them."""
    if name == "latent_share_transformer":
        node.fixed(name, {LAYOUT: list(LAYOUT_CHANNELS)})
        return
    if node.value(name) is None:
        return
    latents = node.child(name)
    for latent, (_, channels) in latent_shapes(config).items():
        entry = latents.child(latent)
        entry.fixed("in_channels", channels)
        entry.fixed("model_channels", config.width)
        entry.idle("pos_embedder")  # tables: their names and shapes are checked as tensors
        entry.finish()
    latents.finish()


def latent_flow(node: Node) -> LatentFlowConfig:
    """Return the flow network of stage 2."""
    released = RELEASED.latent_flow
    node.fixed("patch_size", 2)
    node.fixed("num_io_res_blocks", 2)
    node.fixed("use_skip_connection", True)
    (io_width,) = node.numbers("io_block_channels", (released.io_width,))
    resolution = node.integer("resolution", released.resolution, high=256)
    config = LatentFlowConfig(
        **_flow(node, released),
        resolution=resolution,
        io_width=int(min(max(io_width, 1), 8192)),
    )
    node.finish()
    return config


def embedder(
    data: Any, where: str, released: ConditionConfig, problems: Problems
) -> ConditionConfig:
    """Return the condition embedder in the settings of one stage's generator."""
    node = find_node(data, where, ("embedder_list",), problems)
    node.fixed("use_pos_embedding", "learned")
    node.fixed("projection_pre_norm", True)
    node.fixed("force_drop_modalities", None)
    node.idle(*TRAINING)
    hidden_factor = node.number("projection_net_hidden_dim_multiplier", released.hidden_factor)
    networks: list[VisionConfig | PointEmbedConfig] = []
    rows: list[ConditionRow] = []
    prenorm = set()
    entries = node.value("embedder_list")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        name = f"{node.where}.embedder_list.{index}"
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list)):
            problems.add(name, "is not a network with its inputs")
            continue
        network = Node(entry[0], name, problems)
        if "dino_model" in network.data:
            config, early = _vision(network)
            prenorm.add(early)
            networks.append(config)
        else:
            networks.append(_point_embedder(network))
        rows += _rows(entry[1], index, name, problems)
    node.finish()
    if not networks or len(prenorm) != 1:
        problems.add(f"{node.where}.embedder_list", "is not a list of one kind of DINOv2 networks")
        return released
    return ConditionConfig(tuple(networks), tuple(rows), prenorm.pop(), hidden_factor)


def _rows(inputs: list[Any], network: int, name: str, problems: Problems) -> list[ConditionRow]:
    rows = []
    for pair in inputs:
        known = isinstance(pair, list) and len(pair) == 2 and all(type(x) is str for x in pair)
        if known and pair[1] in GROUPS:
            rows.append(ConditionRow(pair[0], network, GROUPS[pair[1]]))
        else:
            problems.add(
                name, f"has the input {short(pair)}, not a name with one of {list(GROUPS)}"
            )
    return rows


def _vision(node: Node) -> tuple[VisionConfig, bool]:
    """Return one DINOv2 network, and whether its tokens are taken before the final norm."""
    node.fixed("dino_model", *reversed(VISION))
    node.fixed("normalize_images", True)
    node.idle(*TRAINING, "repo_or_dir", "source", "backbone_kwargs", "prune_network")
    model = node.value("dino_model")
    config = VISION.get(model if isinstance(model, str) else "", VisionConfig())
    size = node.integer("input_size", config.image_size)
    prenorm = node.flag("prenorm_features", False)
    node.finish()
    return replace(config, image_size=size), prenorm


def _point_embedder(node: Node) -> PointEmbedConfig:
    released = PointEmbedConfig()
    node.fixed("remap_output", "linear")
    node.idle(*TRAINING)
    config = PointEmbedConfig(
        width=node.integer("embed_dim", released.width),
        heads=node.integer("num_heads", released.heads),
        mlp_ratio=node.integer("mlp_ratio", released.mlp_ratio),
        input_size=node.integer("input_size", released.input_size),
        patch=node.integer("patch_size", released.patch),
    )
    node.finish()
    return config


# --- Decoders -----------------------------------------------------------------------------------


def structure_decoder(data: Any, problems: Problems) -> StructureDecoderConfig:
    """Return the decoder of the sparse structure."""
    released = RELEASED.structure_decoder
    node = find_node(data, "ss_decoder", ("channels", "latent_channels"), problems)
    node.fixed("norm_type", "layer")
    node.fixed("reshape_input_to_cube", False)
    node.idle(*TRAINING)
    widths = node.value("channels")
    numbers = widths if isinstance(widths, list) else []
    if not 1 <= len(numbers) <= 8 or not all(type(w) is int and 0 < w <= 8192 for w in numbers):
        problems.add(f"{node.where}.channels", f"is {short(widths)}, not a list of widths")
        numbers = list(released.widths)
    config = StructureDecoderConfig(
        widths=tuple(numbers),
        level_blocks=node.integer("num_res_blocks", released.level_blocks, high=64),
        middle_blocks=node.integer("num_res_blocks_middle", released.middle_blocks, high=64),
        channels=node.integer("latent_channels", released.channels),
        outputs=node.integer("out_channels", released.outputs),
    )
    node.finish()
    return config


def _trunk(node: Node) -> TrunkConfig:
    released = TrunkConfig()
    node.fixed("attn_mode", "swin")
    node.fixed("pe_mode", "ape")
    node.fixed("qk_rms_norm", False)
    node.idle(*TRAINING)
    return TrunkConfig(
        **_transformer(node, released),
        window=node.integer("window_size", released.window),
        channels=node.integer("latent_channels", released.channels),
        resolution=node.integer("resolution", released.resolution, high=256),
    )


def splat_decoder(
    data: Mapping[str, Any], name: str, per_voxel: int, problems: Problems
) -> SplatDecoderConfig:
    """Return the gaussian decoder whose settings are called `name`."""
    released = GaussianConfig()
    node = find_node(data[name], name, ("model_channels", "representation_config"), problems)
    trunk = _trunk(node)
    shape = node.child("representation_config")
    shape.fixed("perturb_offset", True)
    shape.fixed("scaling_activation", "softplus")
    shape.idle("2d_filter_kernel_size")
    rates = shape.child("lr")  # multipliers of the output, not learning rates
    for field in ("_xyz", "_features_dc", "_opacity", "_scaling"):
        rates.fixed(field, 1.0)
    gaussians = GaussianConfig(
        per_voxel=shape.integer("num_gaussians", per_voxel, high=256),
        voxel_size=shape.number("voxel_size", released.voxel_size),
        kernel_size=shape.number("3d_filter_kernel_size", released.kernel_size),
        scale_bias=shape.number("scaling_bias", released.scale_bias),
        opacity_bias=shape.number("opacity_bias", released.opacity_bias),
        rotation_rate=rates.number("_rotation", released.rotation_rate),
    )
    for part in (rates, shape, node):
        part.finish()
    return SplatDecoderConfig(trunk, gaussians)


def mesh_decoder(data: Any, problems: Problems) -> MeshDecoderConfig:
    """Return the mesh decoder."""
    fields = ("model_channels", "representation_config")
    node = find_node(data, "slat_decoder_mesh", fields, problems)
    trunk = _trunk(node)
    shape = node.child("representation_config")
    shape.fixed("use_color", True)
    shape.finish()
    node.finish()
    return MeshDecoderConfig(trunk)
