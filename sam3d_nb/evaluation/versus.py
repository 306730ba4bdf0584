"""Two models side by side on the objects that both were measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sam3d_nb.errors import InputError
from sam3d_nb.evaluation.report import (
    METRICS,
    Report,
    between,
    bootstrap_means,
    grid,
    json_ready,
    mean_interval,
    short,
)

SMALLER_IS_BETTER = (
    "chamfer",
    "aligned_chamfer",
    "rotation_error",
    "translation_error",
    "distance_error",
    "scale_error",
    "seconds",
)
NOT_RANKED = ("scale_ratio",)
DECIBELS = ("color_psnr", "surface_color_psnr")
"""Logarithms, whose ratio says nothing."""
COLUMNS = (
    "mean",
    "baseline",
    "difference",
    "difference_low",
    "difference_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "better",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model's report beside that of a baseline, object by object.

    table: a row a metric, over the objects that have it in both reports. Columns: `mean` and
    `baseline`, the two means; `difference`, mean minus baseline, with 95 % bootstrap interval
    `difference_low`, `difference_high` over pairs; `ratio`, mean over baseline, with `ratio_low`,
    `ratio_high`; `better`, the share of objects on which the model is better (ties count half);
    `n`. NaN where a metric has no order, no ratio (decibels) or no pair. notes: sentences on what
    differs besides the models.
    """

    model: str
    baseline: str
    table: pd.DataFrame
    unpaired: int
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the comparison as a sentence and a table."""
        head = f"`{self.model}` beside `{self.baseline}` on the same objects, pair by pair."
        if self.unpaired:
            head += f" {self.unpaired} objects are in one report only and do not count."
        columns = ["metric", self.model, self.baseline, "difference", "95 % interval"]
        columns += ["ratio", "95 % interval", "better on", "n"]
        rows = [
            [
                METRICS[str(name)],
                short(row["mean"]),
                short(row["baseline"]),
                short(row["difference"]),
                between(row["difference_low"], row["difference_high"]),
                short(row["ratio"]),
                between(row["ratio_low"], row["ratio_high"]),
                "" if math.isnan(row["better"]) else f"{row['better']:.0%}",
                f"{row['n']:.0f}",
            ]
            for name, row in self.table.iterrows()
        ]
        return "\n\n".join([head, grid(columns, rows), *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return json_ready(
            {
                "model": self.model,
                "baseline": self.baseline,
                "unpaired": self.unpaired,
                "notes": list(self.notes),
                "metrics": self.table.to_dict("index"),
            }
        )


def side_by_side(report: Report, baseline: Report) -> Comparison:
    """Compare two reports object by object, paired by example and mask.

    Where only one model was given point maps, a note of the result says so. Raises InputError where
    they have no object in common.
    """
    first, second = report.table(), baseline.table()
    common = first.index.intersection(second.index)
    if not len(common):
        raise InputError(
            f"the report of {report.model} and that of {baseline.model} have no object in common; "
            "evaluate both on the same examples"
        )
    rows = {
        name: _row(
            name,
            first.loc[common, name].to_numpy(float),
            second.loc[common, name].to_numpy(float),
        )
        for name in METRICS
    }
    unpaired = len(first.index.symmetric_difference(second.index))
    table = pd.DataFrame.from_dict(rows, orient="index")
    notes = _given_differently(report, baseline)
    return Comparison(report.model, baseline.model, table, unpaired, notes)


def _given_differently(report: Report, baseline: Report) -> tuple[str, ...]:
    """Say which of two models was given point maps, where only one was."""
    if report.use_pointmaps == baseline.use_pointmaps:
        return ()
    names = f"`{report.model}`", f"`{baseline.model}`, the baseline,"
    given, blind = names if report.use_pointmaps else names[::-1]
    return (
        f"No fair comparison: {given} was given point maps and {blind} was not, so differences are "
        "not the models' alone. Evaluate both with point maps, or both without.",
    )


def _row(name: str, values: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Compare one metric of the same objects, (N,) each, NaN where it was not measured."""
    both = ~np.isnan(values) & ~np.isnan(baseline)
    values, baseline = values[both], baseline[both]
    row = dict.fromkeys(COLUMNS, math.nan)
    row["n"] = len(values)
    if not len(values):
        return row
    row["mean"], row["baseline"] = float(values.mean()), float(baseline.mean())
    row["difference"], low, high, _ = mean_interval(values - baseline)
    row["difference_low"], row["difference_high"] = low, high
    if row["baseline"] > 0 and name not in DECIBELS:
        row["ratio"] = row["mean"] / row["baseline"]
        means = bootstrap_means(np.stack([values, baseline], axis=1))  # (R, 2)
        usable = means[means[:, 1] > 0]
        if len(values) > 1 and len(usable):
            low, high = np.quantile(usable[:, 0] / usable[:, 1], [0.025, 0.975])
            row["ratio_low"], row["ratio_high"] = float(low), float(high)
    if name not in NOT_RANKED:
        ahead = baseline - values if name in SMALLER_IS_BETTER else values - baseline
        row["better"] = float((ahead > 0).mean() + (ahead == 0).mean() / 2)
    return row
