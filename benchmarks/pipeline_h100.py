"""Time the whole way from photo and mask to a GLB on disk, at published sizes, under memory plans.

    python benchmarks/pipeline_h100.py --output benchmarks/results/pipeline_h100.json
    python benchmarks/pipeline_h100.py --ready            # also process start to ready
    python benchmarks/pipeline_h100.py --small --device cpu --dtype float32 --runs 1

Point map by MoGe, conditioning, both flows, layout, gaussians, mesh and the GLB file are all in the
time. Weights are stand-ins, so two things are put in where theirs would be meaningless, in this
script only: after stage 1 the voxels of `voxels.py`, and the signed distance of the shape of those
voxels before extraction. The work that they replace is done all the same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import GIB, synchronize
from model_h100 import machine, one_line, save
from stages import Setting, shape_distance, voxels, with_distance
from torch import Tensor

from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.engine.options import FEW_STEPS
from sam3d_nb.events import Event, SparseStructureEvent
from sam3d_nb.examples import load_example
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.surface import mesh_from_features
from sam3d_nb.object3d import Object3D
from sam3d_nb.weights.config import RELEASED, SMALL
from sam3d_nb.weights.folder import FOLDER_VARIABLE
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import write_stand_in

Row = dict[str, Any]
EXAMPLE = ("coffee", 0)


class Injected(Sam3dObjects):
    """The pipeline with a realistic structure and surface in place of what noise decodes to."""

    _distance: Tensor | None = None

    def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Voxels:
        """Find voxels as ever, then return those of `voxels.py`."""
        super().find_voxels(logits, generator)
        coords = voxels(Setting(self.device, self.store.dtype), logits.shape[-1])
        return Voxels(coords, coords, 1)

    def extract(self, decoder: MeshDecoder, latent: Tensor, grid: Grid) -> Surface:
        """Decode as ever, but with the signed distance of the voxels' own shape."""
        if self._distance is None:
            fine = Grid(grid.coords, grid.resolution).subdivided.subdivided
            self._distance = shape_distance(fine)  # (64 N, 8)
        hidden, fine = decoder.hidden(latent, grid)
        head = with_distance(decoder.head(hidden), self._distance)
        return mesh_from_features(fine.xyz, head, fine.resolution)


@dataclass(frozen=True)
class Case:
    """One row of the table. cap: GiB that the process may take; goals in seconds and GiB."""

    name: str
    plan: str
    few_step: bool = False
    accelerate: bool | None = None
    cap: float | None = None
    goal: float | None = None
    memory_goal: float | None = None


CASES = (
    Case("resident", "resident", goal=1.8),
    Case("resident, few steps", "resident", few_step=True, goal=0.6),
    Case("resident, every step eager", "resident", accelerate=False),
    Case("resident in 8 GiB", "resident", cap=8, memory_goal=8),
    Case("staged in 5 GiB", "staged", cap=5, memory_goal=4),
    Case("staged in 5 GiB, few steps", "staged", few_step=True, cap=5, memory_goal=4),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)  # some functions want a number
    dtype = getattr(torch, options.dtype)
    config = SMALL if options.small else RELEASED
    print("making stand-in weights ...", file=sys.stderr, flush=True)
    store = StandInStore(config, dtype, device=device)
    report: Row = {"machine": machine(device), "options": vars(options) | {"output": None}}
    report["weights"] = store.origin.version
    report["network_gib"] = store.nbytes() / GIB
    report["cases"] = []
    for case in CASES:
        if options.cases and not any(word in case.name for word in options.cases):
            continue
        report["cases"].append(run_case(case, store, device, options))
        save(report, options.output)
    if options.ready:
        report["ready_s"] = ready(store, options)
        save(report, options.output)
    print_tables(report)
    return int(any("error" in row for row in report["cases"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--cases", nargs="+", help="only cases whose name contains one of these")
    parser.add_argument("--runs", type=int, default=5, help="warm runs that count")
    parser.add_argument("--steps", type=int, nargs=2, default=(25, 25), help="of both stages")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--ready", action="store_true", help="time loading in a new process too")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


def run_case(
    case: Case, store: StandInStore, device: torch.device, options: argparse.Namespace
) -> Row:
    """Measure one case; one that fails becomes a row that says why."""
    print(f"{case.name} ...", file=sys.stderr, flush=True)
    row: Row = vars(case) | {"steps": list(FEW_STEPS if case.few_step else options.steps)}
    cuda = device.type == "cuda"
    store.pin = cuda and case.plan == "staged"
    try:
        if cuda:
            set_cap(case.cap, device)
        model = Injected(store, options.device, case.plan, accelerate=case.accelerate)
        try:
            row |= timed(model, case, options)
            row |= cancelled(model, case, options)
        finally:
            model.release()
    except Exception as error:
        traceback.print_exc()
        row["error"] = one_line(error)
    finally:
        if cuda:
            set_cap(None, device)
    return row


def set_cap(cap: float | None, device: torch.device) -> None:
    """Let this process take at most `cap` GiB of the device."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(cap * GIB / total, 1) if cap else 1.0, device)


def timed(model: Injected, case: Case, options: argparse.Namespace) -> Row:
    """Run from photo to GLB: once, then warm runs, with peak memory and time a stage."""
    cuda = model.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object.glb"
        first, earlier = one_run(model, case, options, path)
        one_run(model, case, options, path)
        if cuda:
            torch.cuda.reset_peak_memory_stats(model.device)
        runs = [one_run(model, case, options, path) for _ in range(options.runs)]
        size = path.stat().st_size
    seconds = [duration for duration, _ in runs]
    made = runs[-1][1]
    stages = [result.provenance.timings for _, result in runs]
    row: Row = {
        "median_s": statistics.median(seconds),
        "runs_s": seconds,
        "spread_s": statistics.stdev(seconds) if len(seconds) > 1 else 0.0,
        "first_call_s": first,
        "stages_s": {name: statistics.median(s[name] for s in stages) for name in stages[0]},
        "accelerated": model.accelerate,
        "gaussians": len(made.gaussians or ()),
        "faces": len(made.mesh.faces),
        "glb_mb": size / 1e6,
        "same_bits": same_bits(earlier, made),
    }
    row["stages_s"]["GLB on disk, and between"] = row["median_s"] - sum(row["stages_s"].values())
    if cuda:
        row["peak_allocated_gib"] = torch.cuda.max_memory_allocated(model.device) / GIB
        row["peak_reserved_gib"] = torch.cuda.max_memory_reserved(model.device) / GIB
    return row


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


def ready(store: StandInStore, options: argparse.Namespace) -> list[float]:
    """Return seconds from process start to a loaded model, files in the page cache."""
    code = (
        "from sam3d_nb.zoo import load_model; import torch; "
        f"load_model('sam-3d-objects', {options.device!r}); "
        "torch.cuda.synchronize() if torch.cuda.is_available() else None"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_stand_in(store, Path(folder))
        environment = os.environ | {FOLDER_VARIABLE: folder}
        seconds = []
        for _ in range(max(options.runs, 2)):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            seconds.append(time.perf_counter() - start)
    return seconds


def print_tables(report: Row) -> None:
    print(f"{report['weights']}; networks {report['network_gib']:.2f} GiB")
    heads = "case,steps,median,min,max,goal,first,GiB,reserved,goal,cancel,left,same bits,faces"
    lines = [tuple(heads.split(",")), *(cells(row) for row in report["cases"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        texts = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(texts).rstrip())
    for row in report["cases"]:
        stages = row.get("stages_s", {}).items()
        told = ", ".join(f"{name} {seconds:.3f}" for name, seconds in stages)
        print(f"{row['name']}: {told or row['error']}")
    if "ready_s" in report:
        told = ", ".join(f"{seconds:.2f}" for seconds in report["ready_s"])
        print(f"process start to ready: {told} s")


def cells(row: Row) -> tuple[str, ...]:
    """Return one table row; times in seconds."""

    def number(key: str, digits: int = 3) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    steps = "{}+{}".format(*row["steps"])
    if "error" in row:
        return (row["name"], steps, row["error"][:60], *[""] * 11)
    return (
        row["name"],
        steps,
        number("median_s"),
        f"{min(row['runs_s']):.3f}",
        f"{max(row['runs_s']):.3f}",
        number("goal", 1),
        number("first_call_s"),
        number("peak_allocated_gib", 2),
        number("peak_reserved_gib", 2),
        number("memory_goal", 0),
        number("cancel_s"),
        number("left_after_cancel_gib", 2),
        "yes" if row["same_bits"] else "NO",
        str(row["faces"]),
    )


if __name__ == "__main__":
    sys.exit(main())
