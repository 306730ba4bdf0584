"""Euler sampling of a flow from noise at time 0 to data at time 1, for both stages.

The sampler yields after every step, so that the caller can show progress, or stop.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SamplerConfig

Latents = dict[str, Tensor]  # name → (B, tokens, channels), float32

TIME_SCALE = 1000.0  # networks take times and step sizes in thousandths


@dataclass(frozen=True)
class Step:
    """One Euler step, all numbers known before the first one runs."""

    index: int
    count: int
    time: float  # in [0, 1)
    delta: float  # to the next time
    network_time: float  # thousandths, rounded as float32
    network_step_size: float  # thousandths; 0 outside shortcut mode
    guided: bool  # needs the unconditional velocity as well


Velocity = Callable[[Latents, Step], tuple[Latents, Latents | None]]
"""Returns the conditional velocity and, for a guided step, the unconditional one."""


def time_grid(steps: int, rescale: float, dtype: torch.dtype) -> Tensor:
    """Return the times 0 … 1, (steps + 1,), on the CPU: t = u / (1 + (rescale - 1)(1 - u)).

    Stage 1 computes them in float64, stage 2 in float32. A rescale of 0 leaves u as it is.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=dtype, device="cpu")
    return u / (1 + (rescale - 1) * (1 - u)) if rescale else u


def schedule(config: SamplerConfig, steps: int | None = None) -> tuple[Step, ...]:
    """Return the steps of a run; `steps` None or 0 means the configured count.

    Raises `InputError` for a negative count.
    """
    count = steps or config.steps
    if count < 1:
        raise InputError(f"the sampler needs at least 1 step, got {count}")
    times = time_grid(count, config.rescale, getattr(torch, config.grid))
    network_times = (TIME_SCALE * times).float().tolist()
    step_size = TIME_SCALE / count if config.shortcut else 0.0
    deltas = times.diff().tolist()
    return tuple(
        Step(
            k,
            count,
            time,
            deltas[k],
            network_times[k],
            step_size,
            is_guided(config, network_times[k]),
        )
        for k, time in enumerate(times[:-1].tolist())
    )


def is_guided(config: SamplerConfig, network_time: float) -> bool:
    """Tell whether guidance acts at a time given in thousandths; the ends of its interval do."""
    if config.shortcut or config.guidance <= 0 or config.interval is None:
        return False
    low, high = config.interval
    return low <= network_time <= high


def guide(conditional: Tensor, unconditional: Tensor, strength: float) -> Tensor:
    """Return (1 + s) v_conditional - s v_unconditional in float32."""
    return (1 + strength) * conditional.float() - strength * unconditional.float()


def sample(
    velocity: Velocity,
    noise: Latents,
    config: SamplerConfig,
    steps: int | None = None,
) -> Iterator[tuple[Step, Latents]]:
    """Yield every step with the float32 latents after it, from `noise` to the data.

    Closing the iterator ends the run. Raises `InputError` where `noise` is not finite.
    """
    check_finite(noise)
    state = {name: value.float() for name, value in noise.items()}
    for step in schedule(config, steps):
        conditional, unconditional = velocity(state, step)
        for name, value in state.items():
            v = conditional[name].float()
            if unconditional is not None:
                v = guide(v, unconditional[name], config.guidance)
            state[name] = value + v * step.delta
        yield step, dict(state)


def check_finite(latents: Latents) -> None:
    """Raise `InputError` that names the first latent with a NaN or an infinity."""
    found = [value.flatten() for value in latents.values()]
    if not found or bool(torch.cat(found).isfinite().all()):
        return  # all at once, since each question waits for the device
    for name, value in latents.items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise InputError(
                f"latent {name!r} of shape {tuple(value.shape)} has {bad} values that are not "
                "finite; draw it anew, or run in float32 if a half-precision run overflowed"
            )
