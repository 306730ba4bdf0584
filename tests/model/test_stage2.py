"""The whole second stage, images and noise to latent and gaussians, against the composed golden.

The golden's mesh features are checked with the mesh decoder.
"""

from dataclasses import replace

import pytest
import torch
from harness import Golden, fill
from test_latent_flow import config_of as flow_config
from test_latent_flow import filled as filled_flow
from test_splat_decoder import check_activated
from test_splat_decoder import config_of as decoder_config
from test_splat_decoder import filled as filled_decoder
from torch import Tensor

from sam3d_nb.model.conditioning import build_condition_embedder
from sam3d_nb.model.config import (
    IMAGE_ROWS,
    STAGE2_SAMPLER,
    ConditionConfig,
    VisionConfig,
)
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import denormalize, sample_latent


@pytest.fixture(scope="module")
def data(request) -> Golden:
    return Golden(request.config.getoption("--golden"), "stage2/composed")


@pytest.fixture(scope="module")
def tokens(data: Golden) -> Tensor:
    vit = data.config["condition_embedder"]["tiny_vit"]
    vision = VisionConfig(
        width=vit["embed_dim"],
        depth=vit["depth"],
        heads=vit["num_heads"],
        patch=vit["patch_size"],
        image_size=vit["img_size"],
        registers=vit["num_register_tokens"],
    )
    embedder = build_condition_embedder(
        ConditionConfig(networks=(vision, vision), rows=IMAGE_ROWS, prenorm=True)
    )
    fill(embedder)
    return embedder({row.input: data[row.input] for row in IMAGE_ROWS})


@pytest.fixture(scope="module")
def latent(data: Golden, tokens: Tensor) -> Tensor:
    flow = filled_flow(flow_config(data.config["generator"]["reverse_fn"]["backbone"]))
    options = data.info["sampler"]
    config = replace(
        STAGE2_SAMPLER,
        rescale=options["rescale_t"],
        guidance=options["cfg_strength"],
        interval=tuple(options["cfg_interval"]),
    )
    steps = options["inference_steps"]
    run = sample_latent(flow, tokens, Grid(data["coords"]), data["noise"], config, steps)
    *_, (_, latent) = run
    return denormalize(latent)


def test_latent(data: Golden, latent: Tensor) -> None:
    data.check(latent, "slat")


@pytest.mark.parametrize(
    ("name", "prefix"), [("slat_decoder_gs", "gs."), ("slat_decoder_gs_4", "gs4.")]
)
def test_gaussians(data: Golden, latent: Tensor, name: str, prefix: str) -> None:
    decoder = filled_decoder(decoder_config(data.config[name]))
    check_activated(data, decoder(latent, Grid(data["coords"])), prefix)


def test_same_seed_same_result(data: Golden, tokens: Tensor) -> None:
    """Two runs from the same noise give the same bits."""
    flow = filled_flow(flow_config(data.config["generator"]["reverse_fn"]["backbone"]))
    results = []
    for _ in range(2):
        *_, (_, latent) = sample_latent(flow, tokens, Grid(data["coords"]), data["noise"], steps=2)
        results.append(latent)
    assert torch.equal(*results)
