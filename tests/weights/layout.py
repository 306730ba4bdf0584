"""Small stand-in checkpoints in the published layout: pickled files, YAML, point-map network."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from sam3d_nb.model.config import SMALL_VISION, VisionConfig
from sam3d_nb.weights.config import SMALL, ModelConfig
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.store import StandInStore

# What the small model's files can say: the encoder of the point map is one that has a name.
TINY_ENCODER = VisionConfig(width=48, depth=6, heads=3, registers=0)
MESH = replace(SMALL.mesh_decoder, trunk=replace(SMALL.mesh_decoder.trunk, width=256), groups=32)
CONFIG: ModelConfig = replace(
    SMALL, moge=replace(SMALL.moge, vision=TINY_ENCODER), mesh_decoder=MESH
)
MOGE_SETTINGS: dict[str, Any] = {
    "encoder": "dinov2_tiny",
    "remap_output": "exp",
    "intermediate_layers": 4,
    "dim_proj": 40,
    "dim_upsample": [64, 32, 16],
    "dim_times_res_block_hidden": 2,
    "num_res_blocks": 2,
    "trained_area_range": [8000, 18000],
    "last_conv_channels": 16,
    "last_conv_size": 1,
    "output_mask": True,
    "split_head": True,
}
CODE = "sam3d_objects.model.backbone"


def use_small_encoders(monkeypatch) -> None:
    """Give the published names of the encoders small networks, which no setting can describe."""
    monkeypatch.setattr("sam3d_nb.weights.networks.VISION", {"dinov2_vitl14_reg": SMALL_VISION})
    monkeypatch.setattr("sam3d_nb.model.pointmap.ENCODERS", {"dinov2_tiny": TINY_ENCODER})


def dino(prenorm: bool) -> dict[str, Any]:
    node = {
        "_target_": f"{CODE}.dit.embedder.dino.Dino",
        "dino_model": "dinov2_vitl14_reg",
        "input_size": 98,
        "normalize_images": True,
    }
    return {**node, "prenorm_features": True} if prenorm else node


def embedder(stage: int) -> dict[str, Any]:
    prenorm = stage == 2
    networks: list[Any] = [
        [dino(prenorm), [["image", "cropped"], ["rgb_image", "full"]]],
        [dino(prenorm), [["mask", "cropped"], ["rgb_image_mask", "full"]]],
    ]
    points = {
        "_target_": f"{CODE}.dit.embedder.pointmap.PointPatchEmbed",
        "embed_dim": 48,
        "input_size": 64,
        "patch_size": 8,
        "remap_output": "linear",
    }
    if stage == 1:
        networks.append([points, [["pointmap", "cropped"], ["rgb_pointmap", "full"]]])
    training = {
        "dropout_prob": 0.1,
        "drop_modalities_weight": [[["pointmap", "rgb_pointmap"], 1.0]],
        "force_drop_modalities": None,
        "freeze": True,
    }
    return {
        "_target_": f"{CODE}.dit.embedder.embedder_fuser.EmbedderFuser",
        "embedder_list": networks,
        "projection_net_hidden_dim_multiplier": 4.0,
        "use_pos_embedding": "learned",
        **(training if stage == 1 else {}),
    }


def generator(stage: int) -> dict[str, Any]:
    common = {
        "model_channels": 64,
        "cond_channels": 64,
        "num_blocks": 2,
        "num_heads": 4,
        "mlp_ratio": 4,
        "in_channels": 8,
        "qk_rms_norm": True,
        "use_fp16": True,
    }
    backbone = {
        1: {"_target_": f"{CODE}.tdfy_dit.models.StructureFlow", "resolution": 4, **common},
        2: {
            "_target_": f"{CODE}.tdfy_dit.models.structured_latent_flow.SLatFlowModelTdfyWrapper",
            "condition_embedder": None,
            "force_zeros_cond": True,
            "io_block_channels": [32],
            "num_io_res_blocks": 2,
            "out_channels": 8,
            "patch_size": 2,
            "pe_mode": "ape",
            "resolution": 16,
            **common,
        },
    }[stage]
    sampler = {
        "_target_": f"{CODE}.generator.flow_matching.model.FlowMatching",
        "inference_steps": {1: 2, 2: 12}[stage],
        "reverse_fn": {
            "_target_": f"{CODE}.generator.classifier_free_guidance.ClassifierFreeGuidance",
            "backbone": backbone,
            "p_unconditional": 0.0,
            "strength": {1: 2.0, 2: 0.0}[stage],
            "unconditional_handling": "add_flag",
        },
        "sigma_min": 0.0,
        "time_scale": 1000.0,
        "training_time_sampler_fn": {"_partial_": True, "mean": -1.0, "std": 1.0},
    }
    if stage == 1:
        sampler |= {"no_shortcut": False, "rescale_t": 1}
        sampler["reverse_fn"]["interval"] = [0, 500]
    return {
        "module": {
            "_target_": "some.training.Module",
            "optimizer": {"lr": "1e-4"},
            "generator": {"backbone": sampler, "freeze": False},
            "condition_embedder": {"backbone": embedder(stage)},
        }
    }


def decoder(representation: dict[str, Any]) -> dict[str, Any]:
    return {
        "_target_": f"{CODE}.tdfy_dit.models.structured_latent_vae.Decoder",
        "resolution": 16,
        "model_channels": 96,
        "latent_channels": 8,
        "num_blocks": 2,
        "num_heads": 4,
        "mlp_ratio": 4,
        "attn_mode": "swin",
        "window_size": 8,
        "representation_config": representation,
        "use_fp16": True,
    }


def gaussians(per_voxel: int) -> dict[str, Any]:
    rates = {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1}
    return {
        "lr": rates,
        "perturb_offset": True,
        "voxel_size": 1.5,
        "num_gaussians": per_voxel,
        "2d_filter_kernel_size": 0.1,
        "3d_filter_kernel_size": 0.0009,
        "scaling_bias": 0.004,
        "opacity_bias": 0.1,
        "scaling_activation": "softplus",
    }


def preprocessor() -> dict[str, Any]:
    joint = {"_target_": "crop", "_partial_": True, "box_size_factor": 1.2, "padding_factor": 0.0}
    resize = {"_target_": "torchvision.transforms.Resize", "size": 98}
    return {
        "_target_": "sam3d_objects.data.PreProcessor",
        "img_mask_joint_transform": [joint],
        "img_transform": {"_target_": "torchvision.transforms.Compose", "transforms": [resize]},
    }


def settings() -> dict[str, dict[str, Any]]:
    """Return the content of every YAML file."""
    latent = SMALL.latent
    names = ("ss_generator", "ss_decoder", "slat_generator", "slat_decoder_gs")
    names += ("slat_decoder_gs_4", "slat_decoder_mesh")
    pipeline: dict[str, Any] = {
        "_target_": "sam3d_objects.pipeline.InferencePipelinePointMap",
        "version": "v0",
        "dtype": "float16",
        "pad_size": 1.0,
        "compile_model": False,
        "downsample_ss_dist": 1,
        "pose_decoder_name": "ScaleShiftInvariant",
        "ss_condition_input_mapping": [],
        "slat_condition_input_mapping": [],
        "slat_rescale_t": 1,
        "slat_cfg_strength": 1,
        "slat_mean": list(latent.mean),
        "slat_std": list(latent.std),
        "depth_model": {
            "_target_": "sam3d_objects.pipeline.depth_models.moge.MoGe",
            "device": "cuda",
            "model": {
                "_target_": "moge.model.v1.MoGeModel.from_pretrained",
                "pretrained_model_name_or_path": "Ruicheng/moge-vitl",
            },
        },
        "ss_preprocessor": preprocessor(),
        "slat_preprocessor": preprocessor(),
    }
    for name in names:
        pipeline[f"{name}_config_path"] = f"{name}.yaml"
        pipeline[f"{name}_ckpt_path"] = f"{name}.ckpt"
    return {
        "pipeline": pipeline,
        "ss_generator": generator(1),
        "slat_generator": generator(2),
        "ss_decoder": {
            "_target_": f"{CODE}.tdfy_dit.models.SparseStructureDecoderTdfyWrapper",
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 2,
            "num_res_blocks_middle": 2,
            "channels": [32, 16, 8],
            "norm_type": "layer",
            "reshape_input_to_cube": False,
            "use_fp16": True,
        },
        "slat_decoder_gs": decoder(gaussians(8)),
        "slat_decoder_gs_4": decoder(gaussians(4)),
        "slat_decoder_mesh": decoder({"use_color": True}) | {"model_channels": 256},
    }


def state_dicts(config: ModelConfig = CONFIG, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Return the published state dicts by file name without suffix, all names complete."""
    store = StandInStore(config, torch.float32, seed)
    files: dict[str, dict[str, Tensor]] = {}
    for name, part in PARTS.items():
        for key, tensor in store.get(name).state_dict().items():
            files.setdefault(part.checkpoint, {})[part.prefix + part.inner + key] = tensor.clone()
    return files


def content(files: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    """Return what each pickled checkpoint holds."""
    return {
        name: {"state_dict": {**state, "_base_models.ema.step": torch.ones(1)}, "epoch": 3}
        if name.endswith("generator")
        else {"model": state, "model_config": MOGE_SETTINGS}
        if name == "model"
        else dict(state)
        for name, state in copy.copy(files).items()
    }


def write_published(
    folder: Path, files: dict[str, dict[str, Tensor]] | None = None, *, safetensors: bool = False
) -> Path:
    """Write all published files below `folder`; the settings lie in its `checkpoints`."""
    files = state_dicts() if files is None else files
    inner = folder / "checkpoints"
    inner.mkdir(parents=True, exist_ok=True)
    (folder / "LICENSE").write_text("stand-in license\n")
    for name, data in settings().items():
        (inner / f"{name}.yaml").write_text(yaml.safe_dump(data))
    for name, data in content(files).items():
        place = folder if name == "model" else inner
        if safetensors:
            metadata = {"model_config": json.dumps(MOGE_SETTINGS)} if name == "model" else None
            save_file(files[name], place / f"{name}.safetensors", metadata)
        else:
            torch.save(data, place / f"{name}{'.pt' if name == 'model' else '.ckpt'}")
    return folder
