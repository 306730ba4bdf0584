"""Metrics against loops, formulas and known answers; the evaluation of folders; its report."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scenes import SIZE, K, write_scene
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from shapes import box, icosphere, mesh, winding_numbers

from sam3d_nb import cli
from sam3d_nb.errors import InputError, OutputError, ReconstructionError
from sam3d_nb.evaluate import compare, evaluate, evaluate_folder, measure, measure_shape
from sam3d_nb.evaluation.align import Similarity, align, fit
from sam3d_nb.evaluation.outline import outline, silhouette_iou
from sam3d_nb.evaluation.report import METRICS, Report, mean_interval
from sam3d_nb.evaluation.surface import compare_surfaces, sample_surface
from sam3d_nb.evaluation.volume import occupancy, volume_iou
from sam3d_nb.events import MeshEvent
from sam3d_nb.examples import Example, load_example
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.request import Request

SHAPE = ("f_score", "chamfer", "volume_iou")


def bracket() -> Mesh:
    """Two boxes of different size that touch nowhere and have no symmetry."""
    parts = [
        mesh(box((0.5, 0.2, 0.3)), (0.1, 0.05, 0)),
        mesh(box((0.1, 0.7, 0.1)), (-0.3, 0.2, 0.05)),
        mesh(icosphere(2, 0.12), (0.3, 0.35, 0.1)),
    ]
    return joined(parts)


def joined(parts: list[Mesh]) -> Mesh:
    offsets = np.cumsum([0, *(len(p.vertices) for p in parts)])
    faces = [p.faces + n for p, n in zip(parts, offsets, strict=False)]
    return Mesh(np.concatenate([p.vertices for p in parts]), np.concatenate(faces))


def flipped(part: Mesh) -> Mesh:
    return Mesh(part.vertices, part.faces[:, ::-1].copy())


# Surfaces


def test_surface_distances_are_the_plain_loops() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((80, 3)) * 0.3, generator.random((60, 3)) * 0.3
    distances = cdist(a, b)
    found = compare_surfaces(a, b)
    precision = np.mean([min(row) <= 0.05 for row in distances])
    recall = np.mean([min(column) <= 0.05 for column in distances.T])
    assert 0 < precision < 1
    assert found.f_score == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.chamfer == pytest.approx((distances.min(1).mean() + distances.min(0).mean()) / 2)


def test_points_lie_on_the_surface_in_proportion_to_area() -> None:
    shape = mesh(box((2.0, 1.0, 0.5)))
    points = sample_surface(shape, 30_000, seed=3)
    sides = np.abs(points) - np.array([1.0, 0.5, 0.25])
    assert np.abs(sides.max(1)).max() < 1e-6
    areas = np.array([1.0 * 0.5, 2.0 * 0.5, 2.0 * 1.0])
    shares = np.bincount(sides.argmax(1), minlength=3) / len(points)
    np.testing.assert_allclose(shares, areas / areas.sum(), atol=0.01)
    assert np.abs(points.mean(0)).max() < 0.02
    assert np.array_equal(points, sample_surface(shape, 30_000, seed=3))
    assert not np.array_equal(points, sample_surface(shape, 30_000, seed=4))


def test_a_mesh_without_area_gets_a_sentence() -> None:
    line = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match="1 faces has no area"):
        sample_surface(line, 10, 0)
    with pytest.raises(InputError, match="0 faces has no area"):
        sample_surface(Mesh(np.zeros((0, 3)), np.zeros((0, 3))), 10, 0)


# Volumes


def cells(low: np.ndarray, high: np.ndarray, resolution: int) -> np.ndarray:
    step = (np.arange(resolution) + 0.5) / resolution
    grid = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1)
    return low + grid * (high - low)


@pytest.mark.parametrize("name", ["bracket", "tilted", "hollow", "overlapping"])
def test_inside_is_where_the_winding_number_says(name: str) -> None:
    turn = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
    shape = {
        "bracket": bracket(),
        "tilted": bracket().with_vertices(bracket().vertices @ turn.T),
        "hollow": joined([mesh(icosphere(2, 0.5)), flipped(mesh(icosphere(2, 0.3)))]),
        "overlapping": joined(
            [mesh(box((0.6, 0.2, 0.2))), mesh(box((0.2, 0.6, 0.3)), (0.1, 0, 0))]
        ),
    }[name]
    low, high = shape.bounds[0] - 0.03, shape.bounds[1] + 0.01
    expected = winding_numbers(shape, cells(low, high, 20).reshape(-1, 3)) > 0.5
    assert 0.02 < expected.mean() < 0.9
    assert np.array_equal(occupancy(shape, low, high, 20).ravel(), expected)


def test_parts_that_face_both_ways_are_filled_all_the_same() -> None:
    whole = bracket()
    low, high = whole.bounds[0] - 0.02, whole.bounds[1] + 0.02
    expected = occupancy(whole, low, high, 24)
    faces = whole.faces.copy()
    faces[::3] = faces[::3, ::-1]
    assert np.array_equal(occupancy(Mesh(whole.vertices, faces), low, high, 24), expected)
    double = Mesh(whole.vertices, np.concatenate([whole.faces, whole.faces[:, ::-1]]))
    assert np.array_equal(occupancy(double, low, high, 24), expected)


def test_a_closed_part_that_overlaps_itself_is_filled_beside_an_open_one() -> None:
    """Two boxes that share corners, so that they are one part, and a lidless box beside them."""
    outer, inner = (
        mesh(box((0.4, 0.4, 0.4)), (0, 0, 0)),
        mesh(box((0.2, 0.2, 0.2)), (0.1, 0.1, 0.1)),
    )
    solid = mesh(box((0.3, 0.3, 0.3)), (0.6, 0, 0))
    lid = (solid.vertices[solid.faces][..., 1] > 0.1).all(1)
    whole = joined([outer, inner, solid])
    assert len(np.unique(whole.vertices, axis=0)) == 3 * 8 - 1
    low, high = whole.bounds
    expected = occupancy(joined([outer, solid]), low, high, 40)
    opened = joined([outer, inner, Mesh(solid.vertices, solid.faces[~lid])])
    assert np.array_equal(occupancy(opened, low, high, 40), expected)


def test_boxes_that_share_a_wall_are_both_full() -> None:
    left, right = mesh(box((1, 1, 1))), mesh(box((1, 1, 1)), (1, 0, 0))
    right = right.with_vertices(right.vertices.round(3))
    shelf = Mesh(
        left.vertices[:, [1, 0, 2]], left.faces[:8]
    )  # open, beside them: no global winding
    whole = joined([left, right, shelf.with_vertices(shelf.vertices + np.float32([0, 0, 1.5]))])
    inside = occupancy(whole, np.array([-0.5, -0.5, -0.5]), np.array([1.5, 0.5, 0.5]), 16)
    assert inside.all()


def test_holes_do_not_spill() -> None:
    """A box without its lid, a pipe without both ends, and a box in 40 scattered pieces."""
    solid = mesh(box((1.0, 0.6, 0.4)))
    low, high = solid.bounds[0] - 0.05, solid.bounds[1] + 0.05
    expected = occupancy(solid, low, high, 32)
    normals = np.cross(
        solid.vertices[solid.faces[:, 1]] - solid.vertices[solid.faces[:, 0]],
        solid.vertices[solid.faces[:, 2]] - solid.vertices[solid.faces[:, 0]],
    )
    lid, ends = normals[:, 1] > 1e-6, np.abs(normals[:, 0]) > 1e-6
    for missing in (lid, ends):
        opened = Mesh(solid.vertices, solid.faces[~missing])
        assert np.array_equal(occupancy(opened, low, high, 32), expected)
    ball = mesh(icosphere(3, 0.5))
    torn = Mesh(ball.vertices, np.delete(ball.faces, np.arange(0, len(ball.faces), 40), axis=0))
    assert volume_iou(torn, ball, 32) > 0.97


def test_a_sheet_has_no_volume() -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0.5], [1, 1, 0.6], [0, 1, 0.1]])
    sheet = Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]))
    assert math.isnan(volume_iou(mesh(box((1, 1, 1))), sheet))
    assert volume_iou(sheet, mesh(box((1, 1, 1)))) == 0


def test_volume_iou_of_known_solids() -> None:
    ball = mesh(icosphere(4, 0.5))
    assert volume_iou(ball, ball) == 1
    assert volume_iou(mesh(icosphere(4, 0.4)), ball) == pytest.approx(0.512, abs=0.01)
    assert volume_iou(ball, mesh(icosphere(4, 0.4))) == pytest.approx(0.512, abs=0.01)
    shifted = mesh(box((1, 1, 1)), (0.25, 0, 0))
    assert volume_iou(shifted, mesh(box((1, 1, 1)))) == pytest.approx(0.75 / 1.25, abs=0.02)
    assert volume_iou(mesh(box((1, 1, 1)), (3, 0, 0)), mesh(box((1, 1, 1)))) == 0


# Alignment


def test_fit_recovers_a_similarity_exactly() -> None:
    generator = np.random.default_rng(1)
    points = generator.normal(size=(50, 3))
    rotation = Rotation.random(rng=generator).as_matrix()
    found = fit(points, 0.7 * points @ rotation.T + [1, 2, 3])
    assert found.scale == pytest.approx(0.7)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, [1, 2, 3], atol=1e-9)
    np.testing.assert_allclose(found.undo(found.apply(points)), points, atol=1e-9)
    mirrored = fit(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_a_known_transform_of_an_object_without_symmetry_is_recovered(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = bracket()
    true = Similarity(
        float(generator.uniform(0.5, 2)),
        Rotation.random(rng=generator).as_matrix(),
        generator.normal(size=3),
    )
    source, target = sample_surface(shape, 10_000, 1), sample_surface(shape, 10_000, 2)
    found = align(source, true.apply(target))
    between = Rotation.from_matrix(found.rotation @ true.rotation.T).magnitude()
    assert np.degrees(between) < 1
    assert found.scale == pytest.approx(true.scale, rel=0.01)
    np.testing.assert_allclose(found.apply(source), true.apply(source), atol=0.02 * true.scale)


def test_a_symmetric_object_is_turned_as_little_as_possible() -> None:
    cube = mesh(box((1, 1, 1)))
    turn = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    source = sample_surface(cube, 5000, 1) @ turn.T
    assert align(source, sample_surface(cube, 5000, 2)).degrees == pytest.approx(10, abs=1.5)
    ball = mesh(icosphere(3, 0.5))
    lying = sample_surface(ball, 5000, 1) @ Rotation.from_euler("x", 80, degrees=True).as_matrix().T
    assert align(lying, sample_surface(ball, 5000, 2)).degrees < 5


def test_alignment_never_makes_it_worse() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.random((300, 3)), generator.random((300, 3)) * [3, 1, 0.2]
    before, after = compare_surfaces(a, b), compare_surfaces(align(a, b).apply(a), b)
    assert after.chamfer <= before.chamfer * 1.02


# Shape and layout


def test_the_truth_itself_is_perfect() -> None:
    true = mesh((bracket().vertices * 0.4, bracket().faces), (0.1, 0, 2))
    found = measure_shape(true, true)
    for name in SHAPE:
        assert found[name] == pytest.approx(0 if name == "chamfer" else 1, abs=0.015)
        assert found[f"aligned_{name}"] == pytest.approx(found[name], abs=0.02)
    assert found["volume_iou"] == 1
    assert found["f_score"] == 1
    assert found["rotation_error"] < 1
    assert found["translation_error"] < 0.01
    assert found["scale_ratio"] == pytest.approx(1, abs=0.01)


def test_layout_errors_are_told_apart_from_shape() -> None:
    shape = bracket()
    true = mesh((shape.vertices * 0.5, shape.faces), (0, 0, 3))
    side = float(np.ptp(true.bounds, axis=0).max())
    center = true.bounds.mean(0)
    turn = Rotation.from_euler("y", 25, degrees=True).as_matrix()
    placed = (true.vertices - center) @ turn.T * 1.2 + center + np.array([0, 0, 0.4 * side])
    found = measure_shape(true.with_vertices(placed), true)
    assert found["rotation_error"] == pytest.approx(25, abs=1)
    assert found["scale_ratio"] == pytest.approx(1.2, rel=0.01)
    assert found["scale_error"] == pytest.approx(math.log(1.2), abs=0.01)
    box_center = true.with_vertices(placed).bounds.mean(0)
    back = (box_center - center - [0, 0, 0.4 * side]) @ turn / 1.2 + center
    moved = float(np.linalg.norm(back - box_center))
    assert moved == pytest.approx(0.4 * side, rel=0.2)
    assert found["translation_error"] == pytest.approx(moved / side, abs=0.02)
    assert found["distance_error"] == pytest.approx(moved / np.linalg.norm(center), abs=0.01)
    assert found["f_score"] < 0.7
    assert found["aligned_f_score"] == pytest.approx(1, abs=0.01)
    assert found["aligned_volume_iou"] > 0.9


# The photo's view


def test_silhouette_of_a_box_seen_frontally() -> None:
    front = mesh(box((0.4, 0.2, 0.1)), (0, 0, 1.05))
    expected = np.zeros((SIZE, SIZE), dtype=bool)
    expected[49:79, 34:94] = True  # 0.4 x 0.2 at distance 1, focal length 150 pixels: 60 x 30
    assert np.array_equal(outline(front, K, SIZE, SIZE), expected)
    assert silhouette_iou(front, K, expected) == 1
    half = expected.copy()
    half[:, 64:] = False
    assert silhouette_iou(front, K, half) == pytest.approx(0.5)
    assert silhouette_iou(front, K, half, [expected & ~half]) == 1  # the other half is hidden
    assert silhouette_iou(front, K, expected, [np.ones_like(expected)]) == 1


# Folders


class Oracle(Model):
    """Knows the truth: gives the mesh whose outline is the mask."""

    name: ClassVar[str] = "oracle"
    version: ClassVar[str] = "7"

    def __init__(self, example: Example) -> None:
        self.meshes = {i: example.true_mesh(i) for i in example.masks}
        self.masks = example.masks

    def run(self, request: Request) -> Run:
        index = next(i for i, mask in self.masks.items() if np.array_equal(mask, request.mask))
        true = self.meshes[index]
        if true is None:
            raise ReconstructionError("nothing came out; try another seed")
        pose = Pose((0, 1, 0, 0), tuple(true.bounds.mean(0).tolist()), (0.5, 0.5, 0.5))
        yield MeshEvent(fraction=1.0)
        return Reconstruction(true.with_vertices(pose.inverse_apply(true.vertices)), pose)


@pytest.fixture
def scene(tmp_path: Path) -> Example:
    things = [
        mesh((bracket().vertices * 0.5, bracket().faces), (-0.2, 0, 1.6)),
        mesh(icosphere(3, 0.2), (0.15, 0.1, 1.2)),
    ]
    return write_scene(tmp_path / "many" / "scene", things)


def test_a_folder_is_evaluated_object_by_object(scene: Example, tmp_path: Path) -> None:
    write_scene(tmp_path / "many" / "blind", [mesh(icosphere(2, 0.2), (0, 0, 1))], truth=False)
    seen: list[tuple[int, int, str]] = []
    report = evaluate_folder(
        tmp_path / "many", "silhouette", lambda *progress: seen.append(progress)
    )
    table = report.table()
    assert list(table.index) == [("blind", 0), ("scene", 0), ("scene", 1)]
    assert [p[:2] for p in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert seen[1][2] == "scene/0"
    assert table.loc[("scene", 1), "name"] == "thing 1"
    assert table.loc[("scene", 1), "aligned_f_score"] > 0.5
    blind = table.loc[("blind", 0)]
    told = ("silhouette_iou", "color_psnr", "seconds")
    assert blind[[m for m in METRICS if m not in told]].isna().all()
    assert blind["silhouette_iou"] > 0.9
    assert blind["color_psnr"] > 20
    assert report.summary().loc["chamfer", "n"] == 2
    assert report.summary().loc["silhouette_iou", "n"] == 3
    assert any("1 of 3 objects have no ground truth" in note for note in report.notes())


def test_a_perfect_model_scores_perfectly(scene: Example) -> None:
    report = evaluate([scene], Oracle(scene))
    summary = report.summary()
    assert summary.loc["f_score", "mean"] == 1
    assert summary.loc["volume_iou", "mean"] > 0.99
    assert summary.loc["silhouette_iou", "mean"] == 1
    assert summary.loc["chamfer", "mean"] < 0.015
    assert report.model == "oracle"
    single = compare(Oracle(scene).reconstruct(scene, 1), scene)
    assert isinstance(single, pd.Series)
    assert single[METRICS["f_score"]] == 1


def test_point_maps_can_be_kept_from_the_model(
    scene: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Request] = []

    class Watched(Oracle):
        def run(self, request: Request) -> Run:
            given.append(request)
            return super().run(request)

    points = np.ones((*scene.image.shape[:2], 3), dtype=np.float32)
    known = replace(scene, pointmap=points, intrinsics=K)
    with_it = evaluate([known], Watched(scene))
    without = evaluate([known], Watched(scene), use_pointmaps=False)
    assert [request.pointmap is None for request in given] == [False, False, True, True]
    assert with_it.use_pointmaps
    assert not any("point maps" in note for note in with_it.notes())
    assert not Report.load(without.save(tmp_path / "report.json")).use_pointmaps
    assert any("no point maps were given" in note for note in without.notes())
    folder = tmp_path / "many" / "scene"
    command = ["evaluate", f"--examples={folder}", "--model=silhouette", "--ignore_pointmaps"]
    assert cli.main(command) == 0
    assert "no point maps were given" in capsys.readouterr().out


def test_a_failure_is_told_and_in_no_mean(scene: Example) -> None:
    model = Oracle(scene)
    model.meshes[0] = None
    report = evaluate([scene], model)
    assert "nothing came out" in report.table().loc[("scene", 0), "error"]
    assert report.summary().loc["f_score", "n"] == 1
    assert report.notes() == [
        "scene/0 failed and is in no mean: nothing came out; try another seed"
    ]


@pytest.mark.parametrize("content", [b"no picture", None])
def test_a_bad_mask_spoils_its_own_row_only(scene: Example, content: bytes | None) -> None:
    model = Oracle(scene)
    if content is None:
        Image.new("L", (10, 10), 255).save(scene.folder / "1.png")
    else:
        (scene.folder / "1.png").write_bytes(content)
    table = evaluate([load_example(scene.folder)], model).table()
    assert table.loc[("scene", 0), "error"] == ""
    assert table.loc[("scene", 0), "f_score"] == 1
    assert "1" in table.loc[("scene", 1), "error"]
    assert math.isnan(table.loc[("scene", 1), "f_score"])


def test_the_silhouette_is_seen_by_the_camera_of_the_pose(scene: Example) -> None:
    result = Oracle(scene).reconstruct(scene, 1)
    half = K.copy()
    half[0, 0] = half[1, 1] = K[0, 0] / 2
    wider = replace(result, intrinsics=half)
    assert measure(replace(result, intrinsics=None), scene, 1)["silhouette_iou"] == 1
    assert measure(wider, scene, 1)["silhouette_iou"] < 0.5


def test_report_as_json_and_markdown(scene: Example, tmp_path: Path) -> None:
    report = evaluate([scene], Oracle(scene))
    path = report.save(tmp_path / "out" / "report.json")
    content = json.loads(path.read_text())
    assert content["model"] == "oracle"
    assert content["model_version"] == "7"
    assert content["n"] == 2
    assert content["points"] == 10_000
    assert content["hardware"]["cores"] > 0
    assert content["versions"]["torch"].startswith("2.13")
    assert content["rows"][1]["name"] == "thing 1"
    assert content["summary"]["f_score"]["mean"] == 1
    with pytest.raises(OutputError, match="exists"):
        report.save(path)
    report.save(path, overwrite=True)
    text = report.markdown()
    assert "Model `oracle` 7, 2 objects" in text
    assert "| F-score@0.05, placed | 1.000 | 1.000 to 1.000 | 2 |" in text
    assert "| scene | 1 thing 1 | 1.000 |" in text


def test_not_measured_is_null_in_json(tmp_path: Path) -> None:
    example = write_scene(tmp_path / "blind", [mesh(icosphere(2, 0.2), (0, 0, 1))], truth=False)
    report = evaluate_folder(example.folder, "silhouette")
    content = json.loads(report.save(tmp_path / "report.json").read_text())
    assert content["rows"][0]["f_score"] is None
    assert content["summary"]["f_score"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_intervals() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(5, 1, 100)
    mean, low, high, count = mean_interval(np.append(values, np.nan))
    assert (mean, count) == (pytest.approx(values.mean()), 100)
    error = values.std() / 10
    assert low == pytest.approx(mean - 1.96 * error, abs=0.03)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.03)
    assert mean_interval(np.append(values, np.nan)) == (mean, low, high, count)
    assert mean_interval(np.array([2.0]))[::3] == (2.0, 1)
    assert math.isnan(mean_interval(np.array([2.0]))[1])
    assert math.isnan(mean_interval(np.array([np.nan]))[0])


def test_a_name_means_what_it_means_to_load_example(
    tmp_path: Path, scene: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(
        "sam3d_nb.evaluate.evaluate", lambda paths, model, **_: asked.append(list(paths))
    )
    monkeypatch.setattr("sam3d_nb.evaluate.load_model", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    evaluate_folder("coffee")
    (tmp_path / "coffee").write_text("a file, and no example")
    evaluate_folder("coffee")
    (tmp_path / "kitchen").mkdir()
    evaluate_folder("kitchen")
    monkeypatch.setenv("HOME", str(scene.folder.parent))
    evaluate_folder(f"~/{scene.name}")
    assert asked == [["coffee"], ["coffee"], ["kitchen"], [f"~/{scene.name}"]]
    with pytest.raises(InputError):
        load_example("coffee")  # the file
    with pytest.raises(InputError, match="holds no photo"):
        load_example("kitchen")
    assert load_example(f"~/{scene.name}").name == scene.name


def test_bad_folders_get_a_sentence(tmp_path: Path, scene: Example) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        evaluate_folder(tmp_path / "missing", "silhouette")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photo"):
        evaluate_folder(tmp_path / "empty", "silhouette")
    nameless = Oracle(scene).reconstruct(scene.image, scene.masks[0])
    assert compare(nameless, scene).equals(compare(nameless, scene, 0)), "known by its pixels"
    nameless = replace(nameless, provenance=replace(nameless.provenance, mask_sha256=""))
    with pytest.raises(InputError, match="does not know its mask"):
        compare(nameless, scene)
    (scene.folder / "0.png").unlink()
    (scene.folder / "1.png").unlink()
    with pytest.raises(InputError, match="1 examples and no mask"):
        evaluate([load_example(scene.folder)], Oracle(scene))
    with pytest.raises(InputError, match="no model"):
        evaluate_folder(scene.folder, "nonesuch")
