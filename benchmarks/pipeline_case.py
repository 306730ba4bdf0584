"""One case of `pipeline_gpu.py`, in a process of its own: a JSON object on the last line.

    python benchmarks/pipeline_case.py "staged in 5 GiB" --weights FOLDER --runs 5

FOLDER holds stand-in weights in our own layout, as `pipeline_gpu.py` writes them. What they would
make of a photo has no meaning, so shapes are put in, see `injected.py`: the voxels of `voxels.py`,
or, where a case asks for it, those of the sample objects' true meshes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from injected import Injected, Shaped
from measure import GIB, synchronize

from sam3d_nb.engine.options import FEW_STEPS
from sam3d_nb.events import Event, ObjectDoneEvent, ObjectEvent, SparseStructureEvent
from sam3d_nb.examples import load_example
from sam3d_nb.model import graphs
from sam3d_nb.object3d import Object3D
from sam3d_nb.weights.load import load_weights
from sam3d_nb.weights.parts import PARTS

Row = dict[str, Any]
EXAMPLE = ("coffee", 0)
SCENE = "kitchen"  # ten masks; its point map is left out, so that the model estimates one


@dataclass(frozen=True)
class Case:
    """One row of the table. cap: GiB that the process may take; goals in seconds and GiB.

    true_shapes: voxels are those of the objects' true meshes.
    """

    name: str
    plan: str
    few_step: bool = False
    accelerate: bool | None = None
    cap: float | None = None
    goal: float | None = None
    memory_goal: float | None = None
    scene: bool = False
    true_shapes: bool = False


CASES = (
    Case("resident", "resident", goal=1.8),
    Case("resident, few steps", "resident", few_step=True, goal=0.6),
    Case("resident, every step eager", "resident", accelerate=False),
    Case("resident in 8 GiB", "resident", cap=8, memory_goal=8),
    Case("staged in 5 GiB", "staged", cap=5, memory_goal=4),
    Case("staged in 5 GiB, few steps", "staged", few_step=True, cap=5, memory_goal=4),
    Case("scene of 10 objects", "resident", goal=12.0, scene=True),
    Case("scene of 10 true shapes", "resident", goal=12.0, scene=True, true_shapes=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    case = next(case for case in CASES if case.name == options.case)
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)  # some functions want a number
        set_cap(case.cap, device)
    start = time.perf_counter()
    store = load_weights(
        options.weights, device=device, pin=device.type == "cuda" and case.plan == "staged"
    )
    for name in PARTS:
        store.get(name, "cpu")
    made = time.perf_counter() - start
    kind = Shaped if case.true_shapes else Injected
    model = kind(store, str(device), case.plan, accelerate=case.accelerate)
    synchronize(device)
    row: Row = asdict(case) | {"steps": list(FEW_STEPS if case.few_step else options.steps)}
    row |= {"load_s": time.perf_counter() - start, "of_it_on_the_host_s": made}
    captures, rooms = watch_captures()
    if case.scene:
        row |= scene(model, case, options)
    else:
        row |= timed(model, case, options)
        row |= cancelled(model, case, options)
    row |= {"captures": len(captures), "least_room_gib": min(rooms, default=None)}
    print(json.dumps(row))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=[case.name for case in CASES])
    parser.add_argument("--weights", type=Path, required=True, help="folder of stand-in weights")
    add_common(parser)
    return parser.parse_args(arguments)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of one case and of all."""
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=5, help="warm runs that count")
    parser.add_argument("--scenes", type=int, default=2, help="warm scenes that count")
    parser.add_argument("--objects", type=int, default=10, help="of a scene")
    parser.add_argument("--steps", type=int, nargs=2, default=(25, 25), help="of both stages")


def set_cap(cap: float | None, device: torch.device) -> None:
    """Let this process take at most `cap` GiB of the device."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(cap * GIB / total, 1) if cap else 1.0, device)


def watch_captures() -> tuple[list[None], list[float]]:
    """Return lists that get an entry for every CUDA graph from here on, and one for the room.

    The room is what was free in GiB when a graph was to be captured.
    """
    seen: list[None] = []
    rooms: list[float] = []
    capture, room = graphs.StepGraphs._capture, graphs.room

    def counted(self: graphs.StepGraphs, *arguments: Any) -> Any:
        captured = capture(self, *arguments)
        seen.append(None)
        return captured

    def noted(device: torch.device) -> int:
        found = room(device)
        rooms.append(found / GIB)
        return found

    graphs.StepGraphs._capture = counted  # type: ignore[method-assign]
    graphs.room = noted
    return seen, rooms


def timed(model: Injected, case: Case, options: argparse.Namespace) -> Row:
    """Run from photo to GLB: once, then warm runs, with peak memory and time a stage."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object.glb"
        first, earlier = one_run(model, case, options, path)
        one_run(model, case, options, path)
        reset_peak(model.device)
        runs = [one_run(model, case, options, path) for _ in range(options.runs)]
        size = path.stat().st_size
    seconds = [duration for duration, _ in runs]
    made = runs[-1][1]
    stages = [result.provenance.timings for _, result in runs]
    row = spread(seconds) | {
        "first_call_s": first,
        "stages_s": {name: statistics.median(s[name] for s in stages) for name in stages[0]},
        "accelerated": model.accelerate,
        "gaussians": len(made.gaussians or ()),
        "faces": len(made.mesh.faces),
        "glb_mb": size / 1e6,
        "same_bits": same_bits(earlier, made),
    }
    row["stages_s"]["GLB on disk, and between"] = row["median_s"] - sum(row["stages_s"].values())
    return row | peaks(model.device)


def spread(seconds: list[float]) -> Row:
    """Return what a table says about warm runs."""
    return {
        "n": len(seconds),
        "median_s": statistics.median(seconds),
        "runs_s": seconds,
        "spread_s": statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
    }


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> Row:
    """Return the largest memory since `reset_peak`; nothing without CUDA."""
    if device.type != "cuda":
        return {}
    return {
        "peak_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
        "peak_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
    }


def one_run(
    model: Injected, case: Case, options: argparse.Namespace, path: Path
) -> tuple[float, Object3D]:
    """Return the seconds from an idle device to a GLB on disk, and the object."""
    name, index = EXAMPLE
    example = load_example(name)
    photo, mask = example.image, example.mask(index)
    synchronize(model.device)
    start = time.perf_counter()
    made = model.reconstruct(photo, mask, steps=steps_of(case, options), few_step=case.few_step)
    made.save(path, overwrite=True)
    return time.perf_counter() - start, made


def steps_of(case: Case, options: argparse.Namespace) -> tuple[int, int] | None:
    return None if case.few_step else (options.steps[0], options.steps[1])


def same_bits(first: Object3D, second: Object3D) -> bool:
    """Tell whether two runs gave the same mesh, gaussians and pose to the last bit."""
    pairs = [(getattr(first.mesh, n), getattr(second.mesh, n)) for n in ("vertices", "faces")]
    pairs += [(first.gaussians.centers, second.gaussians.centers)]  # type: ignore[union-attr]
    return first.pose == second.pose and all(np.array_equal(a, b) for a, b in pairs)


class Stop(Exception):
    """What a person does who presses the stop button."""


def cancelled(model: Injected, case: Case, options: argparse.Namespace) -> Row:
    """Stop half-way through stage 1: how long until control is back, and what stays allocated."""
    name, index = EXAMPLE
    example = load_example(name)
    half = (FEW_STEPS if case.few_step else options.steps)[0] // 2
    asked = 0.0

    def stop(event: Event) -> None:
        nonlocal asked
        if isinstance(event, SparseStructureEvent) and event.step == max(half, 1):
            asked = time.perf_counter()
            raise Stop

    if model.device.type == "cuda":
        before = torch.cuda.memory_allocated(model.device)
    try:
        model.reconstruct(
            example.image,
            example.mask(index),
            steps=steps_of(case, options),
            few_step=case.few_step,
            on_event=stop,
        )
    except Stop:
        synchronize(model.device)
    row: Row = {"cancel_s": time.perf_counter() - asked}
    if model.device.type == "cuda":
        left = torch.cuda.memory_allocated(model.device) - before
        row["left_after_cancel_gib"] = left / GIB  # negative: kept graphs went as well
    return row


def scene(model: Injected, case: Case, options: argparse.Namespace) -> Row:
    """Run one object alone, for its memory; then whole scenes: seconds, and those an object.

    Photo to objects in memory; a first scene does not count. Apart: writing the scene's GLB, and
    one more scene whose objects are kept on disk for resuming.
    """
    example = load_example(SCENE)
    indices = list(example.masks)[: options.objects]
    if case.true_shapes and any(example.true_mesh(index) is None for index in indices):
        raise SystemExit(f"{case.name}: not all objects of {SCENE} have their true mesh here")
    masks = [example.mask(index) for index in indices]
    for _ in range(2):
        reset_peak(model.device)
        model.reconstruct(example.image, masks[0], steps=steps_of(case, options))
    alone = peaks(model.device)
    with tempfile.TemporaryDirectory() as folder:
        one_scene(model, case, options, masks, Path(folder))
        reset_peak(model.device)
        runs = [one_scene(model, case, options, masks, Path(folder)) for _ in range(options.scenes)]
        memory = peaks(model.device)
        kept = one_scene(model, case, options, masks, Path(folder), keep=True)
    row = spread([run["seconds"] for run in runs]) | {"objects": len(masks), "alone": alone}
    row["objects_s"] = [run["objects_s"] for run in runs]
    row["save_s"] = [run["save_s"] for run in runs]
    row["kept"] = kept
    row["voxels"] = runs[-1]["voxels"]
    return row | {"faces": runs[-1]["faces"]} | memory


def one_scene(
    model: Injected,
    case: Case,
    options: argparse.Namespace,
    masks: list[np.ndarray],
    folder: Path,
    *,
    keep: bool = False,
) -> Row:
    """Time one scene; nothing of it stays in memory."""
    ends: list[float] = []
    voxels: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, ObjectDoneEvent):
            ends.append(time.perf_counter())
        inner = event.inner if isinstance(event, ObjectEvent) else None
        if isinstance(inner, SparseStructureEvent) and inner.voxels is not None:
            voxels.append(len(inner.voxels))

    steps, photo = steps_of(case, options), load_example(SCENE).image
    save_dir = folder / "kept" if keep else None
    synchronize(model.device)
    start = time.perf_counter()
    made = model.reconstruct_scene(photo, masks, steps=steps, on_event=note, save_dir=save_dir)
    seconds = time.perf_counter() - start
    if made.failures:
        raise RuntimeError(f"objects failed: {made.failures}")
    faces = sum(len(thing.mesh.faces) for thing in made)
    row: Row = {"seconds": seconds, "objects_s": np.diff([start, *ends]).tolist()}
    row |= {"faces": faces, "voxels": voxels}
    start = time.perf_counter()
    made.save(folder / "scene.glb", overwrite=True)
    return row | {"save_s": time.perf_counter() - start}


if __name__ == "__main__":
    sys.exit(main())
