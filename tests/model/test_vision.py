"""DINOv2: golden files, epsilons, position tables, savings, half precision, bad input."""

import published
import pytest
import torch
import torch.nn.functional as F
from harness import fill

from sam3d_nb.errors import InputError
from sam3d_nb.model.conditioning import ImageEmbed
from sam3d_nb.model.config import SMALL_VISION, VisionConfig
from sam3d_nb.model.layers import set_linear_dtype
from sam3d_nb.model.vision import Attention, Block, VisionTransformer

NO_REGISTERS = VisionConfig(width=48, depth=3, heads=3, image_size=70, registers=0)


@pytest.mark.parametrize(
    ("network", "image", "tokens"),
    [(0, "image", "image"), (0, "image_same_size", "same_size"), (1, "mask", "mask")],
)
@pytest.mark.parametrize(("stage", "prenorm"), [("ss", False), ("slat", True)])
def test_dino_golden(golden, network, image, tokens, stage, prenorm):
    reference = golden("stage1/dino")
    config = published.vision(reference.config["dinov2"])
    embedder = fill(ImageEmbed(config, prenorm=prenorm), f"module_list.{network}.")
    reference.check(embedder(reference[f"in.{image}"]), f"{stage}.{tokens}_tokens")


def resampled_grids(reference):
    return [key.removeprefix("out_") for key in reference.tensors if key.startswith("out_")]


@pytest.mark.golden_cases("grid", "pointmap/pos_embed", resampled_grids)
def test_positions_golden(golden, grid):
    reference = golden("pointmap/pos_embed")
    width, side = reference.config["channels"], reference.config["base_grid"]
    config = VisionConfig(width=width, depth=0, heads=1, image_size=14 * side, registers=0)
    model = VisionTransformer(config)
    model.pos_embed.data = reference["pos_embed"][None]
    rows, columns = map(int, grid.split("x"))
    expected = reference[f"out_{grid}"]
    positions = model.positions(rows, columns)[0].detach()
    assert len(positions) == 1 + rows * columns
    reference.check(positions[:, : expected.shape[1]], f"out_{grid}")


def test_positions_are_sampled_at_shifted_places():
    """The 0.1 of the scale factor moves the sampling points: not the same as a plain resize."""
    model = fill(VisionTransformer(NO_REGISTERS))
    grid = model.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (5, 5))
    plain = F.interpolate(grid, (7, 4), mode="bicubic").flatten(2).transpose(1, 2)
    assert not torch.allclose(model.positions(7, 4)[:, 1:], plain, rtol=1e-4, atol=1e-5)


def test_every_norm_has_eps_1e_6():
    model = VisionTransformer(SMALL_VISION)
    norms = {name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert "norm" in norms
    assert len(norms) == 2 * SMALL_VISION.depth + 1
    assert set(norms.values()) == {1e-6}


def test_final_norm_eps_shows_on_small_tokens():
    """Stage 1's final norm on tokens of size 1e-3, where 1e-5 would give a third of the value."""
    embedder = fill(ImageEmbed(SMALL_VISION, prenorm=False))
    backbone = embedder.backbone
    small = 1e-3 * torch.randn(1, 54, 64, generator=torch.Generator().manual_seed(0))
    embedder.features = lambda image: small  # type: ignore[method-assign]
    kept = torch.cat([small[:, :1], small[:, 5:]], 1).double()
    centered = kept - kept.mean(-1, keepdim=True)
    expected = centered / (kept.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    expected = expected * backbone.norm.weight + backbone.norm.bias
    torch.testing.assert_close(embedder(torch.zeros(1)), expected.float(), rtol=1e-4, atol=1e-5)


def test_prenorm_eps_is_1e_5():
    embedder = ImageEmbed(SMALL_VISION, prenorm=True)
    small = 1e-3 * torch.randn(1, 54, 64, generator=torch.Generator().manual_seed(0))
    embedder.features = lambda image: small  # type: ignore[method-assign]
    x = small.double()
    centered = x - x.mean(-1, keepdim=True)
    expected = centered / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(embedder(torch.zeros(1)), expected.float(), rtol=1e-4, atol=1e-5)


def plain_attention(layer, x):
    """The twin of `Attention.forward`: heads in a loop, soft-max written out."""
    width = x.shape[-1] // layer.heads
    q, k, v = layer.qkv(x).chunk(3, -1)
    heads = []
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / width**0.5).softmax(-1)
        heads.append(weights @ v[..., part])
    return layer.proj(torch.cat(heads, -1))


def test_attention_against_plain_loop():
    layer = fill(Attention(48, 3))
    x = torch.randn(2, 11, 48)
    torch.testing.assert_close(layer(x), plain_attention(layer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("layer_scale", [True, False])
def test_kept_tokens_are_those_of_the_whole_block(keep, layer_scale):
    block = fill(Block(48, 4, 2, layer_scale=layer_scale))
    x = torch.randn(5, 9, 48)
    torch.testing.assert_close(block(x, keep), block(x)[:, :keep], rtol=1e-5, atol=1e-5)


def test_registers_stand_between_class_token_and_patches_without_position():
    model = fill(VisionTransformer(SMALL_VISION))
    x = model._embed(torch.zeros(2, 3, 98, 98))
    assert x.shape == (2, 54, 64)
    torch.testing.assert_close(
        x[:, :1], (model.cls_token + model.pos_embed[:, :1]).expand(2, 1, 64)
    )
    assert torch.equal(x[:, 1:5], model.register_tokens.expand(2, 4, 64))


def test_feature_maps_are_normed_patches_row_by_row():
    model = fill(VisionTransformer(NO_REGISTERS))
    image = torch.randn(1, 3, 42, 56)
    first, last = model.feature_maps(image, (0, 2))
    assert first.shape == last.shape == (1, 48, 3, 4)
    tokens = model.norm(model(image))[:, 1:]  # (1, 12, 48)
    assert torch.equal(last[0, :, 1, 2], tokens[0, 1 * 4 + 2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype):
    model = fill(VisionTransformer(SMALL_VISION))
    image = torch.randn(1, 3, 98, 98)
    exact = model(image)
    half = model.to(dtype)(image)
    assert half.dtype == torch.float32
    error = (half - exact).norm() / exact.norm()
    assert error < {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype]


def test_half_products_with_float32_norms():
    """Weights of which only matrices are half, as the flow's precision plan leaves them."""
    model = fill(VisionTransformer(SMALL_VISION))
    image = torch.randn(1, 3, 98, 98)
    exact = model(image)
    set_linear_dtype([model], torch.bfloat16)
    assert (model(image) - exact).norm() / exact.norm() < 1.5e-2


@pytest.mark.parametrize("shape", [(1, 3, 98, 97), (1, 1, 98, 98), (3, 98, 98)])
def test_bad_shapes_are_named(shape):
    with pytest.raises(InputError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        VisionTransformer(SMALL_VISION)(torch.zeros(shape))
