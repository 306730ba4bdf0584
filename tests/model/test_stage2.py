"""The whole second stage, images and noise to latent and gaussians, against the composed golden.

The golden's mesh features are checked with the mesh decoder.
"""

import published
import pytest
import torch
from harness import Golden, fill
from test_latent_flow import filled as filled_flow
from test_splat_decoder import check_activated
from test_splat_decoder import filled as filled_decoder
from torch import Tensor

from sam3d_nb.model.conditioning import build_condition_embedder
from sam3d_nb.model.config import IMAGE_ROWS, STAGE2_SAMPLER
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import LatentFlow, denormalize, sample_latent


@pytest.fixture(scope="module")
def data(request) -> Golden:
    return Golden(request.config.getoption("--golden"), "stage2/composed")


@pytest.fixture(scope="module")
def tokens(data: Golden) -> Tensor:
    config = published.stage2_condition(data.config["condition_embedder"]["tiny_vit"])
    embedder = fill(build_condition_embedder(config))
    return embedder({row.input: data[row.input] for row in IMAGE_ROWS})


@pytest.fixture(scope="module")
def latent(data: Golden, tokens: Tensor) -> Tensor:
    flow, grid = flow_and_grid(data)
    config = published.sampler(STAGE2_SAMPLER, data.info["sampler"])
    steps = data.info["sampler"]["inference_steps"]
    *_, (_, latent) = sample_latent(flow, tokens, grid, data["noise"], config, steps)
    return denormalize(latent)


def flow_and_grid(data: Golden) -> tuple[LatentFlow, Grid]:
    flow = filled_flow(published.latent_flow(data.config["generator"]["reverse_fn"]["backbone"]))
    return flow, Grid(data["coords"], flow.config.resolution)


def test_latent(data: Golden, latent: Tensor) -> None:
    data.check(latent, "slat")


@pytest.mark.parametrize(
    ("name", "prefix"), [("slat_decoder_gs", "gs."), ("slat_decoder_gs_4", "gs4.")]
)
def test_gaussians(data: Golden, latent: Tensor, name: str, prefix: str) -> None:
    decoder = filled_decoder(published.splat_decoder(data.config[name]))
    grid = Grid(data["coords"], data.config[name]["resolution"])
    check_activated(data, decoder(latent, grid), prefix)


def test_same_seed_same_result(data: Golden, tokens: Tensor) -> None:
    """Two runs from the same noise give the same bits."""
    flow, grid = flow_and_grid(data)
    results = []
    for _ in range(2):
        *_, (_, latent) = sample_latent(flow, tokens, grid, data["noise"], steps=2)
        results.append(latent)
    assert torch.equal(*results)
