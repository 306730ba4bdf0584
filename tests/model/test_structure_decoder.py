"""The sparse-structure decoder: golden logits, names, eps, precision, bad input."""

import published
import pytest
import torch
from harness import fill, manifest, shapes

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SMALL_STRUCTURE_DECODER
from sam3d_nb.model.structure_decoder import (
    ChannelNorm,
    build_structure_decoder,
    decode_structure,
    latent_cube,
    shuffle_voxels,
)


@pytest.fixture(scope="module")
def decoder():
    return fill(build_structure_decoder(SMALL_STRUCTURE_DECODER))


def test_golden(golden):
    file = golden("stage1/ss_decoder")
    decoder = fill(build_structure_decoder(published.structure_decoder(file.config)))
    file.check(decoder(file["in.latent"]), "logits")
    file.check(shuffle_voxels(file["pixel_shuffle.in"]), "pixel_shuffle.out")


def test_manifest():
    with torch.device("meta"):
        decoder = build_structure_decoder()
    assert shapes(decoder) == manifest("ss_decoder")


def test_shuffle_against_loops():
    x = torch.randn(1, 16, 2, 1, 3)
    out = shuffle_voxels(x)
    for c, i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in (2, 2, 2, 2))).tolist():
        torch.testing.assert_close(out[0, c, i::2, j::2, k::2], x[0, 8 * c + 4 * i + 2 * j + k])


def test_norm_over_channels_has_eps_1e_5():
    norm = fill(ChannelNorm(6))
    x = 1e-3 * torch.randn(1, 6, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    centered = x - x.mean(1, keepdim=True)
    expected = centered / (centered.square().mean(1, keepdim=True) + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_cube_axes():
    tokens = torch.arange(27 * 2).view(1, 27, 2)
    cube = latent_cube(tokens)
    assert cube.shape == (1, 2, 3, 3, 3)
    assert cube[0, 1, 2, 0, 1] == tokens[0, 2 * 9 + 0 * 3 + 1, 1]


def test_tokens_and_cube_give_the_same(decoder):
    tokens = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode_structure(decoder, tokens), decoder(latent_cube(tokens)))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.003), (torch.bfloat16, 0.02)])
def test_half_precision(golden, decoder, dtype, bound):
    """Root-mean-square error relative to float32."""
    latent = golden("stage1/ss_decoder")["in.latent"]
    half = build_structure_decoder(SMALL_STRUCTURE_DECODER, dtype=dtype)
    half.load_state_dict(decoder.state_dict())
    exact = decoder(latent)
    error = (half(latent) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < bound


def test_bad_input(decoder):
    with pytest.raises(InputError, match=r"\(1, 7, 4, 4, 4\)"):
        decoder(torch.zeros(1, 7, 4, 4, 4))
    with pytest.raises(InputError, match=r"\(1, 26, 8\)"):
        latent_cube(torch.zeros(1, 26, 8))
    tokens = torch.zeros(1, 8, 8)
    tokens[0, :3, 0] = torch.tensor([torch.nan, torch.inf, 1])
    with pytest.raises(InputError, match=r"\(1, 8, 8\) has 2 values"):
        decode_structure(decoder, tokens)
