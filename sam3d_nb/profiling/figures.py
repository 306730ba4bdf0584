"""Figures of a benchmark, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.profiling.record import Row, Run
from sam3d_nb.profiling.tables import BETWEEN, GIB, LOAD, by_stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.5  # inches
DOT = "#2171b5"
GREY = "#bdbdbd"
GREYS = {LOAD: "#737373", BETWEEN: GREY}


def plot_stages(rows: Sequence[Row], title: str) -> Figure:
    """Draw a bar a stage: its mean seconds and share."""
    stages = by_stage(_good(rows)).drop(index="all")
    colors = stage_colors(stages.index)
    figure, axes = _figure(0.32 * len(stages) + 1.2, f"Mean time of a stage\n{title}")
    places = np.arange(len(stages))
    axes.barh(places, stages["mean"], color=[colors[name] for name in stages.index])
    for place, (seconds, share) in enumerate(zip(stages["mean"], stages["share"], strict=True)):
        axes.annotate(
            f"{seconds:.3f} s, {share:.0%}",
            (max(seconds, 0), place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, list(stages.index))
    axes.invert_yaxis()
    axes.set_xlim(0, max(float(stages["mean"].max()), 1e-9) * 1.25)
    axes.set_xlabel("seconds")
    return figure


def plot_objects(rows: Sequence[Row], title: str) -> Figure:
    """Draw a line an object: its counted runs as dots, their mean as a stroke."""
    good = sorted(_good(rows), key=lambda row: row.seconds)
    figure, axes = _figure(0.2 * len(good) + 1.4, f"Time of every object\n{title}")
    for place, row in enumerate(good):
        seconds = [run.seconds for run in row.counted]
        axes.plot([min(seconds), max(seconds)], [place, place], color=GREY, lw=1)
        axes.plot(seconds, [place] * len(seconds), "o", color=DOT, ms=4, alpha=0.7, mew=0)
        axes.plot(row.seconds, place, "|", color="black", ms=9)
    mean = float(np.mean([row.seconds for row in good]))
    axes.axvline(mean, color="black", ls=":", lw=1)
    axes.annotate(
        f"mean {mean:.3f} s",
        (mean, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(4, 4),
        fontsize=8,
    )
    axes.set_yticks(range(len(good)), [row.label for row in good], fontsize=8)
    axes.set_ylim(-0.7, len(good) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds; dots are runs, strokes their mean")
    return figure


def plot_voxels(rows: Sequence[Row], title: str) -> Figure:
    """Draw the seconds of objects over their voxels, or mask pixels, with a straight line."""
    good = _good(rows)
    sized = [(row.counted[0].voxels, row.seconds) for row in good]
    unit = "voxels"
    if any(size is None for size, _ in sized):
        sized = [(row.pixels, row.seconds) for row in good]
        unit = "pixels of the mask (this model has no voxels)"
    sizes, seconds = np.array([pair for pair in sized if pair[0] is not None], float).T
    figure, axes = _figure(3.6, f"Time and size\n{title}")
    axes.plot(sizes, seconds, "o", color=DOT, ms=5, alpha=0.7, mew=0)
    if len(np.unique(sizes)) > 2:
        slope, offset = np.polyfit(sizes, seconds, 1)
        ends = np.array([sizes.min(), sizes.max()])
        label = f"{offset:.3f} s + {slope * 1000:.4f} s a thousand {unit.split()[0]}"
        axes.plot(ends, offset + slope * ends, color="black", lw=1, ls=":", label=label)
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(unit)
    axes.set_ylabel("seconds")
    return figure


def plot_memory(row: Row) -> Figure:
    """Draw the memory in the median run of an object over time, with the stages behind."""
    run = sorted(row.counted, key=lambda run: run.seconds)[len(row.counted) // 2]
    figure, axes = _figure(3.6, f"Memory over time: {row.label}, a run of {run.seconds:.3f} s")
    stages = [span for span in run.spans if len(span.path) == 1]
    colors = stage_colors([span.path[0] for span in stages])
    for span in stages:
        end = span.start + span.seconds
        axes.axvspan(span.start, end, color=colors[span.path[0]], alpha=0.25, lw=0)
    _draw_memory(axes, run)
    handles, labels = axes.get_legend_handles_labels()
    for name in dict.fromkeys(span.path[0] for span in stages):
        handles.append(_patch(colors[name]))
        labels.append(name)
    axes.legend(handles, labels, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_xlim(0, run.seconds)
    axes.set_xlabel("seconds")
    axes.set_ylabel("GiB")
    return figure


def stage_colors(names: Sequence[str]) -> dict[str, Any]:
    """Return a color a stage, the same for the same stages in every figure."""
    import matplotlib

    wheel = [color for color in matplotlib.color_sequences["tab10"] if len(set(color)) > 1]
    known = [name for name in dict.fromkeys(names) if name not in GREYS]
    return {name: wheel[i % len(wheel)] for i, name in enumerate(known)} | GREYS


def _draw_memory(axes: Axes, run: Run) -> None:
    kinds = (
        ("host", "-", "black", "process, on the host"),
        ("allocated", "-", "#b2182b", "tensors on the device"),
        ("reserved", "--", "#b2182b", "PyTorch on the device"),
    )
    highest = 0.0
    for kind, style, color, label in kinds:
        known = [(t, getattr(m, kind)) for t, m in run.samples if getattr(m, kind) is not None]
        if known:
            moments, sizes = np.array(known, float).T
            highest = max(highest, sizes.max() / GIB)
            dots = "." if len(sizes) < 40 else ""
            axes.plot(
                moments, sizes / GIB, style, color=color, lw=1.5, marker=dots, ms=4, label=label
            )
    axes.set_ylim(0, highest * 1.1 or 1)


def _patch(color: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color, alpha=0.25, lw=0)


def _figure(height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure that notebooks show once, as the value of a cell."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    plt.close(figure)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _good(rows: Sequence[Row]) -> list[Row]:
    good = [row for row in rows if row.counted]
    if not good:
        raise InputError(f"there is nothing to draw: none of {len(rows)} objects was measured")
    return good
