"""Known numbers on a device: made once, and no step from photo to latent asks the host for more."""

from collections import Counter

import pytest
import torch
from coordinates import voxels
from torch.utils._python_dispatch import TorchDispatchMode

from sam3d_nb.model.accelerate import accelerate
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.conditioning import build_condition_embedder, condition_tokens
from sam3d_nb.model.config import (
    SMALL_LATENT_FLOW,
    SMALL_STAGE1_CONDITION,
    SMALL_STRUCTURE_FLOW,
)
from sam3d_nb.model.constants import constant, onto
from sam3d_nb.model.focal import uv_map
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import build_latent_flow, make_tables, sample_latent
from sam3d_nb.model.latent_flow import draw_noise as latent_noise
from sam3d_nb.model.layers import modulation_table
from sam3d_nb.model.structure_flow import build_structure_flow, draw_noise, sample_structure

CPU = torch.device("cpu")
WAITS = ("_local_scalar_dense", "lift_fresh", "equal", "nonzero")
"""What waits for a GPU: questions that the host asks, and numbers that it brings along."""


class Waits(TorchDispatchMode):
    """Counts operations that wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_constant_is_made_once():
    values = ((1, 0, 0), (0, 1, 1))
    first = constant(values, CPU, torch.float16)
    assert torch.equal(first, torch.tensor(values, dtype=torch.float16))
    assert constant(values, CPU, torch.float16) is first
    assert constant(values, CPU).dtype == torch.int64
    assert constant((0.5, 2.0), CPU).dtype == torch.float32
    assert constant((1,), torch.device("meta")).is_meta


def test_gradients_go_through_what_was_made_in_inference_mode():
    with torch.inference_mode():
        made = constant((3.0, 5.0), CPU)
        axes = uv_map(3, 7, 2.5, like=torch.zeros(()))
    x = torch.ones(2, requires_grad=True)
    (x * made).sum().backward()
    assert x.grad.tolist() == [3, 5]
    assert torch.equal(uv_map(3, 7, 2.5, like=torch.zeros(())), axes)


def test_compiled_code_has_its_own():
    layer = torch.nn.Linear(4, 24)
    table = torch.compile(lambda e: modulation_table([layer], e), backend="eager", fullgraph=True)
    embedding = torch.randn(2, 4)
    assert torch.equal(table(embedding), modulation_table([layer], embedding))


def test_what_is_on_the_device_stays_where_it_is():
    x = torch.ones(3)
    assert onto(x, CPU) is x


def test_conditioning_asks_the_host_for_nothing():
    embedder = build_condition_embedder(SMALL_STAGE1_CONDITION)
    seen = []
    for seed in range(2):
        torch.manual_seed(seed)
        channels = {"image": 3, "rgb_image": 3, "mask": 1, "rgb_image_mask": 1}
        inputs = {name: torch.rand(1, n, 98, 98) for name, n in channels.items()}
        inputs |= {name: torch.randn(1, 3, 64, 64) for name in ("pointmap", "rgb_pointmap")}
        with torch.no_grad(), Waits() as waits:
            condition_tokens([embedder], inputs, SceneCache())
        seen.append(dict(waits.seen))
    assert seen[1] == {"equal": 2}  # of images on the host: the two photos, the two masks


@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_of_a_flow_asks_whether_its_input_is_finite_and_nothing_else(stage):
    if stage == 1:
        flow = accelerate(build_structure_flow(SMALL_STRUCTURE_FLOW))
        tokens = torch.randn(1, 9, flow.config.condition_width)
        runs = [sample_structure(flow, tokens, draw_noise(flow.config), steps=3) for _ in range(2)]
    else:
        flow = accelerate(build_latent_flow(SMALL_LATENT_FLOW))
        grid = Grid(voxels(60, 16), 16)
        make_tables(grid, flow.config.width, guided=True)
        tokens = torch.randn(1, 9, flow.config.condition_width)
        runs = [sample_latent(flow, tokens, grid, latent_noise(grid), steps=3) for _ in range(2)]
    for run in runs:
        with Waits() as waits:
            assert len(list(run)) == 3
    times = 2 if stage == 1 else 1  # tensors that stay on the host
    assert waits.seen == {"_local_scalar_dense": 2, "lift_fresh": times}


def test_whole_numbers_and_others_are_told_apart():
    for values, dtype in (
        ((1.0, 0.0), torch.float32),
        ((1, 0), torch.int64),
        ((True, False), torch.bool),
    ):
        assert constant(values, CPU).dtype == dtype
    assert constant((-0.0,), CPU).signbit().all()
    assert not constant((0.0,), CPU).signbit().any()
