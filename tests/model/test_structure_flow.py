"""The two-stream flow transformer: golden numbers, exact savings, published names, precision."""

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


def inputs(file):
    return {name: file[f"in.x.{name}"] for name in NAMES}


@pytest.mark.parametrize("case", ["d0", "d", "no_d"])
def test_golden_forward(golden, flow, case):
    file = golden("stage1/mot_flow_forward")
    d = {"d0": torch.zeros(2), "d": file["in.d"], "no_d": None}[case]
    out = flow(inputs(file), flow.modulation(file["in.t"], d), flow.prepare(file["in.cond"]))
    for name in NAMES:
        file.check(out[name], f"out.{case}.{name}")


def test_golden_guided(golden, flow):
    """Both halves of the guided pass, one item at a time since it takes one time."""
    file = golden("stage1/mot_flow_forward")
    for name in NAMES:
        halves = []
        for i in range(2):
            row = slice(i, i + 1)
            x = {key: value[row] for key, value in inputs(file).items()}
            table = flow.modulation(file["in.t"][row], torch.zeros(1))
            out = flow(x, table, flow.prepare(file["in.cond"][row]), guided=True)
            halves.append(out[name])
        conditional, unconditional = torch.stack(halves, 1)
        file.check(conditional, f"out.d0.{name}")
        file.check(unconditional, f"out.uncond_d0.{name}")


def test_golden_stages(golden, flow):
    file = golden("stage1/mot_flow_forward")
    file.check(flow.embed_times(file["in.t"], torch.zeros(2)), "stage.t_emb_d0")
    streams = flow.encode(inputs(file))
    table = flow.modulation(file["in.t"], torch.zeros(2))
    block, condition = flow.blocks[0], flow.prepare(file["in.cond"])[0]
    m = Modulation.of(table[:, 0])
    shape, seen = block(SHAPE, streams[SHAPE], m, condition[SHAPE])
    layout, _ = block(LAYOUT, streams[LAYOUT], m, condition[LAYOUT], seen)
    for stream, after in ((SHAPE, shape), (LAYOUT, layout)):
        file.check(streams[stream], f"stage.projected.{stream}")
        file.check(after, f"stage.after_block0.{stream}")


def test_golden_timestep(golden):
    file = golden("stage1/timestep")
    flow = fill(build_structure_flow(SMALL_STRUCTURE_FLOW), CHECKPOINT_PREFIX)
    file.check(timestep_sinusoid(file["in.t"]), "sinusoid")
    file.check(flow.t_embedder(file["in.t"]), "embedding")
    file.check(flow.latent_mapping[SHAPE].pos_emb, "shape_pos_emb")


def test_manifest():
    with torch.device("meta"):
        flow = build_structure_flow()
    ours = {CHECKPOINT_PREFIX + name: shape for name, shape in shapes(flow).items()}
    assert ours == manifest("ss_generator")
