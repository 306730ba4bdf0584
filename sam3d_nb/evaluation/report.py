"""The report of an evaluation: a row an object, means with intervals, JSON and Markdown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sam3d_nb.errors import InputError
from sam3d_nb.evaluation.categories import OTHER
from sam3d_nb.files import write_file

METRICS = {
    "f_score": "F-score@0.05, placed",
    "chamfer": "Chamfer distance, placed",
    "volume_iou": "volume IoU, placed",
    "aligned_f_score": "F-score@0.05, aligned",
    "aligned_chamfer": "Chamfer distance, aligned",
    "aligned_volume_iou": "volume IoU, aligned",
    "silhouette_iou": "silhouette IoU",
    "color_psnr": "color PSNR in the photo's view, dB",
    "surface_color_psnr": "color PSNR all around, aligned, dB",
    "rotation_error": "rotation error, degrees",
    "translation_error": "translation error, object sizes",
    "distance_error": "translation error, camera distances",
    "scale_ratio": "scale, predicted / true",
    "scale_error": "scale error, abs(ln(ratio))",
    "seconds": "seconds to reconstruct",
}
"""Every column that is measured, and what it is called in print."""
COLUMNS = ["example", "index", "name", "category", *METRICS, "error"]
TOLD = tuple(METRICS)[:8]
"""The columns that a table of single objects shows."""
LONGEST_TABLE = 60
"""Objects up to which a printed report has a row for each."""
RESAMPLES = 5_000
LARGEST_BLOCK = 1_000_000  # values resampled at once


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation measured, one row an object.

    rows: `example`, `index`, `name`, `category`, the columns of `METRICS` (NaN where nothing could
    be measured) and `error`: why an object failed, else empty. points: sampled on each surface.
    jobs: how many objects were worked on at once. use_pointmaps: whether the model was given them.
    """

    rows: pd.DataFrame
    model: str
    model_version: str
    date: str
    seed: int
    points: int
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    jobs: int = 1
    use_pointmaps: bool = True

    @staticmethod
    def load(path: str | Path) -> Report:
        """Read a report that `save` wrote; raises InputError where it is none.

        Metrics that an older report does not have are NaN.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = pd.DataFrame(content["rows"], columns=COLUMNS)
            rows["category"] = rows["category"].astype(object).fillna(OTHER).astype(str)
            rows[list(METRICS)] = rows[list(METRICS)].astype(float)
            names = ("model", "model_version", "date", "seed", "points", "hardware", "versions")
            told: dict[str, Any] = {name: content[name] for name in names}
            told["jobs"] = content.get("jobs", 1)
            return Report(rows=rows, use_pointmaps=content.get("use_pointmaps", True), **told)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is no report: make one with sam3d-nb evaluate --output ({error!r})"
            ) from error

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

    def by_category(self) -> dict[str, pd.DataFrame]:
        """Return the `summary` of every category by its name, in alphabetical order."""
        parts = self.rows.groupby("category")
        return {str(name): replace(self, rows=part).summary() for name, part in parts}

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
                f"{blind} of {count} objects have no ground truth: only silhouette IoU and color "
                "in the photo's view are measured on them"
            )
        hollow = int((self.rows["f_score"].notna() & self.rows["volume_iou"].isna()).sum())
        if hollow:
            notes.append(
                f"{hollow} of {count} true meshes enclose no volume: no volume IoU is measured on "
                "them"
            )
        if not self.use_pointmaps:
            notes.append("no point maps were given: place and size are the model's guess")
        if self.jobs > 1:
            notes.append(f"seconds are of {self.jobs} objects at once: alone each is quicker")
        return notes

    def markdown(self) -> str:
        """Return the report for a README: what was measured, a table of means, one of objects."""
        machine = [str(self.hardware[k]) for k in ("cpu", "gpu") if self.hardware.get(k)]
        head = [f"Model `{self.model}` {self.model_version}", f"{len(self.rows)} objects"]
        parts = [
            ", ".join([*head, self.date[:10], *machine]) + ".",
            grid(["metric", "mean", "95 % interval", "n"], self._means()),
        ]
        told = [METRICS[name] for name in TOLD]
        if self.rows["category"].nunique() > 1:
            parts.append(grid(["category", "n", *told], self._categories()))
        if len(self.rows) <= LONGEST_TABLE:
            objects = [
                [row["example"], f"{row['index']} {row['name']}", *(short(row[n]) for n in TOLD)]
                for row in self.rows.to_dict("records")
            ]
            parts.append(grid(["example", "object", *told], objects))
        return "\n\n".join([*parts, *self.notes()])

    def _means(self) -> list[list[str]]:
        return [
            [
                METRICS[str(name)],
                short(row["mean"]),
                between(row["low"], row["high"]),
                f"{row['n']:.0f}",
            ]
            for name, row in self.summary().iterrows()
        ]

    def _categories(self) -> list[list[str]]:
        sizes = self.rows["category"].value_counts()
        return [
            [name, str(sizes[name]), *(short(summary.loc[metric, "mean"]) for metric in TOLD)]
            for name, summary in self.by_category().items()
        ]

    def save(
        self, path: str | Path, *, overwrite: bool = False, extra: dict[str, Any] | None = None
    ) -> Path:
        """Write everything as JSON, atomically; what could not be measured is null.

        extra: further entries, such as a comparison. Returns the path. Raises OutputError where the
        file exists and `overwrite` is false, or cannot be written.
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
            "jobs": self.jobs,
            "use_pointmaps": self.use_pointmaps,
            "summary": self.summary().to_dict("index"),
            "categories": {k: v.to_dict("index") for k, v in self.by_category().items()},
            "notes": self.notes(),
            **(extra or {}),
            "rows": self.rows.to_dict("records"),
        }
        text = json.dumps(json_ready(content), indent=1, allow_nan=False, ensure_ascii=False)
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
    low, high = np.quantile(bootstrap_means(values), [0.025, 0.975])
    return mean, float(low), float(high), count


def bootstrap_means(values: np.ndarray) -> np.ndarray:
    """Return at least `RESAMPLES` means (R, ...) of `values` (N, ...) drawn with replacement.

    The same count N gives the same draws.
    """
    generator = np.random.default_rng(0)
    count = len(values)
    block = min(RESAMPLES, max(1, LARGEST_BLOCK // values.size))
    return np.concatenate(
        [
            values[generator.integers(count, size=(block, count))].mean(1)
            for _ in range(math.ceil(RESAMPLES / block))
        ]
    )


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def short(value: float) -> str:
    """Return a number with three decimals, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"


def between(low: float, high: float) -> str:
    """Return an interval in words, nothing for NaN."""
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def json_ready(value: Any) -> Any:
    """Return `value` as JSON has it: NaN becomes None, NumPy numbers become Python's."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
