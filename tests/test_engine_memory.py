"""The engine under memory plans: placing, cancelling, failing and loading, on the CPU."""

import gc
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_small import QUICK, CountingStore, arrays, assert_same, disc, photo, plane
from torch import Tensor

from sam3d_nb.engine import load, memory
from sam3d_nb.engine import stages as engine
from sam3d_nb.engine.memory import Pace, choose_plan, is_out_of_memory
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.errors import (
    InputError,
    OutOfMemoryError,
    ReconstructionError,
    WeightsError,
)
from sam3d_nb.events import (
    DepthEvent,
    Event,
    MeshEvent,
    SparseStructureEvent,
    StructuredLatentEvent,
)
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.silhouette import Silhouette
from sam3d_nb.weights.config import SMALL
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import write_stand_in
from sam3d_nb.zoo import load_model, unload_model


@pytest.fixture(scope="module")
def store() -> StandInStore:
    return StandInStore()


@pytest.fixture(scope="module")
def model(store: StandInStore) -> Sam3dObjects:
    return Sam3dObjects(store)


# Plans


def test_memory_plans_give_the_same_bits_and_hold_what_they_say() -> None:
    stores = {plan: CountingStore() for plan in ("resident", "staged")}
    models = {plan: Sam3dObjects(store, "cpu", plan) for plan, store in stores.items()}
    made = {plan: m.reconstruct(photo(), disc(), **QUICK) for plan, m in models.items()}
    assert_same(made["resident"], made["staged"])
    assert stores["resident"].held == {*PARTS} - {"splat_decoder_4"}
    assert stores["staged"].held == set()
    embedders = frozenset({"condition_stage1", "condition_stage2"})
    assert {group for group in stores["staged"].together if len(group) > 1} == {embedders}
    models["resident"].release()
    assert stores["resident"].held == set()


def test_a_staged_model_sends_away_what_another_left() -> None:
    shared = CountingStore()
    Sam3dObjects(shared, "cpu", "resident")
    staged = Sam3dObjects(shared, "cpu", "staged")
    stream = staged.stream(photo(), disc(), **QUICK)
    next(stream)
    assert shared.held == set()
    stream.close()


# Cancelling


def watched(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Watch tokens, latents, keys and values, and logits of every run from here on."""
    seen: list[weakref.ref[Tensor]] = []

    def spy(
        function: Callable[..., Any], pick: Callable[[Any], list[Tensor]]
    ) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            seen.extend(weakref.ref(tensor) for tensor in pick(result))
            return result

        return wrapped

    def spied_sampler(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            for step, state in function(*arguments, **options):
                tensors = state.values() if isinstance(state, dict) else [state]
                seen.extend(weakref.ref(tensor) for tensor in tensors)
                yield step, state

        return wrapped

    monkeypatch.setattr(engine, "condition_tokens", spy(engine.condition_tokens, list))
    monkeypatch.setattr(engine, "sample_structure", spied_sampler(engine.sample_structure))
    monkeypatch.setattr(engine, "sample_latent", spied_sampler(engine.sample_latent))
    monkeypatch.setattr(engine, "decode_structure", spy(engine.decode_structure, lambda x: [x]))
    flow = engine.structure_flow.StructureFlow
    prepared = spy(
        flow.prepare, lambda c: [t for layer in c for s in layer.values() for t in s.tokens]
    )
    monkeypatch.setattr(flow, "prepare", prepared)
    return seen


class StopHere(Exception):
    pass


STOPS: dict[str, Callable[[Event], bool]] = {
    "depth": lambda e: isinstance(e, DepthEvent),
    "stage 1, step 1": lambda e: isinstance(e, SparseStructureEvent) and e.step == 1,
    "stage 1, step 3": lambda e: isinstance(e, SparseStructureEvent) and e.step == 3,
    "voxels": lambda e: isinstance(e, SparseStructureEvent) and e.voxels is not None,
    "stage 2, step 2": lambda e: isinstance(e, StructuredLatentEvent) and e.step == 2,
    "mesh": lambda e: isinstance(e, MeshEvent),
}


@pytest.fixture(scope="module")
def counting() -> CountingStore:
    return CountingStore()


@pytest.mark.parametrize("how", ["exception", "close"])
@pytest.mark.parametrize("where", STOPS)
def test_cancelling_ends_at_once_and_frees_everything(
    monkeypatch: pytest.MonkeyPatch, counting: CountingStore, where: str, how: str
) -> None:
    model = Sam3dObjects(counting, "cpu", "staged")
    seen, events = watched(monkeypatch), []
    options: dict[str, Any] = {"steps": (5, 5), "pointmap": plane()}

    def stop(event: Event) -> None:
        events.append(event)
        if STOPS[where](event):
            raise StopHere

    kept: BaseException | None = None
    if how == "exception":
        try:
            model.reconstruct(photo(), disc(), on_event=stop, **options)
        except StopHere as error:
            kept = error  # as a notebook keeps the last traceback
        assert kept is not None
    else:
        stream = model.stream(photo(), disc(), **options)
        with suppress(StopHere):
            for event in stream:
                stop(event)
        stream.close()
    assert sum(STOPS[where](event) for event in events) == 1
    assert not [ref for ref in seen if ref() is not None]
    assert bool(seen) == (where != "depth")
    assert counting.held == set()
    if where == "stage 1, step 1":
        assert model.reconstruct(photo(), disc(), **QUICK).pose  # and it can be used again


def test_nothing_is_kept_after_a_whole_run(
    monkeypatch: pytest.MonkeyPatch, store: StandInStore
) -> None:
    seen = watched(monkeypatch)
    made = Sam3dObjects(store).reconstruct(photo(), disc(), **QUICK)
    assert made
    assert seen
    assert not [ref for ref in seen if ref() is not None]


def test_a_run_leaves_nothing_to_the_garbage_collector(store: StandInStore) -> None:
    """It comes too late for what fills a card."""

    def tensors() -> int:
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    model = Sam3dObjects(store, accelerate=True)
    gc.collect()
    gc.disable()
    try:
        made = model.reconstruct(photo(), disc(), **QUICK)
        left = tensors()
        gc.collect()
        assert left == tensors()
    finally:
        gc.enable()
    assert made


# Failing


def test_memory_that_runs_out_is_freed_and_told() -> None:
    class Full(Sam3dObjects):
        full = True

        def extract(self, decoder: Any, latent: Tensor, grid: Any, sculpt: Any = None) -> Surface:
            self.filling = weakref.ref(large := torch.zeros(10))
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            assert large is not None
            return super().extract(decoder, latent, grid)

    store = CountingStore()
    model = Full(store, "cpu", "staged")
    with pytest.raises(OutOfMemoryError, match="memory ran out; close other programs") as caught:
        model.reconstruct(photo(), disc(), **QUICK)
    assert model.filling() is None  # though the error and its traceback are still here
    assert "extract" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert store.held == set()
    model.full = False
    assert len(model.reconstruct(photo(), disc(), **QUICK).mesh.faces)


def test_a_model_that_does_not_fit_says_so_when_it_is_loaded() -> None:
    class Large(CountingStore):
        def get(self, name: str, device: Any = None) -> Any:
            if name == "latent_flow":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().get(name, device)

    store = Large()
    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        Sam3dObjects(store, "cpu", "resident")
    assert store.held == set()


def test_resident_networks_make_room_for_a_decoder() -> None:
    kept = []

    class Tight(Sam3dObjects):
        def extract(self, decoder: Any, latent: Tensor, grid: Any, sculpt: Any = None) -> Surface:
            kept.append(self._accelerated["structure_flow"]._condition is not None)
            if len(self.store.held) > 1:  # type: ignore[attr-defined]
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().extract(decoder, latent, grid)

    store = CountingStore()
    model = Tight(store, "cpu", "resident", accelerate=True)
    assert_same(
        model.reconstruct(photo(), disc(), **QUICK), model.reconstruct(photo(), disc(), **QUICK)
    )
    assert store.held == {"mesh_decoder"}
    assert kept == [True, False] * 2  # so has what was kept for the next request


def test_advice_depends_on_the_plan() -> None:
    mps = torch.device("mps")
    assert 'memory="staged"' in str(memory.out_of_memory(mps, "resident"))
    assert 'device="cpu"' in str(memory.out_of_memory(mps, "staged"))


def test_which_errors_mean_that_memory_ran_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GiB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_other_errors_pass_as_they_are(counting: CountingStore) -> None:
    class Empty(Sam3dObjects):
        def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Any:
            return super().find_voxels(-logits.abs() - 1, generator)

    with pytest.raises(ReconstructionError, match="none of 4096 voxels is occupied"):
        Empty(counting, "cpu", "staged").reconstruct(photo(), disc(), **QUICK)
    assert counting.held == set()


# Plans and devices


def test_auto_is_staged_below_16_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 11 * 10**9)
    assert choose_plan(torch.device("cuda")) == "staged"
    assert choose_plan(torch.device("cpu")) == "resident"
    monkeypatch.setattr(memory, "available", lambda device: 16 * 10**9)
    assert choose_plan(torch.device("cuda")) == "resident"


def test_a_cap_on_the_process_and_other_programs_count(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, int] = {"free": 20, "total": 80, "reserved": 5, "cap": 80}

    def of_index(answer: Callable[[], Any]) -> Callable[[int], Any]:
        def function(device: int) -> Any:
            assert type(device) is int  # as torch wants it
            return answer()

        return function

    patched = {
        "current_device": lambda: 0,
        "mem_get_info": of_index(lambda: (told["free"] * 10**9, told["total"] * 10**9)),
        "memory_reserved": of_index(lambda: told["reserved"] * 10**9),
        "get_per_process_memory_fraction": of_index(lambda: told["cap"] / told["total"]),
    }
    for name, function in patched.items():
        monkeypatch.setattr(torch.cuda, name, function)
    cuda = torch.device("cuda")
    assert memory.available(cuda) == 25 * 10**9
    told["cap"] = 8
    assert memory.available(torch.device("cuda", 0)) == 8 * 10**9
    assert choose_plan(cuda) == "staged"


def test_the_host_is_at_most_two_steps_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class FakeEvent:
        def __init__(self) -> None:
            self.number = sum(call.startswith("record") for call in calls)

        def record(self) -> None:
            calls.append(f"record {self.number}")

        def synchronize(self) -> None:
            calls.append(f"wait {self.number}")

    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    pace = Pace(torch.device("cuda"))
    for _ in range(4):
        pace()
    first = ["record 0", "record 1", "record 2", "wait 0"]
    assert calls == [*first, "record 3", "wait 1"]
    calls.clear()
    Pace(torch.device("cpu"))()
    assert not calls


def test_accelerated_steps_give_the_same_bits_and_are_closed_when_cancelled(
    store: StandInStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Sam3dObjects(store).reconstruct(photo(), disc(), **QUICK)
    model = Sam3dObjects(store, accelerate=True)
    assert_same(model.reconstruct(photo(), disc(), **QUICK), plain)
    flows = model._accelerated
    assert set(flows) == {"structure_flow", "latent_flow"}
    closed: list[str] = []
    for name, flow in flows.items():
        monkeypatch.setattr(flow, "close", partial(closed.append, name))
    for kind in (SparseStructureEvent, StructuredLatentEvent):
        stream = model.stream(photo(), disc(), **QUICK)
        next(e for e in stream if isinstance(e, kind) and e.step == 1)
        closed.clear()
        stream.close()
        assert closed == [{SparseStructureEvent: "structure_flow"}.get(kind, "latent_flow")]
    closed.clear()
    model.release()
    assert sorted(closed) == ["latent_flow", "structure_flow"]


def test_graphs_of_the_backbones_are_for_where_they_can_stay(
    store: StandInStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Sam3dObjects(store, accelerate=True)
    monkeypatch.setattr(model.memory, "roomy", True)
    assert model._features is model._vision
    closed: list[str] = []
    monkeypatch.setattr(model._vision, "close", partial(closed.append, "vision"))
    model.release()
    assert closed == ["vision"]
    monkeypatch.setattr(model.memory, "roomy", False)
    assert model._features is None
    monkeypatch.setattr(model.memory, "roomy", True)
    monkeypatch.setattr(model.memory, "plan", "staged")
    assert model._features is None
    assert Sam3dObjects(store, accelerate=False)._features is None


# On a card


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("plan", ["resident", "staged"])
def test_a_card_gives_the_same_bits_with_and_without_graphs_and_gets_its_memory_back(
    plan: str,
) -> None:
    store = StandInStore(SMALL, torch.float16)
    plain = Sam3dObjects(store, "cuda", "resident", accelerate=False)
    options = QUICK | {"steps": (6, 6)}
    expected = plain.reconstruct(photo(), disc(), **options)
    plain.release()
    model = Sam3dObjects(store, "cuda", plan)
    before = []
    for _ in range(2):
        for _ in range(3):  # run, captured, replayed
            assert_same(model.reconstruct(photo(), disc(), **options), expected)
        model.release()
        gc.collect()
        before.append(torch.cuda.memory_allocated())
    stream = model.stream(photo(), disc(), **options)
    next(e for e in stream if isinstance(e, SparseStructureEvent) and e.step == 3)
    stream.close()
    model.release()
    assert before[1] <= before[0]  # the first run left what libraries keep for themselves
    assert torch.cuda.memory_allocated() <= before[0]


# Loading


def test_without_weights_the_model_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"sam-3d-objects is not ready"):
        load_model("sam-3d-objects", device="cpu")
    assert load_model(device="cpu").name == "tiny"
    with pytest.raises(InputError, match=r"no memory plan 'swap'; choose from auto, resident"):
        load_model("silhouette", memory="swap")


def test_weights_on_disk_give_what_weights_in_memory_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Sam3dObjects
) -> None:
    write_stand_in(StandInStore(), tmp_path)
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(load, "_latest", [])
    loaded = load_model("sam-3d-objects", device="cpu")
    assert load_model(device="cpu") is loaded
    made = loaded.reconstruct(photo(), disc(), **QUICK)
    assert_same(made, loaded.reconstruct(photo(), disc(), **QUICK))
    # Products of mapped tensors round differently: they start at other addresses.
    in_memory = model.reconstruct(photo(), disc(), **QUICK)
    for name in ("pose", "centers", "scales", "opacities"):
        np.testing.assert_allclose(arrays(made)[name], arrays(in_memory)[name], atol=1e-4)
    assert made.provenance.model == "sam-3d-objects with stand-in weights"
    assert made.provenance.settings["weights_sha256"]


def test_loading_again_is_free(monkeypatch: pytest.MonkeyPatch, store: StandInStore) -> None:
    asked: list[dict[str, Any]] = []

    def load_weights(**options: Any) -> StandInStore:
        asked.append(options)
        return store

    monkeypatch.setattr(load, "load_weights", load_weights)
    monkeypatch.setattr(load, "_latest", [])
    first = load.load_sam3d("cpu")
    assert load.load_sam3d("cpu") is first
    assert load.load_sam3d("cpu", "staged") is not first
    assert asked[0] == {"device": "cpu", "dtype": torch.float32, "pin": False}


def test_unloading_a_model_forgets_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, store: StandInStore
) -> None:
    monkeypatch.setattr(load, "load_weights", lambda **options: store)
    monkeypatch.setattr(load, "_latest", [])
    kept = load.load_sam3d("cpu")
    unload_model(Silhouette())
    assert load.load_sam3d("cpu") is kept, "it was another one that was unloaded"
    unload_model(kept)
    assert load.load_sam3d("cpu") is not kept


def test_stand_ins_cannot_be_asked_for_by_name() -> None:
    for name in ("stand-in", "standin", "sam-3d-objects with stand-in weights"):
        with pytest.raises(InputError, match="there is no model"):
            load_model(name)
