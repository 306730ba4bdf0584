"""The published benchmark of the official network at full size, model kept and loaded anew.

    python benchmarks/profile_h200.py --output_dir benchmarks/results/h200_profile
    python benchmarks/profile_h200.py --only loaded_anew --pairs 0 --output_dir /tmp/profile
    python benchmarks/profile_h200.py --small --device cpu --seconds 60 --output_dir /tmp/profile

Weights are stand-ins, written to a folder and loaded from there. What they would make of a photo
has no meaning, so the voxels and the surface of each object's true mesh are put in (of `voxels.py`
where it is unknown), see `injected.py`. Photos are given without their point maps.

Three benchmarks, or those after `--only`: the model kept, the first photo as a scene, and the model
loaded for every run. Their folders are those of `sam3d-nb profile`; `report.md` sums up. When
`--seconds` are over no object is begun any more, and the report says how many were measured.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from injected import Shaped, objects
from pipeline_gpu import write_weights

from sam3d_nb.errors import InputError
from sam3d_nb.examples import list_examples, load_example
from sam3d_nb.pipeline import Model
from sam3d_nb.profiling.benchmark import benchmark, save_tables
from sam3d_nb.profiling.measure import measure_run
from sam3d_nb.profiling.published import published
from sam3d_nb.profiling.results import Results, load_results
from sam3d_nb.profiling.subject import Subject
from sam3d_nb.weights.load import load_weights

FIGURES = ("stages", "objects", "voxels", "memory")
NAMES = ("kept", "scene", "loaded_anew")


class TimeUp(Exception):
    """The time that was given is over."""


@dataclass(frozen=True)
class Case:
    """One benchmark. masks: of each photo, at most; None takes one photo with all of its masks."""

    name: str
    keep: bool
    masks: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or Path(folder)
        lines = [str(write_weights(options, weights)["weights"])]
        objects()
        lines.append(f"{time.perf_counter() - started:.1f} s to write the weights")
        load = partial(load_shaped, weights, options.device)
        lines += overhead(load, options)
        cases = (
            Case("kept", True, options.masks_kept),
            Case("scene", True, None),
            Case("loaded_anew", False, options.masks_anew),
        )
        found = {}
        for case in [case for case in cases if case.name in options.only]:
            run_case(case, load, options, started)
            found[case.name] = load_results(options.output_dir / case.name)
            save_tables(found[case.name], options.output_dir / case.name)
    lines.append(f"{time.perf_counter() - started:.1f} s in all")
    text = report(found, lines)
    (options.output_dir / "report.md").write_text(text)
    print(text)
    try:
        draw(found, options.output_dir)
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)
    return int(any(results.failures() or not results.rows for results in found.values()))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="benchmarks to run")
    parser.add_argument("--images", nargs="+", help="only these samples, or other photos")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--weights", type=Path, help="folder to keep the stand-in weights in")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--seconds", type=float, default=150, help="no object is begun after them")
    parser.add_argument("--steps", type=int, nargs=2, default=(25, 25), help="of both stages")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--active", type=int, default=3)
    parser.add_argument("--masks_kept", type=int, default=1, help="masks a photo, model kept")
    parser.add_argument("--masks_anew", type=int, default=1, help="masks a photo, loaded anew")
    parser.add_argument("--pairs", type=int, default=3, help="runs with and without the timer")
    return parser.parse_args(arguments)


def load_shaped(weights: Path, device: str) -> Model:
    """Load the model from its files."""
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", place.index or 0)  # some functions want a number
    dtype = torch.float32 if place.type == "cpu" else None
    return Shaped(load_weights(weights, device=place, dtype=dtype), str(place), "resident")


def run_case(
    case: Case, load: Callable[[], Model], options: argparse.Namespace, started: float
) -> None:
    """Run one benchmark until it is done or the time is up."""
    begun: list[float] = []

    def watch(done: int, total: int, name: str) -> None:
        now = time.perf_counter()
        print(f"{now - started:5.1f} s  {case.name} {done}/{total} {name}", file=sys.stderr)
        longest = max(np.diff([*begun, now]), default=0.0)
        begun.append(now)
        if done < total and now + longest - started > options.seconds:
            raise TimeUp

    photos = options.images or list_examples()
    try:
        benchmark(
            photos if case.masks else photos[:1],
            options.output_dir / case.name,
            load,
            use_inference_cache=case.keep,
            warmup=options.warmup,
            active=options.active,
            use_pointmaps=False,
            measure_scenes=case.masks is None,
            masks_per_photo=case.masks,
            on_progress=watch,
            steps=tuple(options.steps),
        )
    except TimeUp:
        print(f"{case.name}: the time is up", file=sys.stderr)


def overhead(load: Callable[[], Model], options: argparse.Namespace) -> list[str]:
    """Say what the timer costs: runs with and without it in turn, one object."""
    if not options.pairs:
        return []
    subject = Subject(load)
    model, seconds = subject.get()
    example = load_example((options.images or list_examples())[0])
    steps = tuple(options.steps)

    def work(model: Model, on_event: Any) -> Any:
        return model.reconstruct(example, 0, steps=steps, on_event=on_event)  # type: ignore[call-arg]

    first = measure_run(subject, work)
    bare, timed, own = [], [], []
    for _ in range(options.pairs):
        subject.probe.synchronize()
        start = time.perf_counter()
        work(model, None)
        subject.probe.synchronize()
        bare.append(time.perf_counter() - start)
        run = measure_run(subject, work)
        timed.append(run.seconds)
        own.append(run.overhead / run.seconds)
    del model
    subject.keep = False
    subject.drop()
    without, with_it = statistics.median(bare), statistics.median(timed)
    return [
        f"first load in the process {seconds:.2f} s, first object {first.seconds:.2f} s",
        f"median of {options.pairs} runs of one object: {without:.3f} s without the timer, "
        f"{with_it:.3f} s with it ({with_it / without - 1:+.1%}); the timer's own processor time "
        f"{statistics.median(own):.2%}",
    ]


def draw(found: dict[str, Results], folder: Path) -> None:
    """Write the figures of all benchmarks into `folder`; raises ImportError without matplotlib."""
    for name, results in found.items():
        if any(row.counted for row in results.rows):
            for kind in FIGURES:
                figure = getattr(results, f"plot_{kind}")()
                figure.savefig(folder / f"{name}_{kind}.png", dpi=110)


def report(found: dict[str, Results], lines: list[str]) -> str:
    """Return the tables of all benchmarks as text."""
    parts = ["# The published benchmark, stand-in weights\n\n" + "\n".join(f"- {x}" for x in lines)]
    for name, results in found.items():
        identity = results.header["identity"]
        told = {key: identity[key] for key in ("hardware", "driver", "versions", "weights_sha256")}
        parts.append(f"## {name}: {results.name}\n\n{told}\ncommit {results.header['commit']}")
        if not results.rows:
            parts.append("Nothing was measured: the time was up.")
            continue
        tables: list[pd.DataFrame] = [
            results.table(),
            results.by_stage(),
            results.summary(),
            results.scenes(),
        ]
        parts += [block(table) for table in tables if len(table)]
    parts += [f"{name} was not asked for." for name in NAMES if name not in found]
    if {"kept", "loaded_anew"} <= set(found):
        with suppress(InputError):  # nothing measured in both
            compared = found["kept"].compare(found["loaded_anew"])
            parts.append(f"other: loaded anew, this: kept; {compared}")
    parts.append("Published; other hardware, weights and photos:\n\n" + block(published()))
    return "\n\n".join(parts) + "\n"


def block(table: pd.DataFrame) -> str:
    """Return a table as preformatted text, without columns that are empty."""
    shown = table.dropna(axis="columns", how="all")
    return f"```\n{shown.to_string(float_format='{:.4f}'.format, na_rep='-')}\n```"


if __name__ == "__main__":
    sys.exit(main())
