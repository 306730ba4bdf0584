"""What others published, to set one's own table beside it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("published.csv")


def published() -> pd.DataFrame:
    """Return the published times of SAM 3D Objects: rows known to us, seconds, and their source.

    Columns elapsed_time_average, model, hardware, state, source; indexed by mask_index.
    """
    return pd.read_csv(FILE, comment="#", index_col="mask_index")


def beside_published(seconds: float, name: str) -> pd.DataFrame:
    """Return the published mean and one's own, seconds an object."""
    mean = published().loc["mean"]
    theirs = f"{mean['model']} on {mean['hardware']}, {mean['state']}"
    index = pd.Index([theirs, name], name="benchmark")
    return pd.DataFrame({"elapsed_time_average": [mean["elapsed_time_average"], seconds]}, index)
