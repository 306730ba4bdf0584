"""Two benchmarks side by side: the ratio of their times, object by object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sam3d_nb.errors import InputError
from sam3d_nb.evaluation.report import mean_interval
from sam3d_nb.profiling.record import Row
from sam3d_nb.profiling.style import LEFT


@dataclass(frozen=True, eq=False)
class Comparison:
    """How the times of `other` relate to `this`, over the objects that both measured.

    ratio: geometric mean of other / this, so above 1 `other` is slower; low, high: its 95 %
    bootstrap interval over objects, NaN from a single one. table: the seconds of every pair.
    """

    ratio: float
    low: float
    high: float
    table: pd.DataFrame

    def __str__(self) -> str:
        """Say the ratio in a sentence."""
        pairs = len(self.table)
        interval = ""
        if not np.isnan(self.low):
            interval = f", 95 % interval {self.low:.3f} to {self.high:.3f}"
        noun = "object" if pairs == 1 else "objects"
        return f"other / this = {self.ratio:.3f}{interval}, {pairs} {noun}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        styled = self.table.style.format("{:.3f}").format_index(escape="html")
        return styled.set_table_styles(LEFT).set_caption(str(self)).to_html()


def compare(this: Sequence[Row], other: Sequence[Row]) -> Comparison:
    """Pair objects of the same name and input; raises InputError where there is no pair."""
    theirs = {(row.label, row.input_sha256): row for row in other if row.counted}
    pairs = [
        (row.label, row.seconds, theirs[row.label, row.input_sha256].seconds)
        for row in this
        if row.counted and (row.label, row.input_sha256) in theirs
    ]
    if not pairs:
        raise InputError(
            f"of {len(this)} and {len(other)} objects none was measured in both benchmarks, with "
            "the same name and files"
        )
    table = pd.DataFrame(pairs, columns=["mask_index", "this", "other"]).set_index("mask_index")
    table["ratio"] = table["other"] / table["this"]
    mean, low, high, _ = mean_interval(np.log(table["ratio"].to_numpy(float)))
    return Comparison(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), table)
