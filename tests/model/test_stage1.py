"""Stage 1 composed: image, mask and point map to voxels and pose, against the official entry."""

from dataclasses import dataclass, replace

import published
import pytest
import torch
from harness import Golden, fill

from sam3d_nb.model.conditioning import build_condition_embedder
from sam3d_nb.model.config import STAGE1_SAMPLER, PreprocessConfig, StructureDecoderConfig
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

FILE = "stage1/stage1_pipeline"
pytestmark = pytest.mark.golden_cases(
    "run", FILE, lambda file: file.config["runs"], indirect=True, scope="module"
)


@dataclass
class Run:
    name: str
    options: dict
    latents: Latents
    logits: torch.Tensor
    voxels: Voxels
    layout: Layout


@pytest.fixture(scope="module")
def reference(request):
    return Golden(request.config.getoption("--golden"), FILE)


@pytest.fixture(scope="module")
def inputs(reference):
    image, mask = image_tensor(reference["in.rgb"]), mask_tensor(reference["in.mask"].bool())
    config = PreprocessConfig(reference.config["preprocess_size"])
    return prepare_inputs(image, mask, pointmap(reference), config)


def pointmap(reference):
    """The caller's point map at the size of the image, (3, H, W)."""
    return pointmap_tensor(reference["in.pointmap"], reference["in.rgb"].shape[:2])


@pytest.fixture(scope="module")
def tokens(reference, inputs):
    config = published.stage1_condition(reference.config)
    return fill(build_condition_embedder(config))(inputs.tensors)


@pytest.fixture(scope="module")
def run(request, reference, inputs, tokens):
    options = reference.config["runs"][request.param]
    flow_config = published.structure_flow(reference.config["flow"])
    flow = fill(build_structure_flow(flow_config), CHECKPOINT_PREFIX)
    widths = tuple(options["decoder_channels"])
    decoder = fill(build_structure_decoder(StructureDecoderConfig(widths)))
    noise = draw_noise(flow_config, torch.Generator().manual_seed(reference.config["seed"]))
    sampler = replace(
        published.sampler(STAGE1_SAMPLER, reference.config),
        shortcut=request.param.startswith("shortcut"),
    )
    *_, (_, latents) = sample_structure(flow, tokens, noise, sampler, options["steps"])
    logits = decode_structure(decoder, latents["shape"])
    voxels = find_voxels(logits)
    layout = decode_layout(latents, inputs.moments, voxels.factor)
    return Run(request.param, options, latents, logits, voxels, layout)


def test_pointmap(reference):
    reference.check(pointmap(reference).permute(1, 2, 0), "pointmap_returned")


def test_tokens(reference, tokens):
    reference.check(tokens, "tokens")


def test_latents(reference, run):
    for latent in ("6drotation_normalized", "shape", "translation_scale"):
        reference.check(run.latents[latent], f"{run.name}.latent.{latent}")


def test_logits(reference, run):
    stride = run.options["logits_sub_stride"]
    reference.check(run.logits[..., ::stride, ::stride, ::stride], f"{run.name}.logits_sub")


def test_voxels(reference, run):
    assert run.voxels.factor == run.options["downsample_factor"]
    for actual, key in ((run.voxels.occupied, "coords_original"), (run.voxels.coords, "coords")):
        ours = {tuple(row) for row in actual.tolist()}
        official = {tuple(row) for row in reference[f"{run.name}.{key}"].tolist()}
        assert len(ours & official) / len(ours | official) >= 0.999
        assert actual.tolist() == sorted(actual.tolist())


def test_positions(reference):
    coords = reference["cfg.coords"]
    reference.check(voxel_positions(coords[:64]), "voxel_first64")


def test_layout(reference, run):
    for key in ("rotation", "translation", "scale"):
        reference.check(getattr(run.layout, key), f"{run.name}.{key}")
