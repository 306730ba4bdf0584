"""Time grids, guidance and the Euler sampler."""

from dataclasses import replace
from itertools import product

import numpy as np
import published
import pytest
import torch
from harness import fill

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import (
    SMALL_STRUCTURE_FLOW,
    STAGE1_SAMPLER,
    STAGE2_SAMPLER,
    SamplerConfig,
)
from sam3d_nb.model.sampler import guide, sample, schedule, time_grid
from sam3d_nb.model.structure_flow import (
    CHECKPOINT_PREFIX,
    build_structure_flow,
    latent_shapes,
    sample_structure,
)

NAMES = tuple(latent_shapes(SMALL_STRUCTURE_FLOW))
SHORTCUT = replace(STAGE1_SAMPLER, shortcut=True)


def check_run(file, name, config):
    """Compare a run's last state, and the others as far as the file has them."""
    flow = build_structure_flow(published.structure_flow(file.config))
    fill(flow, CHECKPOINT_PREFIX)
    noise = {latent: file[f"in.noise.{latent}"] for latent in NAMES}
    steps = file.config["runs"][name]["steps"]
    compared = 0
    for step, state in sample_structure(flow, file["in.cond"], noise, config, steps):
        keys = [f"{name}.step{step.index}."] + [f"{name}.final."] * (step.index + 1 == steps)
        for key, latent in product(keys, NAMES):
            if key + latent in file.tensors:
                file.check(state[latent], key + latent)
                compared += 1
    assert compared + 1 == len([key for key in file.tensors if key.startswith(f"{name}.")])


def runs(file):
    return file.config["runs"]


@pytest.mark.golden_cases("name", "stage1/sampler_cfg", runs)
def test_golden_guided(golden, name):
    file = golden("stage1/sampler_cfg")
    wanted = file.config["runs"][name]
    config = published.sampler(STAGE1_SAMPLER, file.config)
    plan = schedule(config, wanted["steps"])
    np.testing.assert_allclose([step.time for step in plan], file[f"{name}.times"], rtol=1e-14)
    assert [1 + step.guided for step in plan] == wanted["network_evals_per_step"]
    check_run(file, name, config)


@pytest.mark.golden_cases("name", "stage1/sampler_shortcut", runs)
def test_golden_shortcut(golden, name):
    file = golden("stage1/sampler_shortcut")
    wanted = file.config["runs"][name]
    config = replace(SHORTCUT, rescale=file.config["rescale_t"])
    plan = schedule(config, wanted["steps"])
    np.testing.assert_allclose([step.time for step in plan], file[f"{name}.times"], rtol=1e-14)
    assert {step.network_step_size for step in plan} == {wanted["d_passed"]}
    assert not any(step.guided for step in plan)
    check_run(file, name, config)


def test_released_schedule_of_stage1():
    assert (STAGE1_SAMPLER.guidance, STAGE1_SAMPLER.interval) == (7, (0, 500))
    plan = schedule(STAGE1_SAMPLER)
    assert len(plan) == 25
    assert [step.guided for step in plan] == [True] * 19 + [False] * 6
    assert {step.network_step_size for step in plan} == {0.0}
    assert sum(step.delta for step in plan) == pytest.approx(1, abs=1e-12)
    for k, step in enumerate(plan):
        u = k / 25
        assert step.time == pytest.approx(u / (1 + 2 * (1 - u)), rel=1e-14)
        assert step.network_time == float(np.float32(1000 * step.time))


def test_released_schedule_of_stage2():
    assert (STAGE2_SAMPLER.guidance, STAGE2_SAMPLER.interval) == (1, (0, 500))
    plan = schedule(STAGE2_SAMPLER)
    assert [step.guided for step in plan] == [True] * 13 + [False] * 12
    assert all(step.time == pytest.approx(k / 25, abs=1e-7) for k, step in enumerate(plan))


def test_both_ends_of_the_interval_are_guided():
    config = SamplerConfig(rescale=0, interval=(250.0, 500.0), guidance=1.0)
    assert [step.guided for step in schedule(config, 4)] == [False, True, True, False]
    assert [step.guided for step in schedule(replace(config, interval=None), 4)] == [False] * 4
    assert [step.guided for step in schedule(replace(config, guidance=0.0), 4)] == [False] * 4


def test_time_grid_in_float32():
    grid = time_grid(25, 3, torch.float32)
    u = np.linspace(0, 1, 26)
    np.testing.assert_allclose(grid, u / (1 + 2 * (1 - u)), atol=2e-7)
    assert grid.dtype == torch.float32


def test_times_do_not_depend_on_the_default_device():
    """Apple's devices have no float64."""
    expected = schedule(STAGE1_SAMPLER)
    with torch.device("meta"):
        assert schedule(STAGE1_SAMPLER) == expected


def test_guidance_extrapolates():
    c, u = torch.tensor([3.0]), torch.tensor([1.0])
    assert guide(c, u, 7).item() == 8 * 3 - 7
    assert guide(c, u, 1).item() == 2 * 3 - 1


def test_euler_of_a_known_field():
    """v = a gives x0 + a exactly, whatever the grid; guidance doubles the difference."""
    noise = {"a": torch.zeros(1, 2, 3), "b": torch.ones(1, 1, 1)}
    config = SamplerConfig(interval=(0.0, 1000.0), guidance=1.0)

    def velocity(latents, step):
        v = {name: torch.full_like(x, 2.0) for name, x in latents.items()}
        return v, {name: torch.ones_like(x) for name, x in latents.items()}

    *_, (_, final) = sample(velocity, noise, config, 7)
    torch.testing.assert_close(final["a"], torch.full((1, 2, 3), 3.0))
    torch.testing.assert_close(final["b"], torch.full((1, 1, 1), 4.0))
    assert noise["a"].abs().max() == 0  # the caller's noise is not overwritten


def test_stopping_early_stops_the_network():
    calls = []

    def velocity(latents, step):
        calls.append(step.index)
        return latents, None

    run = sample(velocity, {"a": torch.zeros(1, 1, 1)}, STAGE2_SAMPLER, 10)
    next(run)
    next(run)
    run.close()
    assert calls == [0, 1]


def test_yielded_states_are_not_overwritten():
    def velocity(latents, step):
        return {"a": torch.ones(1, 1, 1)}, None

    config = SamplerConfig(guidance=0, rescale=0)
    states = [x["a"].item() for _, x in sample(velocity, {"a": torch.zeros(1, 1, 1)}, config, 4)]
    assert states == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("steps", [None, 0])
def test_no_step_count_means_the_configured_one(steps):
    assert len(schedule(STAGE1_SAMPLER, steps)) == 25


def test_bad_input():
    with pytest.raises(InputError, match="-3"):
        schedule(STAGE1_SAMPLER, -3)
    bad = {"shape": torch.full((1, 2, 3), torch.nan)}
    with pytest.raises(InputError, match=r"'shape'.*6 values"):
        next(sample(lambda latents, step: (latents, None), bad, STAGE1_SAMPLER))
