"""Layout refinement: poses that are off come back, on shipped examples and on plain scenes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from placed import disturbed, offset, true_object
from scenes import SIZE, K, write_scene
from scipy import ndimage
from scipy.spatial.transform import Rotation
from shapes import box, icosphere, mesh

import sam3d_nb as s3
from sam3d_nb.errors import InputError
from sam3d_nb.evaluation.outline import silhouette_iou
from sam3d_nb.examples import load_example
from sam3d_nb.frames import Pose, project
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.refine.motion import moved, pushed
from sam3d_nb.refine.object import other_masks
from sam3d_nb.refine.points import by_icp, by_medians
from sam3d_nb.refine.pose import refine_pose
from sam3d_nb.refine.shape import Shape, coarse
from sam3d_nb.refine.window import Crop, crop_around, hidden_by_depth, make_window

NOTHING = np.zeros((SIZE, SIZE), dtype=bool)
CHOSEN = [  # a large one, one that is hidden for the most part, a round one, one with thin parts
    ("kids_room", 4),
    ("kitchen", 2),
    ("living_room", 7),
    ("study", 1),
]


def pose_numbers(pose: Pose) -> np.ndarray:
    return np.array([*pose.rotation, *pose.translation, *pose.scale])


def wedge() -> Mesh:
    """A lopsided body without any symmetry, in the unit cube."""
    vertices, faces = box((1.0, 0.7, 0.5))
    vertices = vertices * np.where(vertices[:, :1] > 0, (1.0, 0.5, 0.8), (1.0, 1.0, 1.0))
    return Mesh(vertices, faces)


WEDGE_POSE = Pose(
    tuple((Rotation.from_euler("xyz", [200, 35, 10], degrees=True)).as_quat(scalar_first=True)),
    (0.1, -0.05, 1.6),
    (0.6, 0.6, 0.6),
)


def scene_of(*meshes: Mesh) -> tuple[list[np.ndarray], np.ndarray]:
    """Exact masks and point map of meshes in the camera frame."""
    import torch

    from sam3d_nb.view.camera import Camera
    from sam3d_nb.view.raster import rasterize

    depths = []
    for thing in meshes:
        vertices, faces = torch.tensor(thing.vertices), torch.tensor(thing.faces)
        depths.append(rasterize(vertices, faces, Camera(SIZE, SIZE, K)).depth.numpy())
    nearest = np.min(depths, axis=0)
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    with np.errstate(invalid="ignore"):
        points = np.where(np.isfinite(nearest)[..., None], rays * nearest[..., None], np.nan)
    return [np.isfinite(d) & (d == nearest) for d in depths], points.astype(np.float32)


def placed(shape: Mesh, pose: Pose) -> Mesh:
    return shape.with_vertices(pose.apply(shape.vertices).astype(np.float32))


# Shipped examples


@pytest.mark.parametrize(("name", "index"), CHOSEN)
def test_a_disturbed_pose_of_a_known_object_comes_back(name: str, index: int) -> None:
    example = load_example(name)
    shape, true = true_object(example, index)
    start = disturbed(true, seed=index)
    assert example.intrinsics is not None
    others = other_masks(example, index, example.mask(index))
    camera, mask = example.intrinsics, example.mask(index)
    with_points, report = refine_pose(shape, start, camera, mask, example.pointmap, others)
    before, after = offset(shape, start, true), offset(shape, with_points, true)
    assert before.degrees == pytest.approx(5)
    assert before.shift == pytest.approx(0.05)
    assert before.scale > 0.07
    assert after.shift < 0.01
    assert after.scale < 0.02
    assert after.surface < 0.6 * before.surface
    assert report.iou_after > max(0.95, report.iou_before)
    assert report.accepted
    seen = placed(shape, with_points)
    true_iou = silhouette_iou(seen, camera, mask, [others])
    assert report.iou_after == pytest.approx(true_iou, abs=1e-6)

    by_mask, without = refine_pose(shape, start, camera, mask, None, others)
    assert without.accepted == ("outline",)
    assert without.iou_after > without.iou_before == report.iou_before
    assert offset(shape, by_mask, true).points < before.points
    distance = np.linalg.norm(by_mask.translation) / np.linalg.norm(start.translation)
    assert distance == pytest.approx(1, abs=0.02), "nothing tells how far away it is"


def test_what_hides_an_object_is_found_by_depth() -> None:
    example = load_example("kitchen")
    index = 2  # a chair behind a table
    shape, true = true_object(example, index)
    start = disturbed(true, seed=3)
    assert example.intrinsics is not None
    found, report = refine_pose(
        shape, start, example.intrinsics, example.mask(index), example.pointmap
    )
    assert offset(shape, found, true).points < 0.3 * offset(shape, start, true).points
    assert report.iou_after > max(0.9, report.iou_before)


# Plain scenes


def test_a_good_pose_stays_and_results_repeat() -> None:
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    pose, report = refine_pose(shape, WEDGE_POSE, K, mask, points)
    assert report.iou_before == 1.0
    assert pose == WEDGE_POSE
    assert report.accepted == ()
    assert str(report).endswith("accepted: none, the pose stays")
    start = disturbed(WEDGE_POSE, 1)
    first, second = (refine_pose(shape, start, K, mask, points) for _ in range(2))
    assert first == second
    assert first[0] != start


@pytest.mark.parametrize("seed", range(6))
def test_it_is_never_worse(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    points = points * generator.normal(1.1, 0.1, points.shape).astype(np.float32)
    start = disturbed(WEDGE_POSE, seed, degrees=25.0 * seed, shift=0.2 * seed, scale=0.15 * seed)
    found, report = refine_pose(shape, start, K, mask, points)
    ious = [silhouette_iou(placed(shape, p), K, mask) for p in (start, found)]
    assert ious == pytest.approx([report.iou_before, report.iou_after], abs=1e-6)
    assert ious[1] >= ious[0]
    assert set(report.accepted) <= set(report.tried) <= {"points", "icp", "outline"}
    for name in report.accepted:
        assert report.tried[name] > report.iou_before


def test_an_object_off_the_picture_or_behind_the_camera_is_brought_back() -> None:
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    for shift in ((2.0, 0.0, 1.6), (0.1, -0.05, -3.0)):
        start = replace(WEDGE_POSE, translation=shift)
        found, report = refine_pose(shape, start, K, mask, points)
        assert report.iou_before == 0
        assert report.iou_after > 0.8
        assert "points" in report.accepted
        same, alone = refine_pose(shape, start, K, mask)
        assert alone.iou_before == 0
        assert alone.iou_after > 0 or same == start
        assert np.linalg.norm(np.subtract(found.translation, WEDGE_POSE.translation)) < 0.1


def test_scales_that_differ_keep_their_ratios() -> None:
    shape, true = wedge(), replace(WEDGE_POSE, scale=(0.6, 0.8, 0.4))
    (mask,), points = scene_of(placed(shape, true))
    found, report = refine_pose(shape, disturbed(true, 5), K, mask, points)
    assert report.iou_after > 0.97
    np.testing.assert_allclose(found.scale, true.scale, rtol=0.02)
    np.testing.assert_allclose(np.divide(found.scale, found.scale[0]), (1, 4 / 3, 2 / 3))


def test_the_outline_does_not_count_where_something_hides_it() -> None:
    shape = wedge()
    wall = mesh(box((0.5, 2.0, 0.02)), (0.35, 0.0, 1.0))
    (mask, before_it), points = scene_of(placed(shape, WEDGE_POSE), wall)
    assert (scene_of(placed(shape, WEDGE_POSE))[0][0] & before_it).sum() > 300, "it hides much"
    start = disturbed(WEDGE_POSE, 2)
    for known in ({"occluders": before_it}, {"pointmap": points}):
        found, report = refine_pose(shape, start, K, mask, **known)
        assert report.iou_after > max(0.95, report.iou_before)
        assert offset(shape, found, WEDGE_POSE).points < offset(shape, start, WEDGE_POSE).points
    assert (hidden_by_depth(mask, points)[10:-10] & before_it[10:-10]).sum() > 1000
    _, report = refine_pose(shape, WEDGE_POSE, K, mask)
    assert report.iou_before < 0.9, "without any word of the wall its part counts as wrong"


def test_the_floor_before_an_object_does_not_hide_it() -> None:
    floor = mesh(box((4.0, 0.02, 4.0)), (0.0, 0.3, 2.5))
    (mask, floor_mask), points = scene_of(placed(wedge(), WEDGE_POSE), floor)
    hidden = hidden_by_depth(mask, points)
    below = np.roll(mask, 4, axis=0) & floor_mask
    assert below.sum() > 50
    assert not hidden[below].any()


def test_points_that_are_wrong_here_and_there_do_no_harm() -> None:
    generator = np.random.default_rng(0)
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    wild = generator.random(mask.shape) < 0.15
    points[wild] *= generator.uniform(0.2, 5, (int(wild.sum()), 1)).astype(np.float32)
    points[generator.random(mask.shape) < 0.2] = np.nan
    points[60:64] *= -1
    start = disturbed(WEDGE_POSE, 7)
    found, _ = refine_pose(shape, start, K, mask, points)
    assert offset(shape, found, WEDGE_POSE).points < 0.3 * offset(shape, start, WEDGE_POSE).points


# Parts


def test_a_window_sees_what_the_photo_sees() -> None:
    mask = NOTHING.copy()
    mask[20:100, 30:90] = True
    points = np.random.default_rng(0).normal(size=(SIZE, SIZE, 3))
    crop = crop_around(mask, 0.1)
    assert crop == Crop(12, 108, 22, 98)
    exact = make_window(crop, 500, K, mask, NOTHING, points)
    np.testing.assert_array_equal(exact.mask, mask[12:108, 22:98])
    assert exact.points is not None
    np.testing.assert_array_equal(exact.points, points[12:108, 22:98])
    place = np.array([[0.1, 0.05, 1.3]])
    u, v = project(place, K)[0]
    for side, step, first in ((500, 1, 0), (48, 2, 0), (32, 3, 1), (24, 4, 1)):
        window = make_window(crop, side, K, mask, ~mask, points)
        np.testing.assert_array_equal(
            window.mask, mask[12 + first : 108 : step, 22 + first : 98 : step]
        )
        np.testing.assert_array_equal(window.counted, window.mask)
        assert max(window.mask.shape) <= side
        column, row = project(place, window.camera.intrinsics)[0] - 0.5
        np.testing.assert_allclose(
            [u - 0.5, v - 0.5], [22 + first + step * column, 12 + first + step * row]
        )
    assert crop_around(np.ones((8, 9), dtype=bool), 3.0) == Crop(0, 8, 0, 9)


def test_motions_are_what_they_say() -> None:
    points = np.random.default_rng(1).normal(size=(20, 3))
    center, turn, shift = np.array([0.2, 0.1, 2.0]), np.array([0.1, -0.2, 0.05]), np.ones(3)
    pose = replace(WEDGE_POSE, scale=(0.5, 0.6, 0.7))
    found = moved(pose, center, turn, shift, 0.3).apply(points)
    arm = pose.apply(points) - center
    expected = np.exp(0.3) * Rotation.from_rotvec(turn).apply(arm) + center + shift
    np.testing.assert_allclose(found, expected, atol=1e-12)
    far = pushed(WEDGE_POSE, 1.7)
    shape = wedge().vertices
    np.testing.assert_allclose(
        project(far.apply(shape), K), project(WEDGE_POSE.apply(shape), K), atol=1e-9
    )


def test_medians_and_icp_each_mend_what_they_are_for() -> None:
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    window = make_window(crop_around(mask, 0.3), 96, K, mask, NOTHING, points)
    body = Shape(shape.vertices, shape.faces)
    far = pushed(moved(WEDGE_POSE, np.zeros(3), np.zeros(3), np.full(3, 0.1), 0.3), 1.2)
    coarse_fit = by_medians(body, far, window)
    assert coarse_fit is not None
    assert offset(shape, coarse_fit, WEDGE_POSE).points < 0.05
    turned = disturbed(WEDGE_POSE, 4, degrees=8.0)
    fine_fit = by_icp(body, turned, window)
    assert fine_fit is not None
    before, after = offset(shape, turned, WEDGE_POSE), offset(shape, fine_fit, WEDGE_POSE)
    assert after.points < 0.3 * before.points
    assert after.degrees < 1
    blind = make_window(crop_around(mask, 0.3), 96, K, mask, NOTHING)
    assert by_medians(body, far, blind) is None
    assert by_icp(body, far, blind) is None


def test_the_small_copy_has_the_shape_of_the_mesh() -> None:
    ball = mesh(icosphere(5, 0.5))
    small = coarse(ball, 3000)
    assert 1500 < len(small.faces) <= 3000
    np.testing.assert_allclose(np.linalg.norm(small.vertices, axis=1), 0.5, atol=0.01)
    few = Mesh([[9, 9, 9], *wedge().vertices], wedge().faces + 1)
    assert Shape(few.vertices, few.faces).size(Pose()) == pytest.approx(1)


def test_hostile_input_gets_a_sentence() -> None:
    shape = wedge()
    (mask,), points = scene_of(placed(shape, WEDGE_POSE))
    good = {"mesh": shape, "pose": WEDGE_POSE, "intrinsics": K, "mask": mask, "pointmap": points}
    bad = [
        ("mesh", Mesh(np.zeros((3, 3)), np.zeros((0, 3))), "has no triangle"),
        ("mask", mask.astype(float), r"bool array \(H, W\) but got float64 \(128, 128\)"),
        ("mask", NOTHING, "the mask is empty"),
        ("mask", [[True]], "but got list"),
        ("pointmap", points[:64], r"the point map is \(64, 128, 3\)"),
        ("occluders", mask[:5], r"occluders are bool \(128, 128\) but got bool \(5, 128\)"),
        ("occluders", mask.astype(int), "but got int64"),
        ("intrinsics", np.zeros((3, 3)), "positive focal lengths"),
        ("intrinsics", None, r"K \(3, 3\) in pixels but got NoneType"),
        ("intrinsics", np.eye(2), r"got float64 \(2, 2\)"),
    ]
    for name, value, message in bad:
        with pytest.raises(InputError, match=message):
            refine_pose(**(good | {name: value}))
    for nothing_known in (np.full_like(points, np.nan), -np.abs(points)):
        _, report = refine_pose(**(good | {"pointmap": nothing_known}))
        assert set(report.tried) == {"outline"}
    _, report = refine_pose(**(good | {"occluders": ~NOTHING}))
    assert report.iou_after >= report.iou_before


# Objects in notebooks


def test_an_object_is_refined_in_its_example(tmp_path: Path) -> None:
    shape = wedge()
    front = mesh(box((0.2, 0.3, 0.1)), (0.3, 0.1, 1.0))
    example = write_scene(tmp_path / "scene", [placed(shape, WEDGE_POSE), front])
    source = Provenance("tiny", "1", "0.1", "0" * 64, mask_index=0, settings={"steps": 4})
    start = Object3D(shape, disturbed(WEDGE_POSE, 3), source, intrinsics=K)
    better, report = s3.refine_layout(start, example)
    assert better.mesh is start.mesh
    assert report.accepted == ("outline",)
    assert (
        str(report) == f"IoU {report.iou_before:.3f} to {report.iou_after:.3f}; accepted: outline"
    )
    assert better.provenance.settings == {
        "steps": 4,
        "refine_layout": True,
        "refined_by": "outline",
        "layout_iou_before": round(report.iou_before, 4),
        "layout_iou_after": round(report.iou_after, 4),
    }
    others = [example.mask(1)]
    ious = [
        silhouette_iou(thing.mesh_in_camera(), K, example.mask(0), others)
        for thing in (start, better)
    ]
    assert ious == pytest.approx([report.iou_before, report.iou_after], abs=1e-6)
    stranger = replace(start, provenance=replace(source, mask_index=None))
    with pytest.raises(InputError, match="give it, or its index"):
        s3.refine_layout(stranger, example)
    for mask in (0, example.mask(0)):
        assert s3.refine_layout(stranger, example, mask)[1] == report
    smaller = ndimage.binary_erosion(example.mask(0), iterations=4)
    corrected = s3.refine_layout(start, example, smaller)[1]
    alone = s3.refine_layout(start, example.with_masks({0: smaller, 1: example.mask(1)}), 0)[1]
    assert corrected == alone, "the mask that it corrects hides nothing"
    saved = better.save(tmp_path / "better.glb")
    assert saved.is_file()
