"""Stage 1 composed: image, mask and point map to voxels and pose, against the official entry."""

from dataclasses import dataclass, replace

import pytest
import torch
from harness import Golden, fill

from sam3d_nb.model.conditioning import build_condition_embedder
from sam3d_nb.model.config import (
    SMALL_PREPROCESS,
    SMALL_STAGE1_CONDITION,
    SMALL_STRUCTURE_FLOW,
    STAGE1_SAMPLER,
    StructureDecoderConfig,
)
from sam3d_nb.model.coords import Voxels, find_voxels, voxel_positions
from sam3d_nb.model.layout import Layout, decode_layout
from sam3d_nb.model.preprocess import image_tensor, mask_tensor, pointmap_tensor, prepare_inputs
from sam3d_nb.model.sampler import Latents
from sam3d_nb.model.structure_decoder import build_structure_decoder, decode_structure
from sam3d_nb.model.structure_flow import (
    CHECKPOINT_PREFIX,
    build_structure_flow,
    draw_noise,
    sample_structure,
)

FLOW = replace(SMALL_STRUCTURE_FLOW, resolution=16)
RUNS = {
    "cfg": (STAGE1_SAMPLER, (32, 16, 8)),
    "shortcut": (replace(STAGE1_SAMPLER, shortcut=True), (32, 12)),
}


@dataclass
class Run:
    latents: Latents
    logits: torch.Tensor
    voxels: Voxels
    layout: Layout


@pytest.fixture(scope="module")
def reference(request):
    return Golden(request.config.getoption("--golden"), "stage1/stage1_pipeline")


@pytest.fixture(scope="module")
def inputs(reference):
    image, mask = image_tensor(reference["in.rgb"]), mask_tensor(reference["in.mask"].bool())
    pointmap = pointmap_tensor(reference["in.pointmap"], tuple(image.shape[1:]))
    return prepare_inputs(image, mask, pointmap, SMALL_PREPROCESS)


@pytest.fixture(scope="module")
def tokens(inputs):
    return fill(build_condition_embedder(SMALL_STAGE1_CONDITION))(inputs.tensors)


@pytest.fixture(scope="module", params=list(RUNS))
def run(request, reference, inputs, tokens):
    sampler, widths = RUNS[request.param]
    flow = fill(build_structure_flow(FLOW), CHECKPOINT_PREFIX)
    decoder = fill(build_structure_decoder(StructureDecoderConfig(widths=widths)))
    noise = draw_noise(FLOW, torch.Generator().manual_seed(reference.config["seed"]))
    steps = reference.config["runs"][request.param]["steps"]
    *_, (_, latents) = sample_structure(flow, tokens, noise, sampler, steps)
    logits = decode_structure(decoder, latents["shape"])
    voxels = find_voxels(logits)
    layout = decode_layout(latents, inputs.moments, voxels.factor)
    return request.param, Run(latents, logits, voxels, layout)


def test_tokens(reference, tokens):
    reference.check(tokens, "tokens")


def test_latents(reference, run):
    name, result = run
    for latent in ("6drotation_normalized", "shape", "translation_scale"):
        reference.check(result.latents[latent], f"{name}.latent.{latent}")


def test_logits(reference, run):
    name, result = run
    stride = reference.config["runs"][name]["logits_sub_stride"]
    reference.check(result.logits[..., ::stride, ::stride, ::stride], f"{name}.logits_sub")


def test_voxels(reference, run):
    name, result = run
    assert result.voxels.factor == reference.config["runs"][name]["downsample_factor"]
    for actual, key in (
        (result.voxels.occupied, "coords_original"),
        (result.voxels.coords, "coords"),
    ):
        ours = {tuple(row) for row in actual.tolist()}
        official = {tuple(row) for row in reference[f"{name}.{key}"].tolist()}
        assert len(ours & official) / len(ours | official) >= 0.999
        assert actual.tolist() == sorted(actual.tolist())


def test_positions(reference, run):
    name, result = run
    if name == "cfg":
        reference.check(voxel_positions(result.voxels.coords)[:64], "voxel_first64")


def test_layout(reference, run):
    name, result = run
    for key in ("rotation", "translation", "scale"):
        reference.check(getattr(result.layout, key), f"{name}.{key}")
