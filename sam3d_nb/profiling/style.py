"""Tables that read well in JupyterLab."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

BAR = "#9ecae1"
ALARM = "color: #b2182b"
AVERAGE, ERROR, MEAN = "elapsed_time_average", "error", "mean"
LEFT = [
    {"selector": "th.row_heading", "props": "text-align: left"},
    {"selector": "caption", "props": "text-align: left; white-space: nowrap"},
]


def style_times(table: pd.DataFrame, caption: str) -> Styler:
    """Return the published table with short heads, bars for averages, the mean set apart."""
    shown = table.rename(columns=_short_head)
    styler = shown.style.format(precision=3, na_rep="–", escape="html")
    styler = styler.format_index(escape="html").set_caption(f"Seconds: {html.escape(caption)}")
    objects = shown.index[shown.index != MEAN]
    longest = shown["average"].max()
    if len(objects) and pd.notna(longest):
        part = pd.IndexSlice[objects, ["average"]]
        styler = styler.bar(subset=part, color=BAR, vmin=0, vmax=longest)
    if ERROR in shown:
        styler = styler.set_properties(subset=[ERROR], **{"text-align": "left"})
        failed = shown.index[shown[ERROR] != ""]
        styler = styler.map(lambda _: ALARM, subset=pd.IndexSlice[failed, [ERROR]])
    return _last_row_apart(styler, shown, MEAN)


def style_stages(table: pd.DataFrame, caption: str) -> Styler:
    """Return the table of stages with bars for their shares."""
    shown = table.dropna(axis="columns", how="all")
    formats = dict.fromkeys(("mean", "median", "p95", "device_mean"), "{:.3f}")
    formats |= {"share": "{:.1%}", "n": "{:d}"}
    formats |= {column: "{:.2f}" for column in shown if str(column).endswith("_gib")}
    used = {name: form for name, form in formats.items() if name in shown}
    styler = shown.style.format(used, na_rep="–").format_index(escape="html")
    styler = styler.set_caption(f"Seconds a stage: {html.escape(caption)}")
    stages = shown.index[shown.index != "all"]
    if len(stages):
        part = pd.IndexSlice[stages, ["share"]]
        styler = styler.bar(subset=part, color=BAR, vmin=0, vmax=1)
    return _last_row_apart(styler, shown, "all")


def _short_head(name: str) -> str:
    if name == AVERAGE:
        return "average"
    *_, last = name.split("_")
    return f"run {int(last)}" if last.isdecimal() else name


def _last_row_apart(styler: Styler, table: pd.DataFrame, name: str) -> Styler:
    if name not in table.index:
        return styler.set_table_styles(LEFT)
    rule = "font-weight: bold; border-top: 1px solid #888"
    row = len(table) - 1
    selector = f"tbody tr:nth-child({row + 1})"
    rows = [{"selector": f"{selector} {cell}", "props": rule} for cell in ("td", "th")]
    return styler.set_table_styles([*LEFT, *rows])
