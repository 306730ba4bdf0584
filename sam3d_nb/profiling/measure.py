"""One measured run of an object or a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, OnEvent, tell
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model
from sam3d_nb.profiling.record import Run
from sam3d_nb.profiling.sampler import MemorySampler
from sam3d_nb.profiling.subject import Subject
from sam3d_nb.profiling.timer import Span, SpanTimer

LOAD = "load model"
"""The stage before all others, where the model is loaded for every run."""
Work = Callable[[Model, OnEvent], Any]
"""Makes something with a model, and passes on its events."""


@dataclass(frozen=True)
class Schedule:
    """How often an object is run: `wait` runs are skipped, `warmup` runs do not count, `active` do.

    As published, where the schedule is that of `torch.profiler`. Raises InputError unless all are
    whole numbers, and one run at least counts.
    """

    wait: int = 0
    warmup: int = 1
    active: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name == "active" else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is a whole number from {least} on, but got {value!r}")

    def runs(self) -> tuple[bool, ...]:
        """Return for each run that is made whether it counts."""
        return (False,) * self.warmup + (True,) * self.active


def measure_run(
    subject: Subject, work: Work, *, counted: bool = True, on_event: OnEvent | None = None
) -> Run:
    """Measure one run of `work`, from an idle device to an idle device.

    Where the subject's model is not kept, it is loaded within the run. on_event: called with every
    event; an exception that it raises stops the run.
    """
    subject.drop()
    with MemorySampler(subject.probe) as sampler:
        start = perf_counter()
        model, load_seconds = subject.get()
        sampler.probe = subject.probe
        timer = SpanTimer(subject.probe)

        def note(event: Event) -> None:
            timer(event)
            tell(on_event, event)

        loaded = perf_counter()
        made = work(model, note)
        subject.probe.synchronize()
        end = perf_counter()
    spans = timer.finish(sampler.since(timer.origin))
    spans = [replace(span, start=span.start + timer.origin - start) for span in spans]
    if load_seconds:
        spans.insert(0, Span((LOAD,), 0.0, load_seconds, None, subject.loaded))
    seconds = end - start if load_seconds else end - loaded
    thing = made if isinstance(made, Object3D) else None
    splats = None if thing is None else thing.gaussians
    return Run(
        counted=counted,
        seconds=seconds,
        load_seconds=load_seconds,
        overhead=timer.overhead + sampler.overhead,
        peak=timer.peak.most(subject.loaded) if load_seconds else timer.peak,
        spans=tuple(spans),
        samples=tuple(sampler.since(start)),
        voxels=timer.voxels,
        faces=None if thing is None else len(thing.mesh.faces),
        gaussians=None if splats is None else len(splats),
    )
