"""Camera recovery: focal length, shift and intrinsics against golden files and known cameras."""

import math

import pytest
import torch

from sam3d_nb.errors import InputError
from sam3d_nb.model.focal import (
    fit_intrinsics,
    intrinsics_matrix,
    recover_focal_shift,
    uv_map,
)
from sam3d_nb.model.pointmap import PointMapOptions, locate
from sam3d_nb.model.preprocess import flip_frame


def runs(reference):
    return reference.info["runs"]


@pytest.mark.golden_cases("run", "pointmap/recover_focal_shift", runs)
def test_focal_shift_golden(golden, run):
    reference = golden("pointmap/recover_focal_shift")
    info = reference.info["runs"][run]
    points, mask = reference[f"{run}.points"], reference[f"{run}.mask"] != 0
    if info["fov_x_degrees"] is None:
        focal, shift = recover_focal_shift(points, mask)
        intrinsics = intrinsics_matrix(focal, info["width"] / info["height"])
    else:
        result = locate(points, mask, PointMapOptions(fov_x=info["fov_x_degrees"]))
        focal, shift, intrinsics = result.focal, result.shift, result.intrinsics
    fxfy = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    own = run if run in reference.info["tolerance"] else None
    reference.check(torch.tensor(focal), f"{run}.focal", tolerance=own or "focal")
    reference.check(torch.tensor(shift), f"{run}.shift", tolerance=own or "shift")
    reference.check(fxfy, f"{run}.fxfy", tolerance=own or "fxfy")
    if info["valid_samples_64x64"] < 2 and info["fov_x_degrees"] is None:
        assert (focal, shift) == (1.0, 0.0)


def pinhole(height, width, focal, shift, seed=0):
    """Points (H, W, 3) whose depth lacks `shift`, seen by a camera of `focal`."""
    random = torch.Generator().manual_seed(seed)
    z = 2 + torch.rand(height, width, generator=random)
    uv = uv_map(height, width, width / height, like=z)
    return torch.cat([uv * z[..., None] / focal, z[..., None] - shift], -1)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (90, 64), (30, 31), (200, 333)])
def test_recovery_of_exact_cameras(height, width):
    points = pinhole(height, width, 1.2, 0.4)
    focal, shift = recover_focal_shift(points, torch.ones(height, width, dtype=torch.bool))
    assert focal == pytest.approx(1.2, rel=1e-5)
    assert shift == pytest.approx(0.4, abs=1e-5)


def test_fit_follows_the_mask():
    """Finite but wrong points outside of the mask must not take part."""
    points = pinhole(64, 80, 1.2, 0.4)
    valid = torch.ones(64, 80, dtype=torch.bool)
    valid[:, :30] = False
    points[:, :30] = 3 * torch.randn(64, 30, 3).abs()
    focal, shift = recover_focal_shift(points, valid)
    assert focal == pytest.approx(1.2, rel=1e-4)
    assert shift == pytest.approx(0.4, abs=1e-4)
    wrong, _ = recover_focal_shift(points, torch.ones_like(valid))
    assert wrong != pytest.approx(1.2, rel=1e-2)


def test_samples_are_counted_after_the_resize():
    """Valid pixels between the sampled rows do not take part, so here there are none."""
    points = pinhole(128, 128, 1.2, 0.4)
    valid = torch.zeros(128, 128, dtype=torch.bool)
    valid[1::2] = True  # rows 1, 3, …; sampled are 0, 2, …
    assert recover_focal_shift(points, valid) == (1.0, 0.0)
    assert recover_focal_shift(points, valid, focal=2.0) == (2.0, 0.0)
    assert recover_focal_shift(points, ~valid)[0] == pytest.approx(1.2, rel=1e-4)


def test_intrinsics_of_a_user_pointmap():
    points = pinhole(48, 96, 0.9, 0.0)
    points[::3, ::5] = math.nan
    intrinsics = fit_intrinsics(flip_frame(flip_frame(points)))
    half_diagonal = math.hypot(48, 96) / 2
    assert float(intrinsics[0, 0]) * 96 == pytest.approx(0.9 * half_diagonal, rel=1e-4)
    assert float(intrinsics[1, 1]) * 48 == pytest.approx(0.9 * half_diagonal, rel=1e-4)
    assert intrinsics[:2, 2].tolist() == [0.5, 0.5]


def test_uv_map_is_pixel_centers_in_half_diagonals():
    uv = uv_map(3, 4, 4 / 3, like=torch.zeros(()))
    torch.testing.assert_close(uv[0, 0], torch.tensor([-0.8 * 3 / 4, -0.6 * 2 / 3]))
    torch.testing.assert_close(uv[2, 3], torch.tensor([0.8 * 3 / 4, 0.6 * 2 / 3]))
    assert (uv[1, :, 1] == 0).all()


@pytest.mark.parametrize("bad", ["depth", "axis"])
def test_points_that_fix_no_camera_are_refused(bad):
    points = pinhole(64, 64, 1.0, 0.0)
    if bad == "depth":
        points[5, 5] = 0
    else:
        points[..., :2] = 0
    with pytest.raises(InputError, match="NaN"):
        fit_intrinsics(points)


def test_points_and_mask_of_other_sizes_are_named():
    with pytest.raises(InputError, match=r"\(4, 5, 3\).*\(5, 4\)"):
        recover_focal_shift(torch.ones(4, 5, 3), torch.ones(5, 4, dtype=torch.bool))
