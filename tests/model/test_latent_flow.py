"""Stage 2's flow: golden files, and every saving against the plain computation."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import published
import pytest
import torch
from coordinates import voxels
from harness import Golden, fill, manifest, shapes
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import (
    SMALL_LATENT_FLOW,
    STAGE2_SAMPLER,
    LatentFlowConfig,
    LatentStatistics,
)
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_blocks import LatentBlock, ResidualBlock, modulated_rows
from sam3d_nb.model.latent_flow import (
    CHECKPOINT_PREFIX,
    LatentFlow,
    LatentVelocity,
    build_latent_flow,
    denormalize,
    draw_noise,
    sample_latent,
)
from sam3d_nb.model.layers import BLOCK_EPS
from sam3d_nb.model.sampler import schedule, time_grid


def filled(config: LatentFlowConfig) -> LatentFlow:
    flow = build_latent_flow(config)
    fill(flow, CHECKPOINT_PREFIX)
    return flow


def run(flow: LatentFlow, x: Tensor, t: Tensor, tokens: Tensor, grid: Grid) -> Tensor:
    return flow(x, flow.modulation(t), flow.prepare(tokens), grid)


@contextmanager
def traced(**modules: torch.nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules by name."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def test_forward_golden(golden) -> None:
    data: Golden = golden("stage2/slat_flow_forward")
    flow = filled(published.latent_flow(data.config))
    grid = Grid(data["coords"], flow.config.resolution)
    x, t, tokens = data["x"][0], data["t"], data["cond"]
    with traced(
        trace_input_layer=flow.input_layer,
        trace_t_emb=flow.t_embedder,
        trace_input_block0=flow.input_blocks[0],
        trace_input_block1=flow.input_blocks[1],
        trace_last_block=flow.blocks[-1],
        trace_last_out_block=flow.out_blocks[1],
    ) as seen:
        data.check(run(flow, x, t, tokens, grid)[None], "out")
    for key, value in seen.items():
        if key == "trace_last_block":
            h, pending = value
            value = pending.add_to(h)[0]
        data.check(value, key)
    data.check(grid.parents.grid.coords, "trace_coords_down")
    data.check(run(flow, x, t, tokens * 0, grid)[None], "out_zero_cond")
    data.check(run(flow, x, t * 0, tokens, grid)[None], "out_t0")


def test_small_input_golden(golden) -> None:
    """Inputs of size 1e-3 make every eps of the blocks visible."""
    data: Golden = golden("stage2/blocks_small_input")
    narrow, wide = data.config["channels"], data.config["emb_channels"]
    grid, emb = Grid(data["coords"]), data["emb"]
    path = CHECKPOINT_PREFIX
    for block, name, source, key in (
        (ResidualBlock(narrow, narrow, wide), "input_blocks.0", "feats", "res_plain"),
        (ResidualBlock(narrow, wide, wide, "down"), "input_blocks.1", "feats", "res_down"),
        (ResidualBlock(wide, narrow, wide, "up"), "out_blocks.0", "up_in", "res_up"),
    ):
        fill(block, f"{path}{name}.")
        data.check(block(data[source], block.modulation(emb), grid), key)
    data.check(grid.parents.grid.coords, "res_down_coords")

    config = LatentFlowConfig(width=wide, heads=data.config["num_heads"], condition_width=wide)
    block = LatentBlock(config)
    fill(block, f"{path}blocks.0.")
    table = block.adaLN_modulation(emb).unflatten(-1, (6, -1))
    table = table + torch.tensor([0, 1, 0, 0, 1, 0])[:, None]
    h, pending = block(data["transformer_in"][None], table, block.prepare(data["cond"]), None)
    data.check(pending.add_to(h)[0], "transformer_out")


@pytest.mark.golden_cases("name", "stage2/slat_sampler", lambda data: data.info["runs"])
def test_sampler_golden(golden, name: str) -> None:
    data: Golden = golden("stage2/slat_sampler")
    flow = filled(published.latent_flow(data.config["reverse_fn"]["backbone"]))
    grid = Grid(data["coords"], flow.config.resolution)
    options = data.info["runs"][name]
    config = published.sampler(STAGE2_SAMPLER, options)
    steps = options["inference_steps"]
    data.check(time_grid(steps, config.rescale, torch.float32), f"t_{name}")
    *_, (_, latent) = sample_latent(flow, data["cond"], grid, data["noise"], config, steps)
    data.check(latent, f"latent_{name}")
    statistics = LatentStatistics(tuple(data.info["slat_mean"]), tuple(data.info["slat_std"]))
    assert statistics == LatentStatistics()
    data.check(denormalize(latent, statistics), f"slat_{name}")


@pytest.mark.slow
def test_full_size_golden(golden) -> None:
    data: Golden = golden("stage2/full_slat_flow_forward")
    flow = filled(published.latent_flow(data.config))
    grid = Grid(data["coords"], flow.config.resolution)
    out = run(flow, data["x"][0], data["t"], data["cond"], grid)
    data.check(out[None], "out")


def test_manifest() -> None:
    flow = build_latent_flow(device="meta")
    published = manifest("slat_generator")
    names = {k: v for k, v in published.items() if k.startswith(CHECKPOINT_PREFIX)}
    assert {CHECKPOINT_PREFIX + k: v for k, v in shapes(flow).items()} == names


def test_head_norm_has_eps_1e_5() -> None:
    """No golden file catches the eps of the output norm."""
    flow = filled(SMALL_LATENT_FLOW)
    with torch.no_grad():
        for block in flow.out_blocks:
            for parameter in block.parameters():
                parameter.zero_()
        h = torch.linspace(-1e-3, 1e-3, SMALL_LATENT_FLOW.io_width)
        flow.out_blocks[1].conv2.conv.bias.copy_(h)
    grid = Grid(voxels(20, 16), 16)
    out = run(flow, torch.randn(len(grid), 8), torch.ones(1), torch.randn(1, 3, 64), grid)
    expected = flow.out_layer((h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(out, expected.expand_as(out))


# --- Savings ----------------------------------------------------------------------------------


@pytest.fixture
def small() -> tuple[LatentFlow, Grid, Tensor, Tensor]:
    """Return flow, grid, state (N, 8) and condition tokens (1, 11, 64)."""
    torch.manual_seed(0)
    grid = Grid(voxels(120, 16), 16)
    return filled(SMALL_LATENT_FLOW), grid, torch.randn(len(grid), 8), torch.randn(1, 11, 64)


def plain_velocity(flow: LatentFlow, x: Tensor, t: Tensor, tokens: Tensor, grid: Grid) -> Tensor:
    """The network as the specification writes it, without any saving."""
    emb, heads = F.silu(flow.t_embedder(t)), flow.config.heads

    def residual(block: ResidualBlock, x: Tensor, grid: Grid) -> Tensor:
        scale, shift = block.emb_layers[1](emb).chunk(2, 1)
        h = block.conv1(F.silu(block.norm1(x)), grid)
        h = F.silu(F.layer_norm(h, h.shape[1:], eps=1e-6) * (1 + scale) + shift)
        return block.conv2(h, grid) + block.skip_connection(x)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        logits = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        return torch.einsum("hqk,khd->qhd", logits.softmax(-1), v).flatten(1)

    def transform(block: LatentBlock, h: Tensor) -> Tensor:
        table = block.adaLN_modulation[1](emb)
        shift1, scale1, gate1, shift2, scale2, gate2 = table.chunk(6, 1)
        x = F.layer_norm(h, h.shape[1:], eps=1e-6) * (1 + scale1) + shift1
        q, k, v = block.self_attn.to_qkv(x).view(len(x), 3, heads, -1).unbind(1)
        q, k = (
            F.normalize(a, dim=-1) * n.gamma * a.shape[-1] ** 0.5
            for a, n in ((q, block.self_attn.q_rms_norm), (k, block.self_attn.k_rms_norm))
        )
        h = h + gate1 * block.self_attn.to_out(attend(q, k, v))
        cross = block.cross_attn
        q = cross.to_q(block.norm2(h)).view(len(h), heads, -1)
        k, v = cross.to_kv(tokens[0]).view(tokens.shape[1], 2, heads, -1).unbind(1)
        h = h + cross.to_out(attend(q, k, v))
        x = F.layer_norm(h, h.shape[1:], eps=1e-6) * (1 + scale2) + shift2
        return h + gate2 * block.mlp(x)

    parents = grid.parents.grid
    skip0 = residual(flow.input_blocks[0], flow.input_layer(x), grid)
    h = skip1 = residual(flow.input_blocks[1], grid.downsample(skip0), parents)
    h = h + parents.positions(h.shape[1])
    for block in flow.blocks:
        h = transform(block, h)
    h = residual(flow.out_blocks[0], grid.upsample(torch.cat([h, skip1], 1)), grid)
    h = residual(flow.out_blocks[1], torch.cat([h, skip0], 1), grid)
    return flow.out_layer(F.layer_norm(h, h.shape[1:], eps=1e-5))


def test_forward_against_the_specification(small) -> None:
    flow, grid, x, tokens = small
    for t in (torch.tensor([0.0]), torch.tensor([480.0])):
        expected = plain_velocity(flow, x, t, tokens, grid)
        torch.testing.assert_close(run(flow, x, t, tokens, grid), expected, rtol=1e-4, atol=1e-4)


def test_guided_pass_is_two_plain_passes(small) -> None:
    """The unconditional half has no attention to tokens, and shares all it can."""
    flow, grid, x, tokens = small
    t = torch.tensor([120.0])
    both = flow(x, flow.modulation(t), flow.prepare(tokens), grid, guided=True)
    conditional, unconditional = both.chunk(2)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(conditional, plain_velocity(flow, x, t, tokens, grid), **close)
    torch.testing.assert_close(unconditional, plain_velocity(flow, x, t, tokens * 0, grid), **close)
    assert not torch.allclose(conditional, unconditional, **close)


def test_sampling_projects_the_condition_once(small) -> None:
    flow, grid, _, tokens = small
    calls = []
    for block in flow.blocks:
        block.cross_attn.to_kv.register_forward_hook(lambda *_: calls.append(1))
    for _ in sample_latent(flow, tokens, grid, draw_noise(grid), steps=5):
        pass
    assert len(calls) == flow.config.depth


def test_modulation_of_all_steps_at_once(small) -> None:
    flow, *_ = small
    times = torch.tensor([0.0, 40.0, 960.0])
    together = flow.modulation(times)
    for index, t in enumerate(times):
        alone, row = flow.modulation(t[None]), together.at(index)
        torch.testing.assert_close(row.blocks, alone.blocks)
        torch.testing.assert_close(row.residual, alone.residual)


def test_batch_items_of_different_sizes(small) -> None:
    """Items of a batch, each with its own time and condition, are computed as if alone."""
    flow, grid, x, _ = small
    other = voxels(40, 16, seed=3)
    other[:, 0] = 1
    both = Grid(torch.cat([grid.coords, other]), 16)
    other[:, 0] = 0
    x = torch.cat([x, torch.randn(len(other), 8)])
    t, tokens = torch.tensor([100.0, 700.0]), torch.randn(2, 9, 64)
    batched = run(flow, x, t, tokens, both)
    grids = (grid, Grid(other, 16))
    for item, rows in enumerate(both.items):
        one = slice(item, item + 1)
        alone = run(flow, x[rows], t[one], tokens[one], grids[item])
        torch.testing.assert_close(batched[rows], alone, rtol=1e-4, atol=1e-4)
    same = flow.modulation(t[:1])
    guided = flow(x, same, flow.prepare(tokens), both, guided=True)
    alone = flow(x[both.items[1]], same, flow.prepare(tokens[1:]), grids[1], guided=True)
    torch.testing.assert_close(
        guided.view(2, len(x), 8)[:, both.items[1]], alone.view(2, -1, 8), rtol=1e-4, atol=1e-4
    )


# --- The path of one step -----------------------------------------------------------------------

WAITS = {"_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "unique_consecutive", "equal"}


class NoWaiting(TorchDispatchMode):
    """Fail on operations that make the host wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in WAITS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_steps_do_not_wait_for_the_device(small) -> None:
    flow, grid, x, tokens = small
    steps = schedule(STAGE2_SAMPLER, 4)
    velocity = LatentVelocity(flow, tokens, grid, steps)
    state = {"slat": x[None]}
    for step in (steps[0], steps[-1]):  # sizes of padded items, positions
        velocity(state, step)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        x.sum().item()
    with NoWaiting():
        assert velocity(state, steps[0])[1] is not None
        assert velocity(state, steps[-1])[1] is None


def test_one_graph(small) -> None:
    """`torch.compile` takes the whole step without a break."""
    flow, grid, x, tokens = small
    modulation, condition = flow.modulation(torch.zeros(1)), flow.prepare(tokens)
    expected = flow(x, modulation, condition, grid, guided=True)  # makes the tables
    compiled = torch.compile(flow, backend="eager", fullgraph=True)
    actual = compiled(x, modulation, condition, grid, guided=True)
    torch.testing.assert_close(actual, expected)


def test_gradients_reach_every_parameter() -> None:
    flow = LatentFlow(SMALL_LATENT_FLOW)
    grid = Grid(voxels(30, 16, items=2), 16)
    x, t, tokens = torch.randn(len(grid), 8), torch.rand(2) * 1000, torch.randn(2, 5, 64)
    run(flow, x, t, tokens, grid).square().mean().backward()
    missing = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


# --- Half precision -----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 3e-3), (torch.bfloat16, 2.5e-2)])
def test_half_precision(small, dtype: torch.dtype, limit: float) -> None:
    """Relative error of the velocity at the released depth."""
    _, grid, x, tokens = small
    config = replace(SMALL_LATENT_FLOW, depth=24)
    flow = filled(config)
    t = torch.tensor([333.0])
    exact = flow(x, flow.modulation(t), flow.prepare(tokens), grid, guided=True)
    half = build_latent_flow(config, dtype=dtype)
    half.load_state_dict(flow.state_dict())
    assert half.blocks[0].norm2.weight.dtype == torch.float32
    assert half.t_embedder.mlp[0].weight.dtype == half.out_layer.weight.dtype == torch.float32
    assert half.input_blocks[0].conv1.conv.weight.dtype == dtype
    out = half(x, half.modulation(t), half.prepare(tokens), grid, guided=True)
    assert out.dtype == torch.float32
    error = (out - exact).norm() / exact.norm()
    assert error < limit, f"{error:.2e}"


# --- Input and noise ----------------------------------------------------------------------------


def test_noise_is_one_draw_in_row_order() -> None:
    grid = Grid(voxels(20, 16), 16)
    torch.manual_seed(4)
    expected = torch.randn(1, len(grid), 8)
    torch.manual_seed(4)
    assert torch.equal(draw_noise(grid), expected)
    assert torch.equal(draw_noise(grid, generator=torch.Generator().manual_seed(4)), expected)


def test_modulation_of_items_is_the_same_with_gradients() -> None:
    coords = voxels(9, 8, items=3)
    coords = coords[~((coords[:, 0] == 1) & (coords[:, 1] > 3))]  # items of different sizes
    grid = Grid(coords, 8)
    h = torch.randn(len(coords), 6, requires_grad=True)
    table = torch.randn(3, 2, 6, requires_grad=True)
    product = modulated_rows(h, table, grid)
    with torch.no_grad():
        torch.testing.assert_close(modulated_rows(h, table, grid), product)
    wanted = F.layer_norm(h, (6,), eps=BLOCK_EPS) * table[coords[:, 0].long(), 0]
    wanted = wanted + table[coords[:, 0].long(), 1]
    seed = torch.randn_like(product)
    for mine, plain in zip(
        torch.autograd.grad(product, (h, table), seed),
        torch.autograd.grad(wanted, (h, table), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain)


def test_bad_input(small) -> None:
    flow, grid, x, tokens = small
    modulation, condition = flow.modulation(torch.zeros(1)), flow.prepare(tokens)
    noise = draw_noise(grid)
    with pytest.raises(InputError, match=r"\(B, L, 64\), got \(1, 11, 63\)"):
        flow.prepare(tokens[..., :63])
    with pytest.raises(InputError, match=r"shape \(7, 8\) do not fit"):
        flow(x[:7], modulation, condition, grid)
    with pytest.raises(InputError, match="resolution 32, the flow 16"):
        flow(x, modulation, condition, Grid(grid.coords, 32))
    with pytest.raises(InputError, match="tokens for 2 batch items, voxels for 1"):
        flow(x, modulation, flow.prepare(tokens.repeat(2, 1, 1)), grid)
    with pytest.raises(InputError, match="modulation for 3 times"):
        flow(x, flow.modulation(torch.zeros(3)), condition, grid)
    with pytest.raises(InputError, match=r"noise must be \(1, .*, 8\)"):
        next(sample_latent(flow, tokens, grid, noise[0]))
    with pytest.raises(InputError, match="not finite"):
        next(sample_latent(flow, tokens * torch.nan, grid, noise))
    noise[0, 3, 2] = torch.inf
    with pytest.raises(InputError, match="has 1 values that are not finite"):
        next(sample_latent(flow, tokens, grid, noise))
    with pytest.raises(InputError, match="at least 1 step"):
        next(sample_latent(flow, tokens, grid, draw_noise(grid), steps=-1))
    with pytest.raises(InputError, match="8 channels"):
        denormalize(torch.zeros(4, 7))


def test_closing_the_iterator_stops_the_run(small) -> None:
    flow, grid, _, tokens = small
    run = sample_latent(flow, tokens, grid, draw_noise(grid))
    step, latent = next(run)
    assert (step.index, step.count) == (0, 25)
    assert latent.shape == (len(grid), 8)
    run.close()
    assert next(run, None) is None
