"""The published YAML files, as plain data, to the configuration of the whole model.

Classes named in `_target_` are not looked at, let alone made: what they would do is what our
networks do. What is unknown or different is refused with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam3d_nb.errors import WeightsError
from sam3d_nb.model.config import MogeConfig, SamplerConfig, VisionConfig
from sam3d_nb.model.pointmap import moge_config
from sam3d_nb.weights.config import RELEASED, ModelConfig, check_consistent, from_json, to_json
from sam3d_nb.weights.fields import Node, Problems, read_yaml, short
from sam3d_nb.weights.networks import (
    embedder,
    flow_node,
    latent_flow,
    mesh_decoder,
    splat_decoder,
    structure_decoder,
    structure_flow,
)

PIPELINE = "pipeline"
CHECKPOINTS = (
    *("ss_generator", "ss_decoder", "slat_generator"),
    *("slat_decoder_gs", "slat_decoder_gs_4", "slat_decoder_mesh"),
)
SETTINGS = (PIPELINE, *CHECKPOINTS)  # each a .yaml


@dataclass(frozen=True)
class Published:
    """What the published settings say. accepted: fields taken as the released model has them."""

    config: ModelConfig
    accepted: tuple[str, ...] = ()


def read_published(
    folder: Path, moge: Mapping[str, Any], accept: tuple[str, ...] = ()
) -> Published:
    """Return the configuration of the published files.

    folder: with `pipeline.yaml` and one YAML a checkpoint. moge: `model_config` of the point-map
    checkpoint. accept: full names of fields to take as the released model has them, whatever the
    files say. Raises WeightsError that names every field which is unknown or different.
    """
    data = {name: read_yaml(folder / f"{name}.yaml") for name in SETTINGS}
    problems = Problems(accept)
    stage1, stage2 = data["ss_generator"], data["slat_generator"]
    config = ModelConfig(
        moge=_moge(moge),
        condition_stage1=embedder(stage1, "ss_generator", RELEASED.condition_stage1, problems),
        structure_flow=structure_flow(flow_node(stage1, "ss_generator", problems)),
        structure_decoder=structure_decoder(data["ss_decoder"], problems),
        condition_stage2=embedder(stage2, "slat_generator", RELEASED.condition_stage2, problems),
        latent_flow=latent_flow(flow_node(stage2, "slat_generator", problems)),
        splat_decoder=splat_decoder(data, "slat_decoder_gs", 32, problems),
        splat_decoder_4=splat_decoder(data, "slat_decoder_gs_4", 4, problems),
        mesh_decoder=mesh_decoder(data["slat_decoder_mesh"], problems),
    )
    config = _pipeline(config, Node(data[PIPELINE], PIPELINE, problems))
    problems.check()
    config = from_json(to_json(config))  # checks the types that came out of the checkpoint
    check_consistent(config)
    return Published(config, tuple(sorted(problems.used)))


def _moge(settings: Mapping[str, Any]) -> MogeConfig:
    """Return the point-map network of its checkpoint's settings."""
    try:
        return moge_config(settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the settings of the point-map network are damaged: {error}") from error


def _pipeline(config: ModelConfig, node: Node) -> ModelConfig:
    """Return `config` with the settings between the networks."""
    # How the official program is run, not what it computes.
    node.idle("dtype", "device", "version", "pad_size", "compile_model", "rendering_engine")
    node.idle("workspace_dir", "*_ckpt_path", "*_config_path", "decode_formats", "*distillation")
    node.idle("with_*", "use_vertex_color", "layout_*", "shape_model_dtype")
    node.fixed("pose_decoder_name", "ScaleShiftInvariant")
    for stage in ("ss", "slat"):
        node.fixed(f"{stage}_condition_input_mapping", [], None)
        _preprocessor(node, f"{stage}_preprocessor", config)
    _depth_model(node)
    stage1 = _sampler(node, "ss", RELEASED.stage1_sampler, absent=(3.0, 7.0))
    stage2 = _sampler(node, "slat", RELEASED.stage2_sampler, absent=(3.0, 5.0))
    latent = replace(
        RELEASED.latent,
        mean=node.numbers("slat_mean", RELEASED.latent.mean),
        std=node.numbers("slat_std", RELEASED.latent.std),
    )
    distance = node.integer("downsample_ss_dist", RELEASED.coords.prune_distance, low=0, high=8)
    node.finish()
    vision = next(n for n in config.condition_stage1.networks if isinstance(n, VisionConfig))
    return replace(
        config,
        preprocess=replace(config.preprocess, size=vision.image_size),
        stage1_sampler=stage1,
        stage2_sampler=stage2,
        latent=latent,
        coords=replace(RELEASED.coords, prune_distance=distance),
    )


def _sampler(
    node: Node, stage: str, released: SamplerConfig, absent: tuple[float, float]
) -> SamplerConfig:
    """Return one stage's sampler. absent: rescaling and guidance that the pipeline defaults to."""
    node.fixed(f"{stage}_cfg_strength_pm", 0.0)
    low, high = node.numbers(f"{stage}_cfg_interval", released.interval or (0.0, 500.0))
    return replace(
        released,
        steps=node.integer(f"{stage}_inference_steps", released.steps, high=1000),
        rescale=node.number(f"{stage}_rescale_t", absent[0]),
        guidance=node.number(f"{stage}_cfg_strength", absent[1]),
        interval=(low, high),
    )


def _depth_model(node: Node) -> None:
    """Check that the point map comes from the network that ours is."""
    if node.value("depth_model") is None:
        return
    depth = node.child("depth_model")
    depth.idle("device")
    model = depth.value("model")
    if isinstance(model, Mapping):
        inner = depth.child("model")
        inner.fixed("pretrained_model_name_or_path", "Ruicheng/moge-vitl")
        inner.finish()
    depth.finish()


def _preprocessor(node: Node, name: str, config: ModelConfig) -> None:
    """Check the numbers of the pre-processing, wherever in its tree of functions they stand."""
    tree = node.value(name)
    vision = next(n for n in config.condition_stage1.networks if isinstance(n, VisionConfig))
    known: dict[str, tuple[Any, ...]] = {
        "box_size_factor": (RELEASED.preprocess.box_factor,),
        "padding_factor": (0.0,),
        "size": (vision.image_size, [vision.image_size, vision.image_size]),
        "use_scene_scale": (True,),
        "allow_scale_and_shift_override": (True,),
        "normalize_pointmap": (True, False),
        "interpolation": (0, 2, "nearest", "bilinear", None),
        "antialias": (True, None),
        "max_size": (None,),
    }
    for where, key, value in _leaves(tree, f"{node.where}.{name}", ""):
        if key in known:
            if value not in known[key]:
                choices = " or ".join(map(repr, known[key]))
                node.problems.add(where, f"is {short(value)}, not {choices}")
        elif not key.startswith("_") and value is not None:
            node.problems.add(where, f"is unknown (it is {short(value)})")


def _leaves(value: Any, where: str, key: str) -> list[tuple[str, str, Any]]:
    """Return path, last name and value of all that a tree of mappings and lists holds."""
    if isinstance(value, Mapping):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{where}.{k}", k)]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return [leaf for i, v in enumerate(value) for leaf in _leaves(v, f"{where}.{i}", key)]
    return [(where, key, value)] if value != [] else []
