"""The windowed trunk: attention against a loop over windows, and the golden blocks."""

from dataclasses import replace

import published
import pytest
import torch
from coordinates import voxels
from harness import Golden, fill
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SMALL_TRUNK, TrunkConfig
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layers import position_embedding
from sam3d_nb.model.trunk import Trunk, WindowBlock
from sam3d_nb.model.windows import Groups, grouped_attention


def plain_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Attend in one group after another."""
    out = torch.full_like(qkv[:, 0], torch.nan)
    for rows in groups.order.split(groups.sizes):
        q, k, v = qkv[rows].unbind(1)  # (n, H, d)
        logits = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        out[rows] = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v)
    return out


def plain_features(trunk: Trunk, latent: Tensor, grid: Grid) -> Tensor:
    """The trunk as the specification writes it."""
    config = trunk.trunk_config
    h = trunk.input_layer(latent) + position_embedding(grid.xyz, config.width)
    for number, block in enumerate(trunk.blocks):
        window = (grid.xyz + (4 if number % 2 else 0)) // 8
        key = torch.cat([grid.coords[:, :1], window], 1).unique(dim=0, return_inverse=True)[1]
        qkv = block.attn.to_qkv(F.layer_norm(h, h.shape[1:], eps=1e-6))
        attended = plain_attention(qkv.view(len(h), 3, config.heads, -1), Groups(key))
        h = h + block.attn.to_out(attended.flatten(1))
        h = h + block.mlp(F.layer_norm(h, h.shape[1:], eps=1e-6))
    return h


@pytest.mark.parametrize("sizes", [[1], [7, 1, 600, 30, 31, 9, 512], [8, 8, 8]])
def test_grouped_attention(sizes: list[int]) -> None:
    key = torch.repeat_interleave(torch.arange(len(sizes)) * 5, torch.tensor(sizes))
    key = key[torch.randperm(len(key))]
    qkv = torch.randn(len(key), 3, 2, 8, requires_grad=True)
    groups = Groups(key)
    actual, expected = grouped_attention(qkv, groups), plain_attention(qkv, groups)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn_like(actual)
    gradients = (torch.autograd.grad((out * weights).sum(), qkv)[0] for out in (actual, expected))
    torch.testing.assert_close(*gradients)


def test_equal_groups_need_no_mask() -> None:
    groups = Groups(torch.arange(24) // 8)
    assert [bucket.mask for bucket in groups.buckets] == [None]


def test_padding_is_bounded() -> None:
    """At most a third more work than the voxels themselves, whatever the sizes."""
    sizes = torch.randint(8, 513, (200,), generator=torch.Generator().manual_seed(0))
    groups = Groups(torch.repeat_interleave(torch.arange(200), sizes))
    assert sum(bucket.rows.numel() for bucket in groups.buckets) < 1.34 * len(groups.order)


def test_trunk_against_the_specification() -> None:
    trunk = fill(Trunk(replace(SMALL_TRUNK, resolution=24, depth=3)))
    grid = Grid(voxels(300, 24, items=2), 24)
    latent = torch.randn(len(grid), 8)
    assert isinstance(trunk, Trunk)
    torch.testing.assert_close(
        trunk.features(latent, grid), plain_features(trunk, latent, grid), rtol=1e-4, atol=1e-4
    )


def test_swin_golden(golden) -> None:
    data: Golden = golden("stage2/swin_blocks")
    config, grid = published.trunk(data.config), Grid(data["coords"])
    for name, prefix in data.info["weight_prefixes"].items():
        block = fill(WindowBlock(config), prefix)
        windows = grid.windows(config.window, int(name.removeprefix("out_shift")))
        data.check(block(data["feats"], windows), name)


def test_small_input_golden(golden) -> None:
    data: Golden = golden("stage2/blocks_small_input")
    config = TrunkConfig(width=data.config["emb_channels"], heads=data.config["num_heads"])
    block = fill(WindowBlock(config), "blocks.1.")
    window = data.config["window_size"]
    out = block(data["transformer_in"], Grid(data["coords"]).windows(window, window // 2))
    data.check(out, "swin_out")


def test_trunk_learns() -> None:
    trunk = Trunk(SMALL_TRUNK)
    grid = Grid(voxels(30, 16), 16)
    trunk.features(torch.randn(len(grid), 8), grid).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_half_precision(dtype: torch.dtype, limit: float) -> None:
    """Relative error at the released depth."""
    trunk = Trunk(replace(SMALL_TRUNK, depth=12))
    fill(trunk)
    grid = Grid(voxels(200, 16), 16)
    latent = torch.randn(len(grid), 8)
    exact = trunk.features(latent, grid)
    trunk.set_torso_dtype(dtype)
    half = trunk.features(latent, grid)
    assert half.dtype == dtype
    assert trunk.input_layer.weight.dtype == torch.float32
    assert (half.float() - exact).norm() < limit * exact.norm()


def test_bad_latents() -> None:
    trunk = Trunk(SMALL_TRUNK)
    grid = Grid(voxels(10, 16), 16)
    good = torch.zeros(len(grid), 8)
    with pytest.raises(InputError, match=rf"shape \(3, 8\).*{len(grid)} voxels"):
        trunk.features(torch.zeros(3, 8), grid)
    with pytest.raises(InputError, match=rf"\({len(grid)}, 7\).*give \({len(grid)}, 8\)"):
        trunk.features(torch.zeros(len(grid), 7), grid)
    with pytest.raises(InputError, match="resolution 64; this decoder takes 16"):
        trunk.features(good, Grid(grid.coords, 64))
    good[2, 3], good[4, 1], good[4, 2] = torch.nan, torch.inf, torch.nan
    with pytest.raises(InputError, match=r"2 of .* rows of the latent"):
        trunk.features(good, grid)
