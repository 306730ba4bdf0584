"""Nested spans of time and memory, fed by the stage events of a model.

    timer = SpanTimer(probe_for(model))
    model.reconstruct(example, 0, on_event=timer)
    timer.finish()

Spans are stages, the sampler's steps inside of stages, and in scenes the objects around them. The
device is waited for where a stage begins and ends, and nowhere else: a step is told by the
device's own clock where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from sam3d_nb.events import (
    DoneEvent,
    Event,
    ObjectDoneEvent,
    ObjectEvent,
    ObjectFailedEvent,
    SceneDoneEvent,
    SceneEvent,
    SparseStructureEvent,
    StageTimer,
)
from sam3d_nb.profiling.probe import Memory, Probe

UNKNOWN = Memory()


@dataclass(frozen=True)
class Span:
    """One stretch of a run.

    path: its name below those of the spans that it lies in. start: seconds since the timer was
    made. seconds: on the host's clock. device_seconds: on the device's own clock, None without
    one. peak: the most memory in it.
    """

    path: tuple[str, ...]
    start: float
    seconds: float
    device_seconds: float | None = None
    peak: Memory = UNKNOWN


class _Begun(NamedTuple):
    """A span that has begun. mark: in the device's queue. step: of a sampler, 0 for a stage."""

    start: float
    mark: Any
    step: int = 0


class _Ended(NamedTuple):
    path: tuple[str, ...]
    begun: _Begun
    end: float
    mark: Any
    peak: Memory


class SpanTimer(StageTimer):
    """Adds up stages as `StageTimer` does, and keeps each as a span with steps and memory.

    `spans` are those that are complete, after `finish`. `voxels` is how many stage 1 found, None
    without one. `origin` is when it was made, on the clock of `perf_counter`. `overhead` is the
    processor time that the timer itself took, without waiting for the device.
    """

    def __init__(self, probe: Probe) -> None:
        super().__init__(self._wait)
        self.probe = probe
        self.spans: list[Span] = []
        self.voxels: int | None = None
        self.overhead = 0.0
        probe.take_peak()  # of what was before
        self.peak = probe.memory()
        self.origin = perf_counter()
        self._waited = 0.0
        self._ended: list[_Ended] = []
        self._stages: dict[str, _Begun] = {}
        self._steps: dict[str, _Begun] = {}  # by stage, since one may lie in another
        self._object: tuple[str, _Begun, Memory] | None = None

    def __call__(self, event: Event) -> None:
        """Take note of `event` at the present time."""
        entered, waited = thread_time(), self._waited
        if isinstance(event, ObjectEvent):
            self._follow(event.inner)
        elif isinstance(event, ObjectDoneEvent | ObjectFailedEvent):
            self._end_object()
        elif isinstance(event, SceneEvent):
            self._begin_object(event.label)
        else:
            self._follow(event)
        self.overhead += thread_time() - entered - (self._waited - waited)

    def finish(self, samples: Sequence[tuple[float, Memory]] = ()) -> list[Span]:
        """Wait for the device and return all spans in the order in which they began.

        samples: memory by seconds since the timer was made, which adds to the peaks.
        """
        self.probe.synchronize()
        self.peak = self.peak.most(self.probe.take_peak())
        for _, memory in samples:
            self.peak = self.peak.most(memory)
        for path, begun, end, mark, peak in self._ended:
            start = begun.start - self.origin
            for moment, memory in samples:
                if start <= moment <= end - self.origin:
                    peak = peak.most(memory)
            on_device = None
            if begun.mark is not None and mark is not None:
                on_device = self.probe.between(begun.mark, mark)
            self.spans.append(Span(path, start, end - begun.start, on_device, peak))
        self._ended.clear()
        self.spans.sort(key=lambda span: (span.start, len(span.path)))
        return self.spans

    def begun(self, stage: str, now: float) -> None:
        """Open the span of a stage."""
        self._take_peak()
        self._stages[stage] = self._steps[stage] = _Begun(now, self.probe.mark())

    def ended(self, stage: str, started: float, now: float) -> None:
        """Close the span of a stage."""
        begun = self._stages.pop(stage)
        path = (*self._prefix(), stage)
        self._ended.append(_Ended(path, begun, now, self.probe.mark(), self._take_peak()))

    def _follow(self, event: Event) -> None:
        if isinstance(event, DoneEvent | SceneDoneEvent):
            return
        if isinstance(event, SparseStructureEvent) and event.voxels is not None:
            self.voxels = len(event.voxels)
        number = getattr(event, "step", 0)
        if event.stage in self._stages and number > self._steps[event.stage].step:
            now = _Begun(perf_counter(), self.probe.mark(), number)
            path = (*self._prefix(), event.stage, f"step {number}")
            before = self._steps[event.stage]
            self._ended.append(_Ended(path, before, now.start, now.mark, UNKNOWN))
            self._steps[event.stage] = now
        super().__call__(event)

    def _begin_object(self, label: str) -> None:
        self._wait()
        self._take_peak()
        self._object = (label, _Begun(perf_counter(), self.probe.mark()), UNKNOWN)

    def _end_object(self) -> None:
        if self._object is None:
            return
        self._wait()
        peak = self._take_peak()
        label, begun, highest = self._object
        end = _Ended((label,), begun, perf_counter(), self.probe.mark(), highest.most(peak))
        self._ended.append(end)
        self._object = None
        self._stages.clear()
        self._started.clear()  # stages that a failed object left open

    def _prefix(self) -> tuple[str, ...]:
        return () if self._object is None else (self._object[0],)

    def _take_peak(self) -> Memory:
        peak = self.probe.take_peak()
        self.peak = self.peak.most(peak)
        if self._object is not None:
            self._object = (*self._object[:2], self._object[2].most(peak))
        return peak

    def _wait(self) -> None:
        before = thread_time()
        self.probe.synchronize()
        self._waited += thread_time() - before  # waiting may keep the processor busy
