"""Colors, categories, reports read back, two models side by side, objects in parallel."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scenes import SIZE, K, write_scene
from shapes import box, icosphere, mesh

from sam3d_nb import cli
from sam3d_nb.errors import InputError
from sam3d_nb.evaluate import evaluate_folder
from sam3d_nb.evaluation.categories import OTHER, category, category_of_models
from sam3d_nb.evaluation.color import BEST, color_psnr, point_colors, surface_color_psnr
from sam3d_nb.evaluation.outline import outline
from sam3d_nb.evaluation.report import COLUMNS, METRICS, Report
from sam3d_nb.evaluation.surface import sample_places, surface_points
from sam3d_nb.evaluation.versus import Comparison, side_by_side
from sam3d_nb.examples import load_example
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear, to_srgb


def plain(colors: np.ndarray, photo: np.ndarray) -> float:
    return -10 * math.log10(np.mean((colors - photo) ** 2))


# Color in the photo's view


def painted(color: tuple[float, float, float], center: tuple[float, float, float]) -> Mesh:
    shape = mesh(box((0.4, 0.2, 0.1)), center)
    return Mesh(shape.vertices, shape.faces, np.tile(np.array(color), (len(shape.vertices), 1)))


def test_color_in_the_photo_is_compared_without_any_light() -> None:
    orange = np.array([230, 130, 40])
    front = painted(tuple(to_linear(orange / 255)), (0, 0, 1.05))
    mask = outline(front, K, SIZE, SIZE)
    photo = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    photo[mask] = orange
    assert color_psnr(front, K, photo, mask) == BEST
    photo[mask] = orange - 20
    assert color_psnr(front, K, photo, mask) == pytest.approx(
        plain(orange / 255, (orange - 20) / 255), abs=0.01
    )
    photo[~mask] = 255
    assert color_psnr(front, K, photo, mask) < BEST, "what is outside the mask does not count"
    assert color_psnr(front, K, photo, mask) == pytest.approx(20 * math.log10(255 / 20), abs=0.01)


def test_what_is_missing_counts_as_grey() -> None:
    orange = np.array([230, 130, 40])
    front = painted(tuple(to_linear(orange / 255)), (0, 0, 1.05))
    mask = outline(front, K, SIZE, SIZE)
    photo = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    photo[mask] = orange
    grey = float(to_srgb(np.array(0.5)))
    nothing = painted((1, 0, 0), (5, 0, 1))
    assert color_psnr(nothing, K, photo, mask) == pytest.approx(plain(grey, orange / 255))
    bare = Mesh(front.vertices, front.faces)
    assert color_psnr(bare, K, photo, mask) == pytest.approx(plain(grey, orange / 255), abs=1e-4)
    wider = mask.copy()
    wider[:, : SIZE // 2] |= mask[:, : SIZE // 2]
    wider[40:49, 34:94] = True  # a strip that the mesh does not reach
    photo[wider] = orange
    share = (wider & ~mask).sum() / wider.sum()
    missing = np.mean((grey - orange / 255) ** 2) * share
    assert color_psnr(front, K, photo, wider) == pytest.approx(-10 * math.log10(missing), abs=0.01)


# Color all around


def test_colors_of_points_come_from_vertices_or_texture() -> None:
    generator = np.random.default_rng(0)
    shape = mesh(box((1.0, 0.5, 0.5)))
    colors = generator.random((len(shape.vertices), 3)).astype(np.float32)
    colored = Mesh(shape.vertices, shape.faces, colors)
    face, weights = sample_places(colored, 500, 0)
    found = point_colors(colored, face, weights)
    assert found is not None
    for place in (0, 77, 499):
        corners = colored.faces[face[place]]
        linear = sum(w * colors[c] for w, c in zip(weights[place], corners, strict=True))
        np.testing.assert_allclose(found[place], to_srgb(np.asarray(linear)), atol=1e-6)
    halves = np.zeros((4, 8, 3), dtype=np.uint8)
    halves[:, 4:] = 255
    uv = np.where(shape.vertices[:, :1] > 0, 0.75, 0.25) * np.ones((1, 2))
    textured = Mesh(shape.vertices, shape.faces, None, uv, halves)
    found = point_colors(textured, face, weights)
    points = surface_points(textured, face, weights)
    assert found is not None
    np.testing.assert_allclose(found[points[:, 0] > 0.4], 1, atol=1e-6)
    np.testing.assert_allclose(found[points[:, 0] < -0.4], 0, atol=1e-6)
    assert point_colors(shape, face, weights) is None


def test_surface_colors_are_the_plain_loops() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random((40, 3)), generator.random((50, 3))
    colors, others = generator.random((40, 3)), generator.random((50, 3))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    forward = np.mean([(colors[i] - others[distance[i].argmin()]) ** 2 for i in range(40)])
    backward = np.mean([(others[j] - colors[distance[:, j].argmin()]) ** 2 for j in range(50)])
    expected = -10 * math.log10((forward + backward) / 2)
    assert surface_color_psnr(a, colors, b, others) == pytest.approx(expected)
    assert surface_color_psnr(a, colors, a, colors) == BEST


# Categories


def test_every_household_model_has_one_category() -> None:
    models = category_of_models()
    assert models["winchesterSofa"] == "seating"
    assert len(set(models.values())) == 8
    path = Path(cli.__file__).parent / "evaluation" / "categories.json"
    listed = [model for models in json.loads(path.read_text()).values() for model in models]
    assert len(listed) == len(set(listed)) == 175


def test_the_category_is_what_the_example_says_else_by_model(tmp_path: Path) -> None:
    example = write_scene(tmp_path / "scene", [mesh(icosphere(2, 0.1), (0, 0, 1))])
    assert category(example, 0) == OTHER
    example.info["objects"][0]["model"] = "teddyBear"
    assert category(example, 0) == "toys and outdoors"
    example.info["objects"][0]["category"] = "bears"
    assert category(example, 0) == "bears"
    assert category(load_example("teddy_bear"), 0) == "toys and outdoors"


# Reports


def report_of(values: dict[str, float], model: str, metric: str = "f_score") -> Report:
    """Return a report of objects in one example each, with one metric."""
    rows = []
    for name, value in values.items():
        row: dict = dict.fromkeys(METRICS, math.nan) | {metric: value}
        kind = "even" if len(rows) % 2 == 0 else "odd"
        rows.append(
            row | {"example": name, "index": 0, "name": name, "category": kind, "error": ""}
        )
    return Report(pd.DataFrame(rows, columns=COLUMNS), model, "1", "2026-01-01", 0, 10_000)


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = report_of({"a": 0.5, "b": 0.7, "c": math.nan}, "one")
    path = report.save(tmp_path / "report.json", extra={"more": {"x": 1}})
    back = Report.load(path)
    pd.testing.assert_frame_equal(back.rows, report.rows)
    assert (back.model, back.jobs, back.points) == ("one", 1, 10_000)
    content = json.loads(path.read_text())
    assert content["more"] == {"x": 1}
    assert content["categories"]["odd"]["f_score"]["mean"] == 0.7
    for row in content["rows"]:
        del row["category"], row["color_psnr"]
    path.write_text(json.dumps(content))
    older = Report.load(path)
    assert (older.rows["category"] == OTHER).all()
    assert older.rows["color_psnr"].isna().all()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 3}', '{"rows": [{"a": 1}]}', "\x00"])
def test_what_is_no_report_gets_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=r"bad\.json is no report"):
        Report.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot be read"):
        Report.load(tmp_path / "missing.json")


def test_means_of_categories() -> None:
    report = report_of({"a": 0.2, "b": 0.9, "c": 0.4}, "one")
    found = report.by_category()
    assert list(found) == ["even", "odd"]
    assert found["even"].loc["f_score", "mean"] == pytest.approx(0.3)
    assert found["odd"].loc["f_score", "n"] == 1
    assert "| even | 2 | 0.300 |" in report.markdown()


# Side by side


def test_pairs_of_the_same_objects() -> None:
    generator = np.random.default_rng(0)
    base = {f"o{i}": float(v) for i, v in enumerate(generator.uniform(0.2, 0.6, 80))}
    better = {name: v * 1.5 + float(generator.normal(0, 0.02)) for name, v in base.items()}
    beside = side_by_side(report_of(better | {"alone": 0.1}, "tiny"), report_of(base, "silhouette"))
    row = beside.table.loc["f_score"]
    assert row["n"] == 80
    assert beside.unpaired == 1
    assert row["difference"] == pytest.approx(row["mean"] - row["baseline"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["ratio"] == pytest.approx(1.5, abs=0.02)
    assert 1.45 < row["ratio_low"] < row["ratio"] < row["ratio_high"] < 1.55
    spread = np.std([better[n] - base[n] for n in base]) / math.sqrt(80)
    width = row["difference_high"] - row["difference_low"]
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert row["better"] == 1
    assert math.isnan(beside.table.loc["chamfer", "ratio"])
    assert "| F-score@0.05, placed |" in beside.markdown()
    assert "1 objects are in one report only" in beside.markdown()
    json.dumps(beside.to_dict(), allow_nan=False)


def test_point_maps_that_only_one_model_was_given_are_told() -> None:
    given = report_of({"a": 0.9, "b": 0.8}, "tiny")
    blind = replace(report_of({"a": 0.6, "b": 0.7}, "silhouette"), use_pointmaps=False)
    assert side_by_side(given, given).notes == side_by_side(blind, blind).notes == ()
    first, second = side_by_side(given, blind), side_by_side(blind, given)
    (note,) = first.notes
    assert "`tiny` was given point maps and `silhouette`, the baseline, was not" in note
    assert first.markdown().endswith(note)
    assert first.to_dict()["notes"] == [note]
    assert "`tiny`, the baseline, was given point maps and `silhouette` was not" in second.notes[0]


def test_smaller_is_better_where_it_is_an_error() -> None:
    def better(metric: str) -> float:
        first = report_of({"a": 1.0, "b": 2.0, "c": 3.0}, "x", metric)
        second = report_of({"a": 2.0, "b": 2.0, "c": math.nan}, "y", metric)
        found: Comparison = side_by_side(first, second)
        return float(found.table.loc[metric, "better"])

    assert better("chamfer") == 0.75
    assert better("f_score") == 0.25
    assert math.isnan(better("scale_ratio"))


def test_reports_of_other_objects_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="no object in common"):
        side_by_side(report_of({"a": 1.0}, "x"), report_of({"b": 1.0}, "y"))


# In parallel


def test_processes_give_the_same_numbers(tmp_path: Path) -> None:
    for name, truth in (("one", True), ("two", False)):
        thing = mesh(icosphere(2, 0.2), (0, 0, 1))
        write_scene(tmp_path / "many" / name, [thing], truth=truth)
    Image.new("L", (SIZE, SIZE)).save(tmp_path / "many" / "two" / "7.png")
    seen: list[tuple[int, int, str]] = []
    alone = evaluate_folder(tmp_path / "many", "silhouette")
    both = evaluate_folder(tmp_path / "many", "silhouette", lambda *p: seen.append(p), jobs=2)
    pd.testing.assert_frame_equal(
        both.rows.drop(columns="seconds"), alone.rows.drop(columns="seconds")
    )
    assert "mask 7 is empty" in both.rows["error"].iloc[2]
    assert [p[:2] for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert any("2 objects at once" in note for note in both.notes())
    with pytest.raises(InputError, match="0 jobs"):
        evaluate_folder(tmp_path / "many", "silhouette", jobs=0)


def test_the_command_sets_an_earlier_report_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(tmp_path / "scene", [mesh(icosphere(2, 0.2), (0, 0, 1))], truth=False)
    arguments = ["evaluate", f"--examples={tmp_path / 'scene'}", "--model=silhouette"]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert cli.main([*arguments, f"--output={first}"]) == 0
    assert cli.main([*arguments, f"--output={second}", f"--compare={first}"]) == 0
    assert "`silhouette` beside `silhouette`" in capsys.readouterr().out
    row = json.loads(second.read_text())["comparison"]["metrics"]["silhouette_iou"]
    assert row["difference"] == 0
    assert row["ratio"] == 1
    assert json.loads(second.read_text())["comparison"]["notes"] == []
    assert cli.main([*arguments, f"--compare={first}", "--ignore_pointmaps"]) == 0
    assert "No fair comparison: `silhouette`, the baseline, was" in capsys.readouterr().out
    assert cli.main([*arguments, f"--compare={tmp_path / 'missing.json'}"]) == 3
    assert "missing.json" in capsys.readouterr().err
