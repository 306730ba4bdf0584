"""`sam3d-nb profile`: the published benchmark from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from sam3d_nb.errors import ReconstructionError

Option = Callable[..., None]


def profile_options(
    parser: argparse.ArgumentParser, option: Option, switch: Option, model_options: Option
) -> None:
    """Add the options of `profile`, with the helpers of the command line."""
    text = "folder of example folders, or an example (default: those of the package)"
    option(parser, "images_dir", help=text)
    text = "where tables go; a run that was stopped goes on there (default: output/profile)"
    option(parser, "output_dir", default="output/profile", help=text)
    switch(parser, "use_inference_cache", "keep the model, else every run loads it, as published")
    text = "also write torch.profiler's tables and a trace for Perfetto, of one more run an object"
    switch(parser, "save_profile_summary", text)
    for name, default, text in (
        ("wait", 0, "runs that are skipped"),
        ("warmup", 1, "runs that do not count"),
        ("active", 3, "runs that count"),
    ):
        option(parser, name, type=int, default=default, help=f"{text} (default: {default})")
    switch(parser, "measure_scenes", "also time all objects of each photo as a scene")
    switch(parser, "ignore_pointmaps", "let the model estimate depth where the example has it")
    text = "time the first so many masks of each photo only (default: all)"
    option(parser, "masks_per_photo", type=int, help=text)
    switch(parser, "overwrite", "measure all anew, in place of what is in the output folder")
    model_options(parser)


def run_profile(options: argparse.Namespace) -> int:
    """Run the benchmark, print its numbers, and say where the tables are."""
    from sam3d_nb.profiling.benchmark import benchmark
    from sam3d_nb.profiling.folder import TABLE
    from sam3d_nb.progress import counting

    count = [0, 0]
    try:
        with counting() as bar:

            def show(done: int, total: int, name: str) -> None:
                count[:] = done, total
                bar(done, total, name)

            results = benchmark(
                options.images_dir,
                options.output_dir,
                options.model,
                use_inference_cache=options.use_inference_cache,
                save_profile_summary=options.save_profile_summary,
                wait=options.wait,
                warmup=options.warmup,
                active=options.active,
                seed=options.seed,
                device=options.device,
                memory=options.memory,
                use_pointmaps=not options.ignore_pointmaps,
                measure_scenes=options.measure_scenes,
                masks_per_photo=options.masks_per_photo,
                overwrite=options.overwrite,
                on_progress=show,
            )
    except KeyboardInterrupt as stop:
        kept = f"{count[0]} of {count[1]} objects are measured"
        raise KeyboardInterrupt(f"interrupted; {kept}, the same command goes on there") from stop
    print(_text(results.by_stage()))
    print(_text(results.summary()))
    print(f"tables in {options.output_dir}, all rows in {TABLE}")
    failed = results.failures() | {
        f"scene {scene.image}": scene.error for scene in results.scene_rows if scene.error
    }
    for name, reason in failed.items():
        print(f"sam3d-nb: {name} failed: {reason}", file=sys.stderr)
    return ReconstructionError.exit_code if failed else 0


def _text(table: Any) -> str:
    """Return a table for a terminal, columns without a value left out."""
    shown = table.dropna(axis="columns", how="all")
    return shown.to_string(float_format="{:.4g}".format, na_rep="-") + "\n"
