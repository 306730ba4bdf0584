"""Time the network stage by stage at its published sizes, and say how far each is from its floor.

    python benchmarks/model_h100.py --accuracy --output benchmarks/results/h100_model.json
    python benchmarks/model_h100.py --stages flow --dtypes float16 --modes accelerated
    python benchmarks/model_h100.py --small --device cpu --dtypes float32 --runs 1

Weights are random stand-ins, drawn on the device. A floor is the time that the counted operations
take at the limits that large matrix products and a large attention reach in the same run.
"""

import argparse
import json
import platform
import statistics
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from measure import (
    GIB,
    Limits,
    Work,
    all_finite,
    count_work,
    device_limits,
    measure,
    named_tensors,
    relative_error,
)
from stages import PROBES, STAGES, Setting, Stage

import sam3d_nb
from sam3d_nb.machine import commit, driver
from sam3d_nb.model.flexicubes import Surface

HEADS = (
    "stage,dtype,mode,median,min,max,goal,official,first,GiB,reserved,"
    "TFLOP,TFLOP/s,x floor,finite,faces"
)
MODES = ("eager", "accelerated")
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    device = torch.device(options.device)
    report: dict[str, Any] = {
        "machine": machine(device),
        "options": vars(options) | {"output": None},
    }
    report["limits"], report["stages"], report["accuracy"] = {}, [], []
    for name in options.dtypes:
        dtype = getattr(torch, name)
        limits = device_limits(device, dtype, small=options.small)
        report["limits"][name] = {"matrix": limits.matrix, "attention": limits.attention}
        for stage, mode in work_list(options):
            setting = Setting(device, dtype, mode, options.small, options.steps)
            report["stages"].append(timed(stage, setting, limits, options.runs))
            save(report, options.output)
    if options.accuracy:
        torch.backends.cudnn.allow_tf32 = False  # float32 is the reference
        for name in options.dtypes:
            report["accuracy"] += accuracy(options, device, getattr(torch, name))
            save(report, options.output)
    print_tables(report)
    return int(any("error" in row for row in report["stages"] + report["accuracy"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--stages", nargs="+", help="only stages whose name contains one of these")
    parser.add_argument("--runs", type=int, default=5, help="warm runs that count")
    parser.add_argument("--steps", type=int, default=25, help="sampler steps of both flows")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--accuracy", action="store_true", help="error against float32 as well")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


def work_list(options: argparse.Namespace) -> Iterator[tuple[Stage, str]]:
    """Yield the stages in order, each in the modes that it has."""
    for stage in chosen(options):
        for mode in options.modes:
            if stage.accelerates or mode == "eager":
                yield stage, mode


def chosen(options: argparse.Namespace) -> list[Stage]:
    words = options.stages or [""]
    return [stage for stage in STAGES if any(word in stage.name for word in words)]


def timed(stage: Stage, setting: Setting, limits: Limits, runs: int) -> Row:
    """Time one stage; a stage that fails becomes a row that says why."""
    dtype = str(setting.dtype).removeprefix("torch.")
    row: Row = {"stage": stage.name, "dtype": dtype, "mode": setting.mode}
    print(f"{stage.name}, {dtype}, {setting.mode} ...", file=sys.stderr, flush=True)
    try:
        with torch.no_grad():
            run = stage.build(setting)
            timing = measure(run, setting.device, runs=runs)
            result = run()
            row["finite"] = all_finite(result)
            if isinstance(result, Surface):
                row |= {"vertices": len(result.vertices), "faces": len(result.faces)}
            del result
            del run
            work = work_of(stage, replace(setting, mode="eager", dtype=torch.float16))
    except Exception as error:
        traceback.print_exc()
        return row | {"error": one_line(error)}
    floor = limits.floor(work)
    return row | {
        "median_s": timing.median,
        "runs_s": timing.warm,
        "first_call_s": timing.first,
        "spread_s": statistics.stdev(timing.warm) if runs > 1 else 0.0,
        "peak_allocated_gib": timing.allocated and timing.allocated / GIB,
        "peak_reserved_gib": timing.reserved and timing.reserved / GIB,
        "matrix_tflop": work.matrix / 1e12,
        "attention_tflop": work.attention / 1e12,
        "tflop_per_s": work.total / timing.median / 1e12,
        "share_of_limit": floor / timing.median,
        "floor_s": floor,
        "times_floor": timing.median / floor if floor else None,
        "goal_s": stage.goal,
        "official_s": stage.official,
        "memory_goal_gib": stage.memory_goal,
    }


@cache
def work_of(stage: Stage, setting: Setting) -> Work:
    """Count the operations of a stage, which are the same in every mode and half precision."""
    if stage.parts is None:
        return count_work(stage.build(setting))
    counted = (times * count_work(run) for times, run in stage.parts(setting))
    return sum(counted, Work(0, 0))


def accuracy(
    options: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> Iterator[Row]:
    """Compare every probe in `dtype` with float32: same weights, same input."""
    if dtype == torch.float32:
        return
    wanted = {stage.name for stage in chosen(options)}
    for probe in PROBES:
        if not any(probe.name.startswith(name) for name in wanted):
            continue
        print(f"accuracy of {probe.name}, {dtype} ...", file=sys.stderr, flush=True)
        row: Row = {"stage": probe.name, "dtype": str(dtype).removeprefix("torch.")}
        setting = Setting(device, torch.float32, "eager", options.small, options.steps)
        try:
            with torch.no_grad():
                expected = dict(named_tensors(probe.build(setting)()))
                actual = dict(named_tensors(probe.build(replace(setting, dtype=dtype))()))
        except Exception as error:
            traceback.print_exc()
            yield row | {"error": one_line(error)}
            continue
        yield row | {
            "finite": all_finite(actual),
            "relative_rms": {
                name or "output": relative_error(actual[name], expected[name])
                for name in expected
                if expected[name].is_floating_point()
            },
        }


def machine(device: torch.device) -> dict[str, Any]:
    """Say what ran: hardware, driver, versions, commit, date."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sam3d_nb": sam3d_nb.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "weights": "random stand-ins",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "memory_gib": properties.total_memory / GIB,
            "driver": driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def save(report: dict[str, Any], path: Path | None) -> None:
    """Write the report, so that a run that is cut short leaves what it has."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, default=str) + "\n")


def print_tables(report: dict[str, Any]) -> None:
    for name, limit in report["limits"].items():
        matrix, attention = limit["matrix"] / 1e12, limit["attention"] / 1e12
        print(f"{name}: matrix products {matrix:.1f} TFLOP/s, attention {attention:.1f} TFLOP/s")
    for row in report["accuracy"]:
        errors = row.get("relative_rms", {}).items()
        told = ", ".join(f"{name} {error:.1e}" for name, error in errors) or row.get("error")
        print(f"error of {row['dtype']} in {row['stage']}: {told}")
    heads = tuple(HEADS.split(","))
    lines: list[tuple[str, ...]] = [heads, *(cells(row) for row in report["stages"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        texts = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(texts).rstrip())


def cells(row: Row) -> tuple[str, ...]:
    """Return one table row; times in seconds."""
    start = (row["stage"], row["dtype"], row["mode"])
    if "error" in row:
        return (*start, row["error"][:60], *[""] * 12)

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return (
        *start,
        number(row["median_s"], 4),
        number(min(row["runs_s"]), 4),
        number(max(row["runs_s"]), 4),
        number(row["goal_s"], 2),
        number(row["official_s"], 3),
        number(row["first_call_s"], 2),
        number(row["peak_allocated_gib"], 2),
        number(row["peak_reserved_gib"], 2),
        number(row["matrix_tflop"] + row["attention_tflop"], 2),
        number(row["tflop_per_s"], 1),
        number(row["times_floor"], 2),
        "yes" if row["finite"] else "NO",
        str(row.get("faces", "")),
    )


if __name__ == "__main__":
    sys.exit(main())
