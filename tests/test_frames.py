"""Poses, projection and intrinsics, each against something plainer."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sam3d_nb.engine.results import object_frame
from sam3d_nb.errors import InputError
from sam3d_nb.frames import (
    BLENDER,
    BLENDER_CAMERA,
    CAMERA,
    FACING_CAMERA,
    FRAMES,
    LATENT,
    NETWORK_CAMERA,
    OBJECT,
    OPENGL_CAMERA,
    SPLATS,
    UNITY,
    UNITY_CAMERA,
    WORLD,
    Frame,
    Pose,
    change_of_axes,
    convert_matrix,
    convert_points,
    convert_pose,
    default_intrinsics,
    intrinsics_from_pointmap,
    pose_between,
    project,
    quaternion_from_matrix,
    rotation_matrix,
)
from sam3d_nb.model.layout import CAMERA_TO_OPENCV, MESH_TO_LOCAL, matrix_from_quaternion
from sam3d_nb.model.preprocess import flip_frame

K = np.array([[600, 0, 310], [0, 590, 250], [0, 0, 1.0]])


def random_poses(count: int) -> list[Pose]:
    rng = np.random.default_rng(0)
    return [
        Pose(rng.normal(size=4), rng.normal(size=3), rng.uniform(0.1, 3, size=3))
        for _ in range(count)
    ]


def test_thousand_poses_round_trip() -> None:
    points = np.random.default_rng(1).normal(size=(10, 3))
    for pose in random_poses(1000):
        np.testing.assert_allclose(pose.inverse_apply(pose.apply(points)), points, atol=1e-9)
        matrix = rotation_matrix(pose.rotation)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
        np.testing.assert_allclose(quaternion_from_matrix(matrix), pose.rotation, atol=1e-7)


def test_rotation_matrix_agrees_with_scipy() -> None:
    for pose in random_poses(100):
        w, x, y, z = pose.rotation
        expected = Rotation.from_quat([x, y, z, w]).as_matrix()
        np.testing.assert_allclose(rotation_matrix(pose.rotation), expected, atol=1e-12)


def test_homogeneous_matrix_is_apply() -> None:
    points = np.random.default_rng(1).normal(size=(10, 3))
    for pose in random_poses(20):
        homogeneous = np.concatenate([points, np.ones((10, 1))], axis=1)
        expected = (pose.matrix() @ homogeneous.T).T[:, :3]
        np.testing.assert_allclose(pose.apply(points), expected, atol=1e-12)


def test_a_pose_is_normalized() -> None:
    pose = Pose((-2, 0, 0, 0), (1, 2, 3), 4)  # type: ignore[arg-type]
    assert pose.rotation == (1, 0, 0, 0)
    assert pose.scale == (4, 4, 4)
    assert Pose(FACING_CAMERA).apply([[1, 2, 3]]).tolist() == [[1, -2, -3]]


def test_a_pose_made_from_the_numbers_of_another_is_the_same() -> None:
    for pose in random_poses(1000):
        assert Pose(pose.rotation, pose.translation, pose.scale) == pose


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rotation": (0, 0, 0, 0)}, "quaternion"),
        ({"rotation": (1, 0, 0)}, "quaternion"),
        ({"rotation": (np.nan, 0, 0, 1)}, "quaternion"),
        ({"translation": (0, 0)}, "three finite numbers"),
        ({"translation": (0, 0, np.inf)}, "three finite numbers"),
        ({"scale": (1, 0, 1)}, "positive"),
        ({"scale": (1, 2)}, "positive"),
    ],
)
def test_what_is_no_pose_gets_a_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Pose(**arguments)


@pytest.mark.parametrize("matrix", [np.eye(2), np.diag([1, 1, -1]), 2 * np.eye(3)])
def test_what_is_no_rotation_gets_a_sentence(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="orthonormal"):
        quaternion_from_matrix(matrix)


def test_projection_agrees_with_the_formula_a_point() -> None:
    points = np.random.default_rng(0).uniform(1, 3, size=(50, 3))
    for (x, y, z), (u, v) in zip(points, project(points, K), strict=True):
        assert u == pytest.approx(600 * x / z + 310)
        assert v == pytest.approx(590 * y / z + 250)


def test_default_intrinsics_see_the_field_of_view() -> None:
    camera = default_intrinsics(480, 640, field_of_view=50)
    edge = np.array([[np.tan(np.radians(25)), 0, 1]])
    np.testing.assert_allclose(project(edge, camera), [[640, 240]])


def test_intrinsics_are_found_again_from_a_point_map() -> None:
    height, width = 40, 60
    camera = np.array([[75, 0, width / 2], [0, 75, height / 2], [0, 0, 1.0]])
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:height, :width] + 0.5
    z = rng.uniform(1, 4, size=(height, width))
    points = np.dstack([(u - width / 2) / 75 * z, (v - height / 2) / 75 * z, z])
    points[rng.random((height, width)) < 0.5] = np.nan
    fitted = intrinsics_from_pointmap(points)
    np.testing.assert_allclose(fitted, camera, rtol=1e-9)


def test_no_intrinsics_without_points() -> None:
    points = np.full((20, 20, 3), np.nan)
    assert intrinsics_from_pointmap(points) is None
    points[:3, :5] = 1  # 15 points are too few
    assert intrinsics_from_pointmap(points) is None
    assert intrinsics_from_pointmap(np.full((20, 20, 3), -1.0)) is None


CAMERAS = [frame for frame in FRAMES.values() if frame.kind == "camera"]
OBJECTS = [frame for frame in FRAMES.values() if frame.kind == "object"]


def homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (CAMERA, NETWORK_CAMERA, (-1, -2, 3)),
        (CAMERA, OPENGL_CAMERA, (1, -2, -3)),
        (CAMERA, BLENDER_CAMERA, (1, -2, -3)),
        (CAMERA, UNITY_CAMERA, (1, -2, 3)),
        (NETWORK_CAMERA, OPENGL_CAMERA, (-1, 2, -3)),
        (OBJECT, LATENT, (1, -3, 2)),
        (LATENT, OBJECT, (1, 3, -2)),
        (OBJECT, SPLATS, (1, 2, 3)),
        (WORLD, BLENDER, (1, -3, 2)),
        (WORLD, UNITY, (-1, 2, 3)),
        (LATENT, BLENDER, (1, 2, 3)),
    ],
)
def test_where_the_point_one_two_three_goes(source: Frame, target: Frame, expected: tuple) -> None:
    """Written down by hand, as the programs document their axes."""
    assert convert_points([1, 2, 3], source, target).tolist() == list(expected)
    back = convert_points(np.array([[expected]]), target, source)
    assert back.tolist() == [[[1, 2, 3]]]


def test_only_unity_is_left_handed() -> None:
    left = {frame.name for frame in FRAMES.values() if not frame.right_handed}
    assert left == {"Unity camera", "Unity"}
    for source, target in [*product(CAMERAS, CAMERAS), *product(OBJECTS, OBJECTS)]:
        mirrors = source.right_handed != target.right_handed
        assert np.linalg.det(change_of_axes(source, target)) == pytest.approx(-1 if mirrors else 1)


def test_the_networks_agree_with_the_table() -> None:
    """`model/` and `engine/` do these changes on tensors; they must be the ones that have names."""
    points = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_allclose(
        flip_frame(torch.tensor(points)), convert_points(points, CAMERA, NETWORK_CAMERA), atol=1e-7
    )
    np.testing.assert_allclose(
        object_frame(torch.tensor(points)), convert_points(points, LATENT, OBJECT), atol=1e-7
    )
    for quaternion, change in (
        (CAMERA_TO_OPENCV, change_of_axes(NETWORK_CAMERA, CAMERA)),
        (MESH_TO_LOCAL, change_of_axes(OBJECT, LATENT)),
    ):
        turned = matrix_from_quaternion(torch.tensor(quaternion, dtype=torch.float64))
        np.testing.assert_allclose(turned, change, atol=1e-12)
    facing = Pose(FACING_CAMERA).apply(points)
    np.testing.assert_allclose(facing, convert_points(points, OPENGL_CAMERA, CAMERA), atol=1e-7)


def test_thousand_poses_round_trip_through_all_frames() -> None:
    """A pose in other frames does to converted points what it did, and comes back."""
    points = np.random.default_rng(1).normal(size=(10, 3))
    pairs = list(product(OBJECTS, CAMERAS))
    for number, pose in enumerate(random_poses(1000)):
        target = pairs[number % len(pairs)]
        matrix = convert_matrix(pose.matrix(), (OBJECT, CAMERA), target)
        expected = convert_points(pose.apply(points), CAMERA, target[1])
        local = convert_points(points, OBJECT, target[0])
        moved = (homogeneous(local) @ matrix.T)[:, :3]
        np.testing.assert_allclose(moved, expected, atol=1e-9)
        back = convert_matrix(matrix, target, (OBJECT, CAMERA))
        np.testing.assert_allclose(back, pose.matrix(), atol=1e-9)
        if target[0].right_handed != target[1].right_handed:
            with pytest.raises(InputError, match="left-handed"):
                convert_pose(pose, (OBJECT, CAMERA), target)
            continue
        converted = convert_pose(pose, (OBJECT, CAMERA), target)
        np.testing.assert_allclose(converted.apply(local), expected, atol=1e-9)
        returned = convert_pose(converted, target, (OBJECT, CAMERA))
        np.testing.assert_allclose(returned.matrix(), pose.matrix(), atol=1e-5)
        np.testing.assert_allclose(returned.scale, pose.scale, rtol=1e-5)


def test_a_camera_looks_where_it_did_in_blender_and_unity() -> None:
    """Half a turn: the photo's camera in a Y-up world; Blender's and Unity's cameras by hand."""
    camera = Pose(FACING_CAMERA)  # the camera stands at 0 in a Y-up world and looks along -z
    blender = convert_pose(camera, (CAMERA, WORLD), (BLENDER_CAMERA, BLENDER))
    forward, up = blender.apply([(0, 0, -1), (0, 1, 0)])
    np.testing.assert_allclose((forward, up), [(0, 1, 0), (0, 0, 1)], atol=1e-12)
    unity = convert_pose(camera, (CAMERA, WORLD), (UNITY_CAMERA, UNITY))
    forward, up, right = unity.apply([(0, 0, 1), (0, 1, 0), (1, 0, 0)])
    np.testing.assert_allclose((forward, up, right), [(0, 0, -1), (0, 1, 0), (-1, 0, 0)], atol=1e-9)


def test_poses_compose_and_come_apart_as_matrices_do() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(10, 3))
    for inner in random_poses(100):
        outer = Pose(rng.normal(size=4), rng.normal(size=3), rng.uniform(0.1, 3))
        both = outer @ inner
        np.testing.assert_allclose(both.matrix(), outer.matrix() @ inner.matrix(), atol=1e-9)
        np.testing.assert_allclose(both.apply(points), outer.apply(inner.apply(points)), atol=1e-9)
        identity = (outer.inverse() @ outer).matrix()
        np.testing.assert_allclose(identity, np.eye(4), atol=1e-9)
        again = Pose.from_matrix(inner.matrix())
        np.testing.assert_allclose(again.rotation, inner.rotation, atol=1e-7)
        np.testing.assert_allclose(again.scale, inner.scale, rtol=1e-9)


def test_a_turn_between_frames_as_a_pose() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    expected = convert_points(points, OBJECT, LATENT)
    np.testing.assert_allclose(pose_between(OBJECT, LATENT).apply(points), expected, atol=1e-12)
    with pytest.raises(InputError, match="left-handed"):
        pose_between(WORLD, UNITY)


def test_what_poses_cannot_do_gets_a_sentence() -> None:
    stretched = Pose(scale=(1, 2, 1))
    with pytest.raises(InputError, match="one scale"):
        stretched @ Pose()
    with pytest.raises(InputError, match="one scale"):
        stretched.inverse()
    with pytest.raises(InputError, match="pose"):
        change_of_axes(CAMERA, OBJECT)
    mirror = np.diag([-1.0, 1, 1, 1])
    with pytest.raises(InputError, match="right-handed"):
        Pose.from_matrix(mirror)
    with pytest.raises(InputError, match="positive scale"):
        Pose.from_matrix(np.diag([0.0, 1, 1, 1]))
    with pytest.raises(InputError, match="last row"):
        Pose.from_matrix(np.ones((4, 4)))
