"""Timers: they wait for the device, nest, see memory, and cost next to nothing."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from asynchronous import AsynchronousModel, Device, DeviceProbe

from sam3d_nb.errors import InputError
from sam3d_nb.events import DepthEvent, Event, LayoutEvent, MeshEvent, SparseStructureEvent
from sam3d_nb.examples import load_example
from sam3d_nb.pipeline import Model, Run
from sam3d_nb.profiling import subject as subjects
from sam3d_nb.profiling.measure import LOAD, Schedule, measure_run
from sam3d_nb.profiling.probe import CudaProbe, Memory, Probe, probe_for
from sam3d_nb.profiling.sampler import MemorySampler
from sam3d_nb.profiling.subject import Subject
from sam3d_nb.profiling.timer import Span, SpanTimer
from sam3d_nb.request import Request
from sam3d_nb.zoo import MODELS, load_model

PHOTO = np.zeros((20, 30, 3), np.uint8)
MASK = np.ones((20, 30), bool)
LATENT, MESH = "structured latent", "mesh"


def events() -> list[Event]:
    """A run without work."""
    return [MeshEvent(0.0), MeshEvent(0.5), MeshEvent(1.0)]


def by_path(spans: list[Span]) -> dict[tuple[str, ...], Span]:
    assert len({span.path for span in spans}) == len(spans)
    return {span.path: span for span in spans}


def measured(device: Device, *, wait: bool) -> SpanTimer:
    """Time the model's own stream of events, without the waiting of the model's own timer."""
    model = AsynchronousModel(device)
    timer = SpanTimer(DeviceProbe(device) if wait else Probe())
    request_events = model.run(None)  # type: ignore[arg-type]
    for event in request_events:
        timer(event)
    timer.finish()
    device.synchronize()
    return timer


# Asynchronous work


def test_the_timer_sees_work_that_the_host_does_not_wait_for() -> None:
    seconds = measured(Device(), wait=True).seconds
    assert seconds[LATENT] == pytest.approx(3 * AsynchronousModel.STEP, abs=0.05)
    assert seconds[LATENT] >= 3 * AsynchronousModel.STEP
    assert seconds[MESH] >= AsynchronousModel.MESH


def test_without_waiting_it_would_not() -> None:
    """The device is asynchronous indeed: the test above can fail."""
    seconds = measured(Device(), wait=False).seconds
    assert seconds[MESH] < AsynchronousModel.MESH / 2


def test_steps_are_told_by_the_clock_of_the_device() -> None:
    spans = by_path(measured(Device(), wait=True).spans)
    for number in (1, 2, 3):
        step = spans[LATENT, f"step {number}"]
        assert step.device_seconds is not None
        assert step.device_seconds >= AsynchronousModel.STEP * 0.99
        assert step.seconds < AsynchronousModel.STEP / 2, "nobody waits at a step"
    whole = spans[(LATENT,)]
    assert whole.device_seconds == pytest.approx(whole.seconds, abs=0.05)


def test_work_after_the_last_event_is_in_the_run() -> None:
    device = Device()
    subject = Subject(AsynchronousModel(device))
    run = measure_run(subject, lambda model, on: model.reconstruct(PHOTO, MASK, on_event=on))
    model = AsynchronousModel
    assert run.seconds >= 3 * model.STEP + model.MESH + model.AFTER
    assert run.faces == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_timer_sees_the_work_of_a_gpu() -> None:
    device = torch.device("cuda", 0)
    probe = CudaProbe(device, lambda: torch.cuda.synchronize(device))
    a = torch.randn(8192, 8192, device=device)
    torch.mm(a, a)
    probe.synchronize()
    timer = SpanTimer(probe)
    timer(MeshEvent(0.0))
    launched = time.perf_counter()
    for _ in range(20):
        b = torch.mm(a, a)
    launched = time.perf_counter() - launched
    timer(MeshEvent(1.0))
    (span,) = timer.finish()
    assert span.seconds > 2 * launched, "the GPU works asynchronously"
    assert span.device_seconds == pytest.approx(span.seconds, rel=0.1)
    assert span.peak.allocated is not None
    assert span.peak.allocated >= a.nbytes + b.nbytes
    assert span.peak.reserved >= span.peak.allocated


# Spans


def test_spans_nest_and_fill_their_parents() -> None:
    spans = measured(Device(), wait=True).spans
    assert [span.path for span in spans] == [
        (LATENT,),
        *[(LATENT, f"step {n}") for n in (1, 2, 3)],
        (MESH,),
    ]
    known = by_path(spans)
    for span in spans:
        if len(span.path) > 1:
            parent = known[span.path[:-1]]
            assert span.start >= parent.start
            assert span.start + span.seconds <= parent.start + parent.seconds + 1e-9


def test_a_stage_within_another_does_not_count_its_steps_anew() -> None:
    timer = SpanTimer(Probe())
    steps = [SparseStructureEvent(n / 3, n, 2) for n in range(3)]
    for event in (*steps, LayoutEvent(), LayoutEvent(1.0), SparseStructureEvent(1.0, 2, 2)):
        timer(event)
    spans = by_path(timer.finish())
    names = [path[1] for path in spans if len(path) > 1]
    assert names == ["step 1", "step 2"]


def test_peaks_belong_to_their_stage() -> None:
    timer = measured(Device(), wait=True)
    spans = by_path(timer.spans)
    assert spans[(LATENT,)].peak.allocated == 100
    assert spans[(MESH,)].peak.allocated == 80, "the peak of the stage before does not count"
    assert timer.peak.allocated == 100


def test_what_was_before_is_no_peak_of_the_timer() -> None:
    device = Device()
    device.allocate(1000)
    device.allocate(-990)
    timer = SpanTimer(DeviceProbe(device))
    timer.finish()
    assert timer.peak.allocated == 10


def test_objects_of_a_scene_are_around_their_stages() -> None:
    device = Device()
    model = AsynchronousModel(device)
    timer = SpanTimer(DeviceProbe(device))
    half = MASK.copy()
    half[:, 15:] = False
    model.reconstruct_scene(PHOTO, {0: MASK, 4: half}, on_event=timer)
    spans = by_path(timer.finish())
    objects = [path for path in spans if len(path) == 1]
    assert len(objects) == 2
    for path in objects:
        inside = [span for p, span in spans.items() if len(p) == 2 and p[0] == path[0]]
        assert [span.path[1] for span in inside] == [LATENT, MESH]
        assert spans[path].seconds >= sum(span.seconds for span in inside)
        assert spans[path].peak.allocated == max(span.peak.allocated or 0 for span in inside)


def test_an_object_that_fails_in_a_stage_leaves_nothing_open() -> None:
    class Failing(AsynchronousModel):
        def run(self, request: Request) -> Run:
            yield MeshEvent(0.0)
            if request.mask.all():
                raise InputError("no")
            yield MeshEvent(1.0)
            return (yield from super().run(request))

    device = Device()
    timer = SpanTimer(DeviceProbe(device))
    masks = {0: MASK, 1: np.tri(20, 30, dtype=bool)}
    scene = Failing(device).reconstruct_scene(PHOTO, masks, on_event=timer)
    assert len(scene.failures) == 1
    spans = timer.finish()
    failed, made = [span for span in spans if len(span.path) == 1]
    assert [span.path[0] for span in spans if MESH in span.path] == [made.path[0]] * 2
    assert failed.path[0].startswith("1 of 2")


def test_samples_add_to_the_peaks_of_the_spans_that_they_lie_in() -> None:
    timer = SpanTimer(Probe())
    for event in [*events(), DepthEvent(0.0), DepthEvent(1.0)]:
        timer(event)
        time.sleep(0.01)
    span, other = timer.finish([(0.005, Memory(None, None, 2**50))])
    assert span.path == (MESH,)
    assert span.peak.host == 2**50
    assert other.peak.host < 2**50
    assert timer.peak.host == 2**50


# Cost


def test_measuring_costs_less_than_a_hundredth() -> None:
    """Of a run of the small model that comes with the package."""
    model = load_model("tiny" if "tiny" in MODELS else "silhouette", device="cpu")
    example = load_example("teddy_bear")
    subject = Subject(model)
    runs = [
        measure_run(subject, lambda model, on: model.reconstruct(example, 0, on_event=on))
        for _ in range(3)
    ]
    for run in runs[1:]:
        assert run.spans
        assert run.samples
        assert 0 < run.overhead < 0.01 * run.seconds


def test_what_the_timer_costs_is_counted() -> None:
    class Slow(Probe):
        def mark(self) -> None:
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                pass

    timer = SpanTimer(Slow())
    for event in events():
        timer(event)
    assert timer.overhead >= 0.02


def test_waiting_for_the_device_is_no_cost_of_the_timer() -> None:
    def spin() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    timer = SpanTimer(Probe(spin))
    for event in events():
        timer(event)
    assert timer.overhead < 0.01


# Memory and models


def test_the_sampler_reads_over_and_over() -> None:
    with MemorySampler(Probe(), period=0.005) as sampler:
        time.sleep(0.1)
    moments = [moment for moment, _ in sampler.samples]
    assert moments == sorted(moments)
    assert len(moments) > 4
    assert all((memory.host or 0) > 2**20 for _, memory in sampler.samples)


def test_memory_takes_the_larger_of_what_is_known() -> None:
    assert Memory(1, None, 5).most(Memory(2, None, None)) == Memory(2, None, 5)


def test_probes_wait_as_their_model_does() -> None:
    device = Device()
    probe = probe_for(AsynchronousModel(device))
    device.launch(0.05)
    start = time.perf_counter()
    probe.synchronize()
    assert time.perf_counter() - start > 0.03
    assert probe.mark() is None
    assert probe.between(None, None) is None
    assert probe_for(load_model("silhouette")).take_peak().host


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"active": 0}, "active is a whole number from 1 on, but got 0"),
        ({"warmup": -1}, "warmup is a whole number from 0 on"),
        ({"wait": True}, "wait is a whole number"),
        ({"active": 1.5}, "active is a whole number"),
    ],
)
def test_schedules_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Schedule(**settings)


def test_runs_of_a_schedule() -> None:
    assert Schedule().runs() == (False, True, True, True)
    assert Schedule(wait=5, warmup=0, active=1).runs() == (True,), "skipped runs are not made"


class Loading(AsynchronousModel):
    loads = 0

    def __init__(self) -> None:
        time.sleep(0.05)
        type(self).loads += 1
        self.released = 0
        super().__init__(Device())

    def release(self) -> None:
        self.released += 1


def reconstruct(model: Model, on_event: Any) -> Any:
    return model.reconstruct(PHOTO, MASK, on_event=on_event)


def test_a_model_that_is_not_kept_is_loaded_within_every_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Loading, "loads", 0)
    subject = Subject(Loading, keep=False)
    first, _ = subject.get()
    runs = [measure_run(subject, reconstruct) for _ in range(2)]
    assert Loading.loads == 3
    assert first.released == 1  # type: ignore[attr-defined]
    for run in runs:
        assert run.load_seconds >= 0.05
        assert run.spans[0].path == (LOAD,)
        assert run.spans[0].seconds == run.load_seconds
        stages = [span for span in run.spans if len(span.path) == 1]
        assert run.spans[1].start >= run.load_seconds
        assert run.seconds >= sum(span.seconds for span in stages)
        assert run.seconds_to_make == run.seconds - run.load_seconds


def test_a_model_that_is_kept_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loading, "loads", 0)
    subject = Subject(Loading)
    subject.get()
    runs = [measure_run(subject, reconstruct) for _ in range(2)]
    assert Loading.loads == 1
    assert [run.load_seconds for run in runs] == [0, 0]
    assert all(span.path[0] != LOAD for run in runs for span in run.spans)


def test_a_model_that_is_loaded_already_cannot_be_loaded_anew() -> None:
    with pytest.raises(InputError, match="asynchronous is loaded already"):
        Subject(AsynchronousModel(Device()), keep=False)


def test_names_are_loaded_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(subjects, "load_model", lambda *a: asked.append(a) or Loading())
    Subject("some", device="cpu", memory="staged").get()
    Subject().get()
    assert asked == [("some", "cpu", "staged"), (None, "auto", "auto")]
