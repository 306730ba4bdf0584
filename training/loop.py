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
WARM = 12
"""Steps before one is recorded: libraries choose their kernels in the first."""


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
    *,
    replayed: bool = False,
) -> list[str]:
    """Train `modules` on what `losses(step)` gives until time is up; return the log.

    samples: of one step of this process, for the log. save: called now and then, while the modules
    hold the average of their parameters, with which they also end. The losses are summed; a
    gradient that is not finite counts as zero, and its step as skipped in the log. Several
    processes (see `parallel`) take the same steps, by the mean of their gradients and by the clock
    and the minutes of the first one, which also logs and saves.

    replayed: on one GPU, steps are replayed from a CUDA graph, which leaves the host nothing to do.
    For losses whose tensors have the same sizes in every step, and that never wait for the device.
    """
    parallel.same_start(modules.values())
    average = Average(modules, schedule.decay)
    held = {id(p) for module in frozen for p in module.parameters()}
    parameters = [p for m in modules.values() for p in m.parameters() if id(p) not in held]
    device, together = parameters[0].device, parallel.processes()
    take = _Steps(losses, parameters, schedule, replayed=replayed)
    started, saved, step = perf_counter(), 0.0, 0
    seconds = parallel.agreed(schedule.minutes * 60, device)
    log = _Log(name, samples * together, schedule.log_every)
    for module in modules.values():
        module.train()
    while True:
        if step % (1 if together == 1 else schedule.agree_every) == 0:
            passed = parallel.agreed(perf_counter() - started, device)
        if passed >= seconds:
            break
        parts = take(step, schedule.rate_at(passed / seconds, step))
        average.update()
        step += 1
        log.add(parts)
        if save and parallel.rank() == 0 and passed - saved > schedule.save_every:
            average.swap()
            save()
            average.swap()
            saved = passed
    average.swap()
    for module in modules.values():
        module.eval()
    return log.lines + take.lines


class _Steps:
    """Steps of the optimizer on the sum of losses, on one GPU replayed where that is asked for."""

    def __init__(
        self,
        losses: Callable[[int], Losses],
        parameters: list[nn.Parameter],
        schedule: Schedule,
        *,
        replayed: bool,
    ) -> None:
        device = parameters[0].device
        cuda = device.type == "cuda"
        self.losses, self.parameters, self.clip = losses, parameters, schedule.clip
        self.rate = torch.tensor(schedule.rate, device=device)
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        # fused and capturable ones read their rate on the device
        self.optimizer = torch.optim.AdamW(
            groups, self.rate, betas=(0.9, 0.98), fused=cuda, capturable=cuda
        )
        self.stream = None
        if cuda and replayed and parallel.processes() == 1:
            self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.parts: Losses = {}
        self.lines: list[str] = []

    def __call__(self, step: int, rate: float) -> Losses:
        """Take step number `step`; return its losses, which the next step may overwrite."""
        self.rate.fill_(rate)
        if self.stream is not None and step == WARM:
            self._record(step)
        if self.stream is None:
            return self._taken(step)
        if self.graph is not None:
            self.graph.replay()
            if step % WARM == 0:  # the host is not to run ahead: it has the clock
                torch.cuda.current_stream().synchronize()
            return self.parts
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            parts = self._taken(step)
        torch.cuda.current_stream().wait_stream(self.stream)
        return parts

    def _record(self, step: int) -> None:
        """Record a step without taking it; where that does not work, steps are taken one by one."""
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # gradients are then the graph's own
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.parts = self._taken(step)
        except RuntimeError as error:
            self.lines.append(f"steps are not replayed: {error}")
            print(self.lines[-1], flush=True)
            self.stream = None
            return
        self.graph = graph

    def _taken(self, step: int) -> Losses:
        """Take one step; a gradient that is not finite counts as zero, and the step as skipped."""
        cuda = self.rate.is_cuda
        with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
            parts = self.losses(step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        parallel.average_gradients(self.parameters)
        usable = nn.utils.clip_grad_norm_(self.parameters, self.clip).isfinite()
        for p in self.parameters:
            if p.grad is not None:
                p.grad.nan_to_num_(0.0, 0.0, 0.0)
                p.grad.mul_(usable)
        self.optimizer.step()
        return {name: part.detach() for name, part in parts.items()} | {
            "skipped": (~usable).float()
        }


class _Log:
    """Means of the losses since the last line, a line now and then.

    samples: of one step, of all processes.
    """

    def __init__(self, name: str, samples: int, every: float) -> None:
        self.name, self.samples, self.every = name, samples, every
        self.lines: list[str] = []
        self.started, self.told, self.steps, self.since = perf_counter(), 0.0, 0, 0
        self.sums: Losses = {}

    def add(self, parts: Losses) -> None:
        """Count one step; write a line where it is time, or after the first step."""
        self.steps, self.since = self.steps + 1, self.since + 1
        for key, value in parts.items():
            self.sums[key] = self.sums.get(key, 0) + value.detach().float()
        spent = perf_counter() - self.started
        if self.steps > 1 and spent - self.told <= self.every:
            return
        pairs = self.sums.items()
        means = ", ".join(f"{key} {float(total) / self.since:.4f}" for key, total in pairs)
        spent = perf_counter() - self.started  # reading the sums waits for the device
        rate = self.since * self.samples / (spent - self.told)
        self.lines.append(
            f"{self.name} {spent:6.0f} s, step {self.steps}: {means}; {rate:.0f} samples/s"
        )
        if parallel.rank() == 0:
            print(self.lines[-1], flush=True)
        self.sums, self.since, self.told = {}, 0, spent
