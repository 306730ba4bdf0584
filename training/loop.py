"""The training loop that all stages share: so many minutes, one line of log now and then."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from training import parallel
from training.networks import Average

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """Length and step sizes of a run. The rate warms up, stays, and falls to zero as a cosine."""

    minutes: float
    rate: float = 1e-3
    warmup: int = 200  # steps
    hold: float = 0.3  # part of the time at the full rate
    decay: float = 0.998  # of the parameters' average
    clip: float = 1.0  # largest norm of the gradient
    log_every: float = 10.0  # seconds
    save_every: float = 120.0  # seconds
    agree_every: int = 20  # steps, between looks at the clock of the first of several processes

    def rate_at(self, done: float, step: int) -> float:
        """Return the rate after the part `done` of the time."""
        falling = max(0.0, min(1.0, (done - self.hold) / (1 - self.hold)))
        return (
            self.rate * min(1.0, (step + 1) / self.warmup) * (1 + math.cos(math.pi * falling)) / 2
        )


def train(
    name: str,
    modules: dict[str, nn.Module],
    losses: Callable[[int], Losses],
    schedule: Schedule,
    samples: int,
    frozen: tuple[nn.Module, ...] = (),
    save: Callable[[], None] | None = None,
) -> list[str]:
    """Train `modules` on what `losses(step)` gives until time is up; return the log.

    samples: of one step of this process, for the log. save: called now and then, while the modules
    hold the average of their parameters, with which they also end. The losses are summed; a step
    whose gradient is not finite is left out, and counted in the log. Several processes (see
    `parallel`) take the same steps, by the mean of their gradients; the first one logs and saves.
    """
    parallel.same_start(modules.values())
    average = Average(modules, schedule.decay)
    held = {id(p) for module in frozen for p in module.parameters()}
    parameters = [p for m in modules.values() for p in m.parameters() if id(p) not in held]
    device = parameters[0].device
    cuda = device.type == "cuda"
    matrices = [p for p in parameters if p.dim() > 1]
    vectors = [p for p in parameters if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}],
        lr=schedule.rate,
        betas=(0.9, 0.98),
        fused=cuda,
    )
    log, sums, saved = [], {}, 0.0
    seconds, started, told, step, since = schedule.minutes * 60, perf_counter(), 0.0, 0, 0
    first, together = parallel.rank() == 0, parallel.processes()
    for module in modules.values():
        module.train()
    while True:
        if together == 1 or step % schedule.agree_every == 0:
            passed = parallel.agreed(perf_counter() - started, device)
        if passed >= seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(passed / seconds, step)
        with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
            parts = losses(step)
            total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        parallel.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, schedule.clip)
        usable = norm.isfinite()
        for p in parameters:
            if p.grad is not None:
                p.grad.nan_to_num_(0.0, 0.0, 0.0)
                p.grad.mul_(usable)
        optimizer.step()
        average.update()
        step, since = step + 1, since + 1
        for key, value in (parts | {"skipped": (~usable).float()}).items():
            sums[key] = sums.get(key, 0) + value.detach().float()
        if step == 1 or perf_counter() - started - told > schedule.log_every:
            means = ", ".join(f"{key} {float(value) / since:.4f}" for key, value in sums.items())
            spent = perf_counter() - started
            rate = since * samples * together / (spent - told)
            log.append(f"{name} {spent:6.0f} s, step {step}: {means}; {rate:.0f} samples/s")
            if first:
                print(log[-1], flush=True)
            sums, since, told = {}, 0, spent
        if save and first and passed - saved > schedule.save_every:
            average.swap()
            save()
            average.swap()
            saved = passed
    average.swap()
    for module in modules.values():
        module.eval()
    return log
