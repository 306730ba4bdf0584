"""The tables of a benchmark, as pandas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sam3d_nb.profiling.measure import LOAD
from sam3d_nb.profiling.probe import Memory
from sam3d_nb.profiling.record import Row, Run, SceneRow
from sam3d_nb.profiling.timer import Span

INDEX = "mask_index"
STEP = "elapsed_time_at_active_step_{:03d}"
AVERAGE = "elapsed_time_average"
ERROR = "error"
MEAN = "mean"
BETWEEN = "between stages"
GIB = 2**30


def elapsed_times(rows: Sequence[Row], steps: int, *, by_mask: bool = False) -> pd.DataFrame:
    """Return the published table: seconds of every counted run, their average, and a mean row.

    by_mask: name rows by the mask alone, as in the table of one photo, else `<mask>_<image>`. An
    object that failed has no numbers; the column `error`, which is there only then, says why.
    """
    columns = [STEP.format(number + 1) for number in range(steps)]
    numbers = np.full((len(rows), steps), np.nan)
    for place, row in enumerate(rows):
        seconds = [run.seconds for run in row.counted][:steps]
        numbers[place, : len(seconds)] = seconds
    names = [str(row.mask) if by_mask else row.label for row in rows]
    table = pd.DataFrame(numbers, index=pd.Index(names, name=INDEX), columns=columns)
    table[AVERAGE] = [row.seconds for row in rows]
    table.loc[MEAN] = table.mean()
    if any(row.error for row in rows):
        table[ERROR] = [*(" ".join(row.error.split()) for row in rows), ""]
    return table


def stage_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row a stage of every counted run, with `between stages` for what lies between.

    Columns: object, run, stage, seconds, device_seconds, and the peaks in GiB.
    """
    found: list[dict[str, object]] = []
    for row in rows:
        for number, run in enumerate(row.counted, 1):
            base = {"object": row.label, "run": number}
            stages = [span for span in run.spans if len(span.path) == 1]
            for name in dict.fromkeys(span.path[0] for span in stages):
                found.append(base | _stage([span for span in stages if span.path[0] == name]))
            rest = run.seconds - sum(span.seconds for span in stages)
            found.append(base | {"stage": BETWEEN, "seconds": rest})
    columns = ["object", "run", "stage", "seconds", "device_seconds", *PEAKS]
    frame = pd.DataFrame(found, columns=columns)
    return frame.astype(dict.fromkeys(columns[3:], float))


def _stage(spans: Sequence[Span]) -> dict[str, object]:
    """Return the row of a stage, which may come more than once in a run, as the layout does."""
    on_device = [span.device_seconds for span in spans if span.device_seconds is not None]
    peak = Memory()
    for span in spans:
        peak = peak.most(span.peak)
    return {
        "stage": spans[0].path[0],
        "seconds": sum(span.seconds for span in spans),
        "device_seconds": sum(on_device) if on_device else None,
        **peaks(peak),
    }


PEAKS = ("allocated_gib", "reserved_gib", "host_gib")


def peaks(memory: Sequence[int | None]) -> dict[str, float | None]:
    """Return bytes of device and host as columns in GiB."""
    sizes = (None if size is None else size / GIB for size in memory)
    return dict(zip(PEAKS, sizes, strict=True))


def by_stage(rows: Sequence[Row]) -> pd.DataFrame:
    """Return where the time goes: a row a stage in the order of work, and `all`.

    n: runs that had the stage. mean, median, p95: seconds on the host's clock. share: of the time
    of all counted runs. device_mean: seconds on the device's own clock, where it has one. The
    peaks are the highest of all runs, in GiB.
    """
    stages = stage_rows(rows)
    runs = [run for row in rows for run in row.counted]
    total = sum(run.seconds for run in runs)
    found = {}
    order = [name for name in dict.fromkeys(stages["stage"]) if name not in (LOAD, BETWEEN)]
    for name in [LOAD, *order, BETWEEN]:
        own = stages[stages["stage"] == name]
        if len(own):
            found[name] = describe(own["seconds"].to_numpy()) | {
                "share": own["seconds"].sum() / total,
                "device_mean": own["device_seconds"].mean(),
                **{column: own[column].max() for column in PEAKS},
            }
    if runs:
        seconds = np.array([run.seconds for run in runs])
        highest = pd.DataFrame([peaks(run.peak) for run in runs], dtype=float).max()
        found["all"] = describe(seconds) | {"share": 1.0} | highest.to_dict()
    columns = ["n", "mean", "median", "p95", "share", "device_mean", *PEAKS]
    table = pd.DataFrame.from_dict(found, orient="index", columns=columns)
    return table.rename_axis("stage").astype({"n": int})


def describe(seconds: np.ndarray) -> dict[str, float]:
    """Return count, mean, median and 95 % point."""
    return {
        "n": len(seconds),
        "mean": float(seconds.mean()),
        "median": float(np.median(seconds)),
        "p95": float(np.quantile(seconds, 0.95)),
    }


def scene_table(rows: Sequence[Row], scenes: Sequence[SceneRow]) -> pd.DataFrame:
    """Return measured scenes beside what the objects alone let expect.

    The estimate for M objects is one load of the model, where it is not kept (the median), and M
    times the mean time of an object with a model that is ready: nothing of it is from the scene.
    error: of the estimate, as a share of what was measured.
    """
    found = []
    for scene in scenes:
        measured = np.nan if scene.run is None else scene.run.seconds
        expected = median_load(rows) + scene.objects * mean_to_make(rows)
        found.append(
            {
                "image": scene.image,
                "objects": scene.objects,
                "measured": measured,
                "estimate": expected,
                "error": expected / measured - 1,
                "failed": scene.error,
            }
        )
    columns = ["image", "objects", "measured", "estimate", "error", "failed"]
    return pd.DataFrame(found, columns=columns).set_index("image")


def median_load(rows: Sequence[Row]) -> float:
    """Return the median seconds of loading the model, 0 where it was kept or nothing measured."""
    loads = [run.load_seconds for row in rows for run in row.counted]
    return float(np.median(loads)) if loads else 0.0


def mean_to_make(rows: Sequence[Row]) -> float:
    """Return the mean seconds of an object with a model that is ready, every object counted once.

    NaN where nothing was measured.
    """
    means = [np.mean([run.seconds_to_make for run in row.counted]) for row in rows if row.counted]
    return float(np.mean(means)) if means else float("nan")


def summary(
    rows: Sequence[Row], scenes: Sequence[SceneRow], *, kept: bool, scene_of: int
) -> pd.DataFrame:
    """Return the benchmark in numbers: a row each, with its unit; see `Results.summary`."""
    good = [row for row in rows if row.counted]
    runs = [run for row in good for run in row.counted]
    if not runs:
        return pd.DataFrame(
            [("objects measured", 0, ""), ("objects failed", len(rows), "")],
            columns=["quantity", "value", "unit"],
        ).set_index("quantity")
    seconds = np.array([run.seconds for run in runs])
    mean = float(np.mean([row.seconds for row in good]))
    load = median_load(good)
    lines: list[tuple[str, object, str]] = [
        ("objects measured", len(good), ""),
        ("objects failed", len(rows) - len(good), ""),
        ("counted runs", len(runs), ""),
        ("state", _state(good, kept), ""),
        ("mean of the objects", mean, "s"),
        ("median", float(np.median(seconds)), "s"),
        ("95 % point", float(np.quantile(seconds, 0.95)), "s"),
        ("fastest", float(seconds.min()), "s"),
        ("slowest", float(seconds.max()), "s"),
        ("spread between runs of an object", repeatability(good), "of the mean"),
    ]
    if not kept:
        lines.append(("load of the model, median", load, "s"))
    lines += [
        ("objects an hour", 3600 / mean, ""),
        (f"scene of {scene_of} objects, estimate", load + scene_of * mean_to_make(good), "s"),
    ]
    known = scene_table(good, scenes)["error"].dropna()
    if len(known):
        text = f"error of the estimate, {len(known)} measured {_plural(len(known), 'scene')}"
        lines.append((text, float(known.abs().mean()), "of the time"))
    lines.append(("time that measuring took", _overhead(runs), "of the time"))
    for name, size in peaks(_highest(runs)).items():
        if size is not None:
            lines.append((f"peak {name.removesuffix('_gib')} memory", size, "GiB"))
    frame = pd.DataFrame(lines, columns=["quantity", "value", "unit"])
    return frame.set_index("quantity")


def repeatability(rows: Sequence[Row]) -> float:
    """Return how far the runs of one object lie apart: standard deviation over mean, the median
    of all objects; NaN from single runs."""
    spreads = [
        np.std(seconds, ddof=1) / np.mean(seconds)
        for seconds in ([run.seconds for run in row.counted] for row in rows)
        if len(seconds) > 1
    ]
    return float(np.median(spreads)) if spreads else float("nan")


def _overhead(runs: Sequence[Run]) -> float:
    return sum(run.overhead for run in runs) / sum(run.seconds for run in runs)


def _highest(runs: Sequence[Run]) -> tuple[int | None, ...]:
    peak = runs[0].peak
    for run in runs[1:]:
        peak = peak.most(run.peak)
    return peak


def _state(rows: Sequence[Row], kept: bool) -> str:
    if not kept:
        return "cold, model loaded for every run"
    warmed = all(not row.runs[0].counted for row in rows)
    return "warm, model kept" if warmed else "model kept, without a warm-up"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
