"""The report of an evaluation: a row an object, means with intervals, JSON and Markdown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sam3d_nb.files import write_file

METRICS = {
    "f_score": "F-score@0.05, placed",
    "chamfer": "Chamfer distance, placed",
    "volume_iou": "volume IoU, placed",
    "aligned_f_score": "F-score@0.05, aligned",
    "aligned_chamfer": "Chamfer distance, aligned",
    "aligned_volume_iou": "volume IoU, aligned",
    "silhouette_iou": "silhouette IoU",
    "rotation_error": "rotation error, degrees",
    "translation_error": "translation error, object sizes",
    "distance_error": "translation error, camera distances",
    "scale_ratio": "scale, predicted / true",
    "scale_error": "scale error, abs(ln(ratio))",
    "seconds": "seconds to reconstruct",
}
"""Every column that is measured, and what it is called in print."""
TOLD = tuple(METRICS)[:7]
"""The columns that a table of single objects shows."""
RESAMPLES = 5_000
LARGEST_BLOCK = 1_000_000  # values resampled at once


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation measured, one row an object.

    rows: `example`, `index`, `name`, the columns of `METRICS` (NaN where nothing could be
    measured) and `error`: why an object failed, else empty. points: sampled on each surface.
    """

    rows: pd.DataFrame
    model: str
    model_version: str
    date: str
    seed: int
    points: int
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Return a row an object, indexed by example and mask."""
        return self.rows.set_index(["example", "index"])

    def summary(self) -> pd.DataFrame:
        """Return mean, 95 % bootstrap interval over objects, and count of every metric.

        Columns mean, low, high and n. Objects for which a metric is NaN do not count in it; from
        a single object there is no interval.
        """
        rows = {name: mean_interval(self.rows[name].to_numpy(float)) for name in METRICS}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "n"])

    def notes(self) -> list[str]:
        """Say in sentences what could not be measured, and why."""
        count, failed = len(self.rows), self.rows["error"] != ""
        notes = [
            f"{row['example']}/{row['index']} failed and is in no mean: {row['error']}"
            for row in self.rows[failed].to_dict("records")
        ]
        blind = int((~failed & self.rows["f_score"].isna()).sum())
        if blind:
            notes.append(
                f"{blind} of {count} objects have no ground truth: only the silhouette IoU is "
                "measured on them"
            )
        hollow = int((self.rows["f_score"].notna() & self.rows["volume_iou"].isna()).sum())
        if hollow:
            notes.append(
                f"{hollow} of {count} true meshes enclose no volume: no volume IoU is measured on "
                "them"
            )
        return notes

    def markdown(self) -> str:
        """Return the report for a README: what was measured, a table of means, one of objects."""
        machine = [str(self.hardware[k]) for k in ("cpu", "gpu") if self.hardware.get(k)]
        head = [f"Model `{self.model}` {self.model_version}", f"{len(self.rows)} objects"]
        summary = [
            [
                METRICS[str(name)],
                _short(row["mean"]),
                _range(row["low"], row["high"]),
                f"{row['n']:.0f}",
            ]
            for name, row in self.summary().iterrows()
        ]
        objects = [
            [row["example"], f"{row['index']} {row['name']}", *(_short(row[name]) for name in TOLD)]
            for row in self.rows.to_dict("records")
        ]
        return "\n\n".join(
            [
                ", ".join([*head, self.date[:10], *machine]) + ".",
                _grid(["metric", "mean", "95 % interval", "n"], summary),
                _grid(["example", "object", *(METRICS[name] for name in TOLD)], objects),
                *self.notes(),
            ]
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write everything as JSON, atomically; what could not be measured is null.

        Returns the path. Raises OutputError where the file exists and `overwrite` is false, or
        cannot be written.
        """
        content = {
            "model": self.model,
            "model_version": self.model_version,
            "date": self.date,
            "n": len(self.rows),
            "seed": self.seed,
            "points": self.points,
            "hardware": self.hardware,
            "versions": self.versions,
            "summary": self.summary().to_dict("index"),
            "notes": self.notes(),
            "rows": self.rows.to_dict("records"),
        }
        text = json.dumps(_without_nan(content), indent=1, allow_nan=False, ensure_ascii=False)
        return write_file(path, text.encode(), overwrite=overwrite)


def mean_interval(values: np.ndarray) -> tuple[float, float, float, int]:
    """Return mean, 2.5 and 97.5 % points of the bootstrapped mean, and count of `values` (N,).

    NaN are left out. The resampling is seeded: the same values give the same interval.
    """
    values = values[~np.isnan(values)]
    count = len(values)
    if count == 0:
        return math.nan, math.nan, math.nan, 0
    mean = float(values.mean())
    if count == 1:
        return mean, math.nan, math.nan, 1
    generator = np.random.default_rng(0)
    block = min(RESAMPLES, max(1, LARGEST_BLOCK // count))
    means = np.concatenate(
        [
            values[generator.integers(count, size=(block, count))].mean(1)
            for _ in range(math.ceil(RESAMPLES / block))
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return mean, float(low), float(high), count


def _grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _without_nan(value: Any) -> Any:
    """Return `value` as JSON has it: NaN becomes None, NumPy numbers become Python's."""
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
