"""Tables, comparison and figures of benchmarks, against loops and known answers."""

import io
import json
import math
from dataclasses import replace
from statistics import fmean, median, stdev
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from sam3d_nb.errors import InputError
from sam3d_nb.profiling.probe import Memory
from sam3d_nb.profiling.published import published
from sam3d_nb.profiling.record import Row, Run, SceneRow, as_record, row_of
from sam3d_nb.profiling.results import Results
from sam3d_nb.profiling.timer import Span

GIB = 2**30


def run(seconds: float, load: float = 0.0, *, counted: bool = True, voxels: int = 9000) -> Run:
    """Half of the time after loading in each of two stages, but for 0.1 s between them."""
    half = (seconds - load - 0.1) / 2
    loading = [Span(("load model",), 0.0, load)] if load else []
    stages = [
        Span(("depth",), load, half, half / 2, Memory(2 * GIB, 3 * GIB, GIB)),
        Span(("depth", "step 1"), load, half, half / 2),
        Span(("mesh",), load + half + 0.1, half, half / 4, Memory(GIB, 4 * GIB, GIB)),
    ]
    samples = tuple((t, Memory(GIB, 2 * GIB, GIB)) for t in (0.0, seconds / 2, seconds))
    peak = Memory(2 * GIB, 4 * GIB, GIB)
    return Run(counted, seconds, load, 0.001, peak, (*loading, *stages), samples, voxels)


def rows(seconds: dict[str, list[float]], load: float = 0.0) -> tuple[Row, ...]:
    """One object for each name such as 0_lamp, with one run that does not count."""
    made = []
    for name, times in seconds.items():
        mask, image = name.split("_", 1)
        voxels = 1000 * len(made) + 5000
        runs = [run(99, load, counted=False), *(run(t, load, voxels=voxels) for t in times)]
        made.append(Row(image, int(mask), f"hash of {name}", tuple(runs), pixels=100))
    return tuple(made)


def results(
    made: tuple[Row, ...], scenes: tuple[SceneRow, ...] = (), *, kept: bool = True, active: int = 2
) -> Results:
    configuration = {"active": active, "use_inference_cache": kept}
    hardware = {"cpu": "Z80", "cores": 1, "gpu": "Voodoo"}
    identity = {
        "configuration": configuration,
        "hardware": hardware,
        "model": {"name": "network"},
    }
    return Results({"identity": identity}, made, scenes)


TIMES = {"0_box": [1.0, 1.2], "1_box": [2.0, 2.0], "0_lamp": [0.6, 0.9]}
FAILED = Row("lamp", 1, "x", (run(5.0),), error="no\n luck")


# Tables


def test_stages_and_what_lies_between_add_up_to_the_whole() -> None:
    table = results(rows(TIMES)).by_stage()
    assert list(table.index) == ["depth", "mesh", "between stages", "all"]
    parts = table.drop(index="all")
    assert parts["mean"].sum() == pytest.approx(table.loc["all", "mean"])
    assert parts["share"].sum() == pytest.approx(1)
    assert list(table["n"]) == [6] * 4
    times = [t for several in TIMES.values() for t in several]
    halves = [(t - 0.1) / 2 for t in times]
    assert table.loc["depth", "mean"] == pytest.approx(fmean(halves))
    assert table.loc["depth", "median"] == pytest.approx(median(halves))
    assert table.loc["depth", "p95"] == pytest.approx(np.quantile(halves, 0.95))
    assert table.loc["depth", "device_mean"] == pytest.approx(fmean(halves) / 2)
    assert table.loc["between stages", "mean"] == pytest.approx(0.1)
    assert table.loc["mesh", ["allocated_gib", "reserved_gib", "host_gib"]].tolist() == [1, 4, 1]
    assert table.loc["all", "allocated_gib"] == 2


def test_a_stage_that_comes_twice_in_a_run_counts_as_one() -> None:
    twice = (
        Span(("layout",), 0.0, 0.25, 0.125, Memory(GIB, None, None)),
        Span(("mesh",), 0.25, 0.5),
        Span(("layout",), 0.75, 0.5, 0.25, Memory(3 * GIB, None, None)),
    )
    made = Run(True, 1.5, 0.0, 0.0, Memory(), twice)
    table = results((Row("box", 0, "x", (made, made)),)).by_stage()
    assert list(table.index) == ["layout", "mesh", "between stages", "all"]
    assert table.loc["layout", ["n", "mean", "device_mean"]].tolist() == [2, 0.75, 0.375]
    assert table.loc["layout", "allocated_gib"] == 3


def test_loading_is_the_first_stage_where_every_run_loads() -> None:
    table = results(rows(TIMES, load=0.3), kept=False).by_stage()
    assert table.index[0] == "load model"
    assert table.loc["load model", "mean"] == pytest.approx(0.3)
    assert table.drop(index="all")["share"].sum() == pytest.approx(1)


def test_the_summary_is_the_plain_statistics() -> None:
    found = results((*rows(TIMES), FAILED)).summary(scene_of=4)["value"]
    times = [t for several in TIMES.values() for t in several]
    means = [fmean(several) for several in TIMES.values()]
    spreads = [stdev(several) / fmean(several) for several in TIMES.values()]
    expected = {
        "objects measured": 3,
        "objects failed": 1,
        "counted runs": 6,
        "state": "warm, model kept",
        "mean of the objects": fmean(means),
        "median": median(times),
        "95 % point": np.quantile(times, 0.95),
        "fastest": 0.6,
        "slowest": 2.0,
        "spread between runs of an object": median(spreads),
        "objects an hour": 3600 / fmean(means),
        "scene of 4 objects, estimate": 4 * fmean(means),
        "time that measuring took": 6 * 0.001 / sum(times),
        "peak allocated memory": 2,
        "peak reserved memory": 4,
        "peak host memory": 1,
    }
    assert list(found.index) == list(expected)
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value)), name


def test_without_warm_up_runs_the_state_is_not_warm() -> None:
    made = tuple(replace(row, runs=row.runs[1:]) for row in rows(TIMES))
    assert results(made).summary().loc["state", "value"] == "model kept, without a warm-up"


def test_a_scene_loads_the_model_once() -> None:
    scene = SceneRow("box", 2, run(3.0, 0.4))
    failed = SceneRow("lamp", 1, None, "no luck")
    found = results(rows(TIMES, load=0.3), (scene, failed), kept=False)
    mean = fmean(fmean(t - 0.3 for t in several) for several in TIMES.values())
    assert found.scenes().loc["box", "estimate"] == pytest.approx(0.3 + 2 * mean)
    assert found.scenes().loc["box", "error"] == pytest.approx((0.3 + 2 * mean) / 3 - 1)
    assert math.isnan(found.scenes().loc["lamp", "measured"])
    summary = found.summary()["value"]
    assert summary["scene of 10 objects, estimate"] == pytest.approx(0.3 + 10 * mean)
    assert summary["load of the model, median"] == pytest.approx(0.3)
    assert summary["state"].startswith("cold")
    error = summary["error of the estimate, 1 measured scene"]
    assert error == pytest.approx(abs(found.scenes().loc["box", "error"]))


def test_single_runs_have_no_spread_and_nothing_no_numbers() -> None:
    single = results(rows({"0_box": [1.0]}), active=1).summary()["value"]
    assert math.isnan(single["spread between runs of an object"])
    empty = results(())
    assert list(empty.summary()["value"]) == [0, 0]
    assert list(empty.table().index) == ["mean"]
    assert len(empty.by_stage()) == len(empty.scenes()) == 0


@pytest.mark.parametrize(
    "row", [*rows(TIMES), FAILED, SceneRow("box", 2, run(1.0)), SceneRow("x", 1)]
)
def test_records_keep_everything(row: Row | SceneRow) -> None:

    assert row_of(json.loads(json.dumps(as_record(row)))) == row


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "object"},
        {"kind": "object", "image": "a", "mask": 0, "input_sha256": "", "runs": [{}]},
        {"kind": "scene", "image": "a", "objects": 1, "run": 3},
        {"kind": "car"},
    ],
)
def test_what_is_no_record_raises_one_of_three(record: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        row_of(record)


# Comparison


def test_the_ratio_is_paired() -> None:
    """Objects differ far more than the two benchmarks do, which pairing takes out."""
    generator = np.random.default_rng(0)
    base = {f"{n}_box": [10.0 ** generator.uniform(0, 2)] for n in range(30)}
    slower = {name: [t * generator.normal(1.2, 0.02)] for name, (t,) in base.items()}
    found = results(rows(base), active=1).compare(results(rows(slower), active=1))
    logs = [math.log(slower[name][0] / base[name][0]) for name in base]
    assert found.ratio == pytest.approx(math.exp(fmean(logs)))
    assert found.low < found.ratio < found.high
    assert found.high - found.low < 0.03
    assert len(found.table) == 30
    assert str(found).startswith(f"other / this = {found.ratio:.3f}, 95 % interval ")
    back = results(rows(slower), active=1).compare(results(rows(base), active=1))
    assert back.ratio == pytest.approx(1 / found.ratio)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        noise = {f"{n}_box": [math.exp(generator.normal(0.5, 0.3))] for n in range(25)}
        ones = results(rows({name: [1.0] for name in noise}), active=1)
        found = ones.compare(results(rows(noise), active=1))
        held += found.low <= math.exp(0.5) <= found.high
    assert 49 <= held <= 60


def test_only_the_same_objects_are_pairs() -> None:
    ours = results((*rows(TIMES), FAILED))
    other_files = Row("box", 0, "another hash", rows(TIMES)[0].runs)
    theirs = results((other_files, *rows({"0_lamp": [3.0, 3.0]}), FAILED))
    found = ours.compare(theirs)
    assert list(found.table.index) == ["0_lamp"]
    assert found.ratio == pytest.approx(3.0 / 0.75)
    assert math.isnan(found.low)
    assert str(found) == "other / this = 4.000, 1 object"
    assert "0_lamp" in found._repr_html_()
    with pytest.raises(InputError, match="none was measured in both"):
        ours.compare(results((FAILED,)))


def test_the_published_rows_are_those_that_are_known() -> None:
    table = published()
    assert table["elapsed_time_average"].to_dict() == {"0_kid_box": 45.494, "mean": 37.004}
    assert set(table["hardware"]) == {"A5000"}
    assert table["source"].str.len().min() > 10
    beside = results(rows(TIMES)).with_published()
    own = fmean(fmean(several) for several in TIMES.values())
    assert beside["elapsed_time_average"].tolist() == pytest.approx([37.004, own])
    assert "A5000" in beside.index[0]
    assert beside.index[1] == "network on Voodoo, model kept"


# What is looked at


def test_the_styled_tables_say_all() -> None:
    found = results((*rows(TIMES), FAILED))
    html = found._repr_html_()
    for text in ("0_box", "1_lamp", "no luck", "mean", "run 1", "average", "1.100", "network on"):
        assert text in html, text
    assert "nan" not in html.lower()
    stages = found.style_stages().to_html()
    for text in ("between stages", "all", "depth", "allocated_gib"):
        assert text in stages, text
    assert "nan" not in stages.lower()


def test_names_and_reasons_are_text_and_not_html() -> None:
    failed = Row("lamp", 1, "x", error="<script>bad()")
    found = results((*rows({"0_<b>a": [1.0], "1_a": [2.0]}), failed), active=1)
    for html in (found._repr_html_(), found.compare(found)._repr_html_()):
        assert "&lt;b&gt;a" in html
        assert "<b>a" not in html
        assert "<script" not in html


@pytest.mark.parametrize("made", [rows(TIMES), rows(TIMES, load=0.3), rows({"0_box": [1.0]})])
@pytest.mark.parametrize("kind", ["stages", "objects", "voxels", "memory"])
def test_figures_are_drawn(made: tuple[Row, ...], kind: str) -> None:
    figure = getattr(results((*made, FAILED)), f"plot_{kind}")()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=50)
    pixels = matplotlib.image.imread(io.BytesIO(content.getvalue()))[..., :3]
    assert (pixels.min(2) < 0.5).mean() > 0.005, "blank"


def test_stages_keep_their_colors() -> None:
    colors = [
        {
            label.get_text(): patch.get_facecolor()
            for label, patch in zip(axes.get_yticklabels(), axes.patches, strict=True)
        }
        for (axes,) in (results(rows(TIMES, load)).plot_stages().axes for load in (0.0, 0.3))
    ]
    assert len(set(colors[1].values())) == 4
    assert {name: colors[1][name] for name in colors[0]} == colors[0]


def test_figures_show_the_numbers() -> None:
    found = results(rows(TIMES))
    (axes,) = found.plot_stages().axes
    assert [patch.get_width() for patch in axes.patches] == pytest.approx(
        found.by_stage().drop(index="all")["mean"].tolist()
    )
    (axes,) = found.plot_objects().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0_lamp", "0_box", "1_box"]
    (axes,) = found.plot_voxels().axes
    assert axes.get_xlabel() == "voxels"
    assert axes.lines[0].get_xydata().tolist() == [[5000, 1.1], [6000, 2.0], [7000, 0.75]]
    (axes,) = found.plot_memory("0_lamp").axes
    assert "0_lamp" in axes.get_title(loc="left")
    assert axes.lines[0].get_ydata().tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="no object 0_chair was measured"):
        found.plot_memory("0_chair")
