"""The two-stream flow transformer: golden numbers, exact savings, published names, precision."""

from copy import deepcopy

import published
import pytest
import torch
from harness import fill, manifest, shapes

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SMALL_STRUCTURE_FLOW, StructureFlowConfig
from sam3d_nb.model.layers import Modulation, position_embedding, timestep_sinusoid
from sam3d_nb.model.structure_flow import (
    CHECKPOINT_PREFIX,
    LAYOUT,
    SHAPE,
    build_structure_flow,
    draw_noise,
    latent_shapes,
    sample_structure,
)

NAMES = tuple(latent_shapes(SMALL_STRUCTURE_FLOW))


@pytest.fixture(scope="module")
def flow():
    return fill(build_structure_flow(SMALL_STRUCTURE_FLOW), CHECKPOINT_PREFIX)


def filled(file):
    """The flow of a golden file's configuration."""
    config = published.structure_flow(file.config)
    return fill(build_structure_flow(config), CHECKPOINT_PREFIX)


def inputs(file):
    return {name: file[f"in.x.{name}"] for name in NAMES}


@pytest.mark.parametrize("case", ["d0", "d", "no_d"])
def test_golden_forward(golden, case):
    file = golden("stage1/mot_flow_forward")
    flow, d = filled(file), {"d0": 0 * file["in.d"], "d": file["in.d"], "no_d": None}[case]
    out = flow(inputs(file), flow.modulation(file["in.t"], d), flow.prepare(file["in.cond"]))
    for name in NAMES:
        file.check(out[name], f"out.{case}.{name}")


def test_golden_guided(golden):
    """Both halves of the guided pass, one item at a time since it takes one time."""
    file = golden("stage1/mot_flow_forward")
    flow = filled(file)
    for name in NAMES:
        halves = []
        for i in range(len(file["in.t"])):
            row = slice(i, i + 1)
            x = {key: value[row] for key, value in inputs(file).items()}
            table = flow.modulation(file["in.t"][row], torch.zeros(1))
            out = flow(x, table, flow.prepare(file["in.cond"][row]), guided=True)
            halves.append(out[name])
        conditional, unconditional = torch.stack(halves, 1)
        file.check(conditional, f"out.d0.{name}")
        file.check(unconditional, f"out.uncond_d0.{name}")


def test_golden_stages(golden):
    file = golden("stage1/mot_flow_forward")
    flow, d = filled(file), 0 * file["in.d"]
    file.check(flow.embed_times(file["in.t"], d), "stage.t_emb_d0")
    streams = flow.encode(inputs(file))
    table = flow.modulation(file["in.t"], d)
    block, condition = flow.blocks[0], flow.prepare(file["in.cond"])[0]
    m = Modulation.of(table[:, 0])
    shape, seen = block(SHAPE, streams[SHAPE], m, condition[SHAPE])
    layout, _ = block(LAYOUT, streams[LAYOUT], m, condition[LAYOUT], seen)
    for stream, after in ((SHAPE, shape), (LAYOUT, layout)):
        file.check(streams[stream], f"stage.projected.{stream}")
        file.check(after, f"stage.after_block0.{stream}")


def test_golden_timestep(golden):
    file = golden("stage1/timestep")
    position = file.config["pos"]
    config = StructureFlowConfig(
        position["channels"], depth=0, heads=1, resolution=position["resolution"]
    )
    flow = fill(build_structure_flow(config), CHECKPOINT_PREFIX)
    width = file.config["frequency_embedding_size"]
    file.check(timestep_sinusoid(file["in.t"], width), "sinusoid")
    file.check(flow.t_embedder(file["in.t"]), "embedding")
    file.check(flow.latent_mapping[SHAPE].pos_emb, "shape_pos_emb")


def test_manifest():
    with torch.device("meta"):
        flow = build_structure_flow()
    ours = {CHECKPOINT_PREFIX + name: shape for name, shape in shapes(flow).items()}
    assert ours == manifest("ss_generator")


# --- Exact savings ----------------------------------------------------------------------------


def random_case(batch=1, tokens=11):
    generator = torch.Generator().manual_seed(0)
    latents = draw_noise(SMALL_STRUCTURE_FLOW, generator, batch=batch)
    width = SMALL_STRUCTURE_FLOW.condition_width
    return latents, torch.randn(batch, tokens, width, generator=generator)


@pytest.mark.parametrize("batch", [1, 2])
def test_guided_pass_equals_two_plain_passes(flow, batch):
    """The second half is real attention to zeroed tokens, with keys and values of their own."""
    latents, tokens = random_case(batch)
    table = flow.modulation(torch.tensor([120.0]), torch.zeros(1))
    guided = flow(latents, table, flow.prepare(tokens), guided=True)
    conditional = flow(latents, table, flow.prepare(tokens))
    unconditional = flow(latents, table, flow.prepare(0 * tokens))
    for name in NAMES:
        expected = torch.cat([conditional[name], unconditional[name]])
        torch.testing.assert_close(guided[name], expected, rtol=1e-5, atol=1e-6)


def test_kept_condition_and_times_equal_fresh_ones(flow):
    latents, tokens = random_case()
    times = torch.tensor([0.0, 120.0, 900.0])
    kept, table = flow.prepare(tokens), flow.modulation(times, torch.zeros(3))
    for k in range(3):
        t = times[k : k + 1]
        fresh = flow(latents, flow.modulation(t, torch.zeros(1)), flow.prepare(tokens))
        again = flow(latents, table[k : k + 1], kept)
        for name in NAMES:
            torch.testing.assert_close(again[name], fresh[name], rtol=1e-5, atol=1e-6)


def test_shape_does_not_see_the_layout(flow):
    latents, tokens = random_case()
    table, condition = flow.modulation(torch.tensor([300.0])), flow.prepare(tokens)
    first = flow(latents, table, condition)
    turned = flow(latents | {"scale": latents["scale"] + 1}, table, condition)
    assert torch.equal(first["shape"], turned["shape"])
    assert not torch.allclose(first["translation"], turned["translation"])


def test_layout_sees_the_shape(flow):
    latents, tokens = random_case()
    table, condition = flow.modulation(torch.tensor([300.0])), flow.prepare(tokens)
    first = flow(latents, table, condition)
    moved = flow(latents | {"shape": latents["shape"] + 1}, table, condition)
    for name in NAMES:
        assert not torch.allclose(first[name], moved[name])


def test_batch_equals_single_requests(flow):
    latents, tokens = random_case(batch=2)
    table = flow.modulation(torch.tensor([300.0]), torch.zeros(1))
    both = flow(latents, table, flow.prepare(tokens))
    for i in range(2):
        row = slice(i, i + 1)
        one = flow({n: x[row] for n, x in latents.items()}, table, flow.prepare(tokens[row]))
        for name in NAMES:
            torch.testing.assert_close(both[name][row], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("guided", [False, True])
def test_step_compiles_as_one_graph(flow, guided):
    """No graph break, so nothing in a step depends on values: it can also be captured."""
    latents, tokens = random_case()
    table, condition = flow.modulation(torch.tensor([300.0])), flow.prepare(tokens)
    step = torch.compile(flow, backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled = step(latents, table, condition, guided=guided)
    for name, value in flow(latents, table, condition, guided=guided).items():
        torch.testing.assert_close(compiled[name], value)


# --- Norms, noise, precision, input -----------------------------------------------------------


def plain_norm(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()


def test_output_norm_has_eps_1e_5(flow):
    h = 1e-3 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    mapping = flow.latent_mapping[SHAPE]
    torch.testing.assert_close(mapping.decode(h), mapping.out_layer(plain_norm(h, 1e-5)))


@pytest.mark.parametrize("stream", [SHAPE, LAYOUT])
def test_block_norms_have_eps_1e_6(flow, stream):
    """One block on tokens so small that the eps of each of its three norms shows."""
    block = deepcopy(flow.blocks[0])
    x = 1e-3 * torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    m = Modulation.of(flow.modulation(torch.tensor([10.0]))[:, 0])
    m = m._replace(attention_gate=1e-3 * m.attention_gate)  # keeps the sums small
    for parameter in block.cross_attn[stream].to_out.parameters():
        parameter.mul_(1e-3)
    condition = block.prepare(random_case()[1])[stream]
    actual, _ = block(stream, x, m, condition)

    h = plain_norm(x, 1e-6) * m.attention_gain + m.attention_shift
    y = x + m.attention_gate * block.self_attn.attend(stream, *block.self_attn.project(stream, h))
    norm = block.norm2[stream]
    h = plain_norm(y, 1e-6) * norm.weight + norm.bias
    y = y + block.cross_attn[stream](h, condition.tokens)
    h = plain_norm(y, 1e-6) * m.mlp_gain + m.mlp_shift
    expected = y + m.mlp_gate * block.mlp[stream](h)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_in_the_published_order(golden):
    file = golden("stage1/stage1_pipeline")
    config = published.structure_flow(file.config["flow"])
    torch.manual_seed(file.config["seed"])
    drawn = draw_noise(config)
    seeded = draw_noise(config, torch.Generator().manual_seed(file.config["seed"]))
    assert list(drawn) == sorted(drawn)
    for name in NAMES:
        file.check(drawn[name], f"noise.{name}", tolerance="noise")
        assert torch.equal(drawn[name], seeded[name])


def test_position_table_of_the_published_size():
    with torch.device("meta"):
        flow = build_structure_flow()
    assert flow.latent_mapping[SHAPE].pos_emb.shape == (4096, 1024)
    row = position_embedding(torch.tensor([[1, 2, 3]]), 1024)[0]
    assert row[1020:].tolist() == [0] * 4
    assert row[0] == pytest.approx(torch.tensor(1.0).sin().item())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.005), (torch.bfloat16, 0.04)])
def test_half_precision(flow, dtype, bound):
    """Root-mean-square error of the velocity relative to float32; the stand-in weights' worst."""
    latents, tokens = random_case()
    half = build_structure_flow(SMALL_STRUCTURE_FLOW, dtype=dtype)
    half.load_state_dict(flow.state_dict())
    results = []
    for network in (flow, half):
        table = network.modulation(torch.tensor([120.0]), torch.zeros(1))
        results.append(network(latents, table, network.prepare(tokens), guided=True))
    for name in NAMES:
        exact, rough = (result[name].float() for result in results)
        assert (rough - exact).norm() / exact.norm() < bound, name


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.003), (torch.bfloat16, 0.015)])
def test_half_precision_at_published_width(dtype, bound):
    config = StructureFlowConfig(depth=3, resolution=4)
    flow = fill(build_structure_flow(config), CHECKPOINT_PREFIX)
    half = build_structure_flow(config, dtype=dtype)
    half.load_state_dict(flow.state_dict())
    generator = torch.Generator().manual_seed(0)
    latents = draw_noise(config, generator)
    tokens = torch.randn(1, 200, config.condition_width, generator=generator)
    exact, rough = (
        network(
            latents,
            network.modulation(torch.tensor([120.0]), torch.zeros(1)),
            network.prepare(tokens),
            guided=True,
        )
        for network in (flow, half.requires_grad_(False))
    )
    for name in NAMES:
        assert (rough[name].float() - exact[name]).norm() / exact[name].norm() < bound, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_survives_large_tokens(flow, dtype):
    latents, tokens = random_case()
    half = build_structure_flow(SMALL_STRUCTURE_FLOW, dtype=dtype)
    half.load_state_dict(flow.state_dict())
    *_, (_, final) = sample_structure(half, 100 * tokens, latents, steps=4)
    assert all(value.isfinite().all() for value in final.values())
    assert all(value.dtype == torch.float32 for value in final.values())


def test_bad_input(flow):
    latents, tokens = random_case()
    table, condition = flow.modulation(torch.zeros(1)), flow.prepare(tokens)
    with pytest.raises(InputError, match=r"\(B, M, 64\), got \(1, 11, 63\)"):
        flow.prepare(tokens[..., :63])
    with pytest.raises(InputError, match=r"\(1, 0, 64\)"):
        flow.prepare(tokens[:, :0])
    with pytest.raises(InputError, match="'scale' is missing"):
        flow({n: x for n, x in latents.items() if n != "scale"}, table, condition)
    with pytest.raises(InputError, match=r"\['size'\] are unknown"):
        flow(latents | {"size": latents["scale"]}, table, condition)
    with pytest.raises(InputError, match=r"'shape' must be \(1, 64, 8\), got \(1, 63, 8\)"):
        flow(latents | {"shape": latents["shape"][:, 1:]}, table, condition)
    with pytest.raises(InputError, match="3 times"):
        flow(latents, table.repeat(3, 1, 1, 1), condition)
    with pytest.raises(InputError, match="not finite"):
        next(sample_structure(flow, tokens * torch.nan, latents))
    with pytest.raises(InputError, match=r"'scale'.*3 values"):
        next(sample_structure(flow, tokens, latents | {"scale": latents["scale"] * torch.nan}))
