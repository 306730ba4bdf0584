"""Windows of photos, where they show a grid of points, and filters of pictures on any device."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from sam3d_nb.frames import FACING_CAMERA, Pose, project
from sam3d_nb.tiny import pixels
from sam3d_nb.tiny.sight import look, spacing
from sam3d_nb.tiny.window import Window, around, window

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CAMERA = np.array([[120.0, 0, 64], [0, 110, 48], [0, 0, 1]])
SKEWED = np.array([[120.0, 7, 64], [0, 110, 48], [0, 0, 1]])
POSE = Pose(FACING_CAMERA, (0.3137, -0.1042, 3.017), (1.4,) * 3)
AXES = (np.linspace(-0.5, 0.4, 10), np.linspace(-0.5, 0.5, 11), np.linspace(-0.3, 0.5, 9))


def test_a_window_keeps_the_geometry_of_the_photo():
    photo = np.arange(90 * 120).reshape(90, 120)
    part = window(photo.shape, np.array([10.5, -3.0]), np.array([61.0, 44.0]), finest=3.7)
    assert part == Window(top=0, left=10, height=14, width=17, step=3)
    cut = part.cut(photo)
    assert cut.shape == (14, 17)
    point = np.array([[0.1, -0.2, 2.0]])
    camera = np.array([[80.0, 0, 20], [0, 80, 30], [0, 0, 1]])
    column, row = np.floor(project(point, part.intrinsics(camera))[0]).astype(int)
    full_column, full_row = project(point, camera)[0]
    at_row, at_column = divmod(int(cut[row, column]), 120)  # the middle of the block
    assert abs(at_column + 0.5 - full_column) <= 1.5
    assert abs(at_row + 0.5 - full_row) <= 1.5
    blocks = part.mean(np.stack([photo] * 2, -1))
    np.testing.assert_allclose(blocks[..., 0], cut)  # a linear ramp: mean and middle are one


def test_a_thin_mask_on_a_large_photo_is_not_lost():
    height, width = 1200, 1600
    for shift in range(12):
        mask = np.zeros((height, width), dtype=bool)
        mask[height // 2 + shift : height // 2 + shift + 3, 400:1200] = True
        part = window(mask.shape, np.array([300, 100]), np.array([1300, 1100]), finest=11)
        assert part.step == 11
        assert part.some(mask).any(1).sum() in (1, 2)


def test_a_window_without_photo_is_none():
    assert window((10, 10), np.array([20.0, 3.0]), np.array([30.0, 5.0])) is None


def test_the_window_of_a_mask_holds_it_with_a_margin():
    mask = np.zeros((90, 120), dtype=bool)
    mask[20:50, 1:71] = True
    assert around(mask, 4) == Window(top=16, left=0, height=38, width=75, step=1)
    assert around(mask, 4, across=20).step == 3
    for across, step in ((200, 1), (40, 1), (36, 3), (20, 3), (19, 5)):
        assert around(np.ones((76, 60), dtype=bool), 0, across).step == step


def test_points_behind_the_camera_or_beside_the_photo_are_not_seen():
    behind = Pose(FACING_CAMERA, (0.0, 0.0, -5.0), (1.0,) * 3)
    assert look(AXES, behind, CAMERA, (96, 128)) is None
    beside = Pose(FACING_CAMERA, (50.0, 0.0, 5.0), (1.0,) * 3)
    assert look(AXES, beside, CAMERA, (96, 128)) is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("camera", [CAMERA, SKEWED])
@pytest.mark.parametrize("pose", [POSE, Pose(FACING_CAMERA, (0.0113, 0.2071, 0.3019), (1.0,) * 3)])
def test_a_grid_is_seen_as_its_points_are_one_by_one(device, camera, pose):
    """The second cube reaches behind the camera."""
    sight = look(AXES, pose, camera, (96, 128), finest=3, device=device)
    picture = np.random.default_rng(0).random((sight.window.height, sight.window.width))
    on_device = torch.from_numpy(picture).to(device)
    inside, at, between = (
        value.cpu().numpy()
        for value in (sight.inside, sight.at(on_device), sight.between(on_device))
    )
    x, y, z = np.meshgrid(*AXES, indexing="ij")
    points = np.stack([x, -z, y], -1).reshape(-1, 3) * pose.scale[0] + pose.translation
    front = points[:, 2] > 0
    place = np.full((len(points), 2), -1.0)
    place[front] = project(points[front], sight.window.intrinsics(camera))
    held = front & ((place >= 0) & (place < picture.shape[::-1])).all(1)
    np.testing.assert_array_equal(inside.reshape(-1), held)
    column, row = np.floor(place[held]).astype(int).T
    np.testing.assert_array_equal(at.reshape(-1)[held], picture[row, column])
    wanted = ndimage.map_coordinates(picture, place[held].T[::-1] - 0.5, order=1, mode="nearest")
    np.testing.assert_allclose(between.reshape(-1)[held], wanted, atol=1e-9)
    assert held.sum() > 100
    assert spacing(AXES) == pytest.approx(0.1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 13, 37])
def test_maxima_and_minima_of_squares_are_those_of_scipy(device, size):
    picture = np.random.default_rng(size).normal(size=(25, 40))
    picture[3:6, 7:30] = np.inf
    on_device = torch.from_numpy(picture).to(device)
    found = pixels.largest(on_device, size).cpu().numpy()
    np.testing.assert_array_equal(found, ndimage.maximum_filter(picture, size))
    found = pixels.smallest(on_device, size).cpu().numpy()
    np.testing.assert_array_equal(found, ndimage.minimum_filter(picture, size))
    found = pixels.largest(on_device > 1.5, size).cpu().numpy()
    np.testing.assert_array_equal(found, ndimage.maximum_filter(picture > 1.5, size))


@pytest.mark.parametrize("device", DEVICES)
def test_colors_between_pixels_are_those_of_scipy(device):
    random = np.random.default_rng(0)
    picture = random.random((12, 17, 3))
    at = random.uniform(-3, 20, size=(500, 2))
    found = pixels.between(*(torch.from_numpy(value).to(device) for value in (picture, at)))
    for channel in range(3):
        wanted = ndimage.map_coordinates(
            picture[..., channel], at.T[::-1] - 0.5, order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[:, channel].cpu().numpy(), wanted, atol=1e-9)


def test_points_are_projected_as_arrays_are():
    points = np.random.default_rng(0).uniform(1, 3, size=(50, 3))
    found = pixels.project(torch.from_numpy(points), SKEWED)
    np.testing.assert_allclose(found.numpy(), project(points, SKEWED))
