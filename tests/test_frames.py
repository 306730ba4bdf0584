"""Poses, projection and intrinsics, each against something plainer."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError
from sam3d_nb.frames import (
    FACING_CAMERA,
    Pose,
    default_intrinsics,
    intrinsics_from_pointmap,
    project,
    quaternion_from_matrix,
    rotation_matrix,
)

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
