"""Layout decoder, quaternions and placement."""

import math

import pytest
import torch
import torch.nn.functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.frames import Pose
from sam3d_nb.model.config import LayoutConfig
from sam3d_nb.model.gaussian_scene import merge, normalize_for_video, place
from sam3d_nb.model.gaussians import GaussianSet
from sam3d_nb.model.layout import (
    Layout,
    Posed,
    camera_pose,
    conjugate,
    decode_layout,
    matrix_from_quaternion,
    matrix_from_six,
    multiply,
    place_gaussians,
    place_points,
    quaternion_from_matrix,
    single_scale,
    standardize,
)
from sam3d_nb.model.preprocess import Moments

INPUTS = ("6drotation_normalized", "translation", "scale", "translation_scale")


def random_quaternions(count):
    q = torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return standardize(F.normalize(q, dim=-1))


def random_layout(scale=0.7):
    return Layout(
        random_quaternions(1).float(),
        torch.tensor([[0.3, -0.2, 1.5]]),
        torch.full((1, 3), scale),
    )


@pytest.mark.parametrize("with_moments", [True, False])
def test_golden(golden, with_moments):
    file = golden("stage1/pose_decoder")
    prefix = "out" if with_moments else "noscene"
    latents = {name: file[f"in.{name}"] for name in INPUTS}  # (cases, 1, 1, channels)
    for case in range(len(file["in.scale"])):
        moments = Moments(file["in.pointmap_scale"][case][0], file["in.pointmap_shift"][case][0])
        layout = decode_layout(
            {name: value[case] for name, value in latents.items()},
            moments if with_moments else None,
        )
        wanted = {
            key: file[f"{prefix}.{key}"][case] for key in ("rotation", "translation", "scale")
        }
        sign = torch.sign((wanted["rotation"] * layout.rotation).sum())  # free at a half turn
        for key, value in wanted.items():
            actual = getattr(layout, key) * (sign if key == "rotation" else 1)
            torch.testing.assert_close(actual, value, **file.tolerance())
        assert layout.rotation[0, 0] >= 0


def test_factor_scales_the_object_only(golden):
    file = golden("stage1/pose_decoder")
    latents = {name: file[f"in.{name}"][1] for name in INPUTS}
    one, two = decode_layout(latents), decode_layout(latents, factor=2)
    torch.testing.assert_close(two.scale, 2 * one.scale)
    assert torch.equal(two.translation, one.translation)


def test_translation_scale_is_ignored(golden):
    file = golden("stage1/pose_decoder")
    latents = {name: file[f"in.{name}"][1] for name in INPUTS}
    other = latents | {"translation_scale": latents["translation_scale"] + 5}
    assert torch.equal(decode_layout(latents).translation, decode_layout(other).translation)


def test_released_statistics(golden):
    config, released = LayoutConfig(), golden("stage1/pose_decoder").config
    assert config.rotation_mean == pytest.approx(released["rotation_6d_mean"], rel=1e-6)
    assert config.rotation_std == pytest.approx(released["rotation_6d_std"], rel=1e-6)


def test_six_numbers_are_two_columns():
    six = torch.tensor([0.0, 2, 0, 3, 1, 0])
    expected = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    torch.testing.assert_close(matrix_from_six(six), expected)


def test_quaternion_matrix_round_trip():
    q = random_quaternions(1000)
    near_half_turns = F.normalize(
        torch.cat([1e-7 * torch.ones(3, 1), torch.eye(3)], 1).double() + 1e-8, dim=-1
    )
    q = torch.cat([q, near_half_turns])
    matrix = matrix_from_quaternion(q)
    torch.testing.assert_close(
        matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand_as(matrix)
    )
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(len(q), dtype=torch.float64))
    torch.testing.assert_close(quaternion_from_matrix(matrix), q)
    torch.testing.assert_close(matrix_from_quaternion(3 * q), matrix)


def test_quarter_turn_about_z():
    q = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    expected = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(matrix_from_quaternion(q), expected, rtol=0, atol=1e-6)


def test_product_composes_rotations():
    a, b = random_quaternions(20).view(2, 10, 4)
    expected = matrix_from_quaternion(a) @ matrix_from_quaternion(b)
    torch.testing.assert_close(matrix_from_quaternion(multiply(a, b)), expected)
    torch.testing.assert_close(
        standardize(multiply(a, conjugate(a))), torch.eye(4).double()[:1].expand_as(a)
    )


def read_object(file, i):
    raw = {
        "raw_xyz": file[f"in.{i}.xyz"],
        "raw_color": file[f"in.{i}.features_dc"].flatten(1),
        "raw_scale": file[f"in.{i}.scaling"],
        "raw_rotation": file[f"in.{i}.rotation"],
        "raw_opacity": file[f"in.{i}.opacity"],
    }
    layout = Layout(file[f"in.{i}.quat"], file[f"in.{i}.trans"], file[f"in.{i}.scale"])
    config = file.config["gaussian"]
    settings = {
        "kernel_size": config["mininum_kernel_size"],
        "scale_bias": config["scaling_bias"],
        "opacity_bias": config["opacity_bias"],
    }
    return GaussianSet(**raw, **settings), layout


def objects(file):
    return range(len(file.config["objects"]))


@pytest.mark.golden_cases("i", "stage1/scene_transform", objects)
def test_golden_placement(golden, i):
    file = golden("stage1/scene_transform")
    gaussians, layout = read_object(file, i)
    file.check(gaussians.xyz, f"local.{i}.xyz")
    file.check(gaussians.scale, f"local.{i}.scaling")
    file.check(gaussians.rotation, f"local.{i}.rotation")
    file.check(gaussians.opacity, f"local.{i}.opacity")
    file.check(place_points(gaussians.xyz, layout), f"out.{i}.points")
    rotation, scale = matrix_from_quaternion(layout.rotation), single_scale(layout)
    file.check(rotation, f"out.{i}.decomposed_rotation")
    file.check(torch.full((1, 3), scale), f"out.{i}.decomposed_scale")
    matrix = torch.eye(4)[None]  # (1, 4, 4): a row of homogeneous coordinates times it
    matrix[0, :3, :3], matrix[0, 3, :3] = scale * rotation[0], layout.translation[0]
    file.check(matrix, f"out.{i}.matrix_rowvec")


def test_golden_scene(golden):
    file = golden("stage1/scene_transform")
    scene = merge([place(*read_object(file, i)) for i in objects(file)])
    for key in ("xyz", "rotation", "opacity"):
        file.check(getattr(scene, f"raw_{key}"), f"scene.raw.{key}")
    file.check(scene.raw_scale, "scene.raw.scaling")
    file.check(scene.raw_color[:, None], "scene.raw.features_dc")
    file.check(scene.xyz, "scene.xyz")
    file.check(scene.scale, "scene.scaling")
    file.check(scene.rotation, "scene.rotation")
    kernel = file["scene.minimum_kernel_size"].item()
    assert scene.kernel_size == pytest.approx(kernel, rel=1e-6)
    video = normalize_for_video(scene)
    file.check(video.xyz, "video.xyz")
    file.check(video.scale, "video.scaling")
    file.check(normalize_for_video(scene, fix_axes=True).xyz, "video_aligned.xyz")


def test_extents_stay_above_the_new_kernel():
    """1.1 times the kernel after placement, not before."""
    local = Posed(torch.zeros(2, 3), random_quaternions(2).float(), torch.ones(2, 3) * 0.0009, 9e-4)
    local.extents[1] = 0.5
    placed = place_gaussians(local, random_layout(scale=2.0))
    assert placed.kernel == pytest.approx(0.0018)
    torch.testing.assert_close(placed.extents[0], torch.full((3,), 1.1 * 0.0018))
    torch.testing.assert_close(placed.extents[1], torch.full((3,), 1.0))


def test_orientations_turn_with_the_points():
    """A gaussian's longest axis points the same way as two points along it do."""
    layout = random_layout()
    g = random_quaternions(5)[4:].float()
    axis = matrix_from_quaternion(g[0])[:, 0]  # local direction of the first axis
    ends = place_points(torch.stack([torch.zeros(3), axis]), layout)
    placed = place_gaussians(Posed(ends, g, torch.ones(1, 3), 0.0), layout)
    turned = matrix_from_quaternion(placed.orientations[0])[:, 0]
    torch.testing.assert_close(turned, F.normalize(ends[1] - ends[0], dim=0))


def test_camera_pose_agrees_with_placement():
    """The same vertex through the GLB frame and OpenCV's camera, and through the local frame."""
    layout = random_layout()
    mesh = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    local = torch.stack([mesh[:, 0], -mesh[:, 2], mesh[:, 1]], -1)
    expected = place_points(local, layout) * torch.tensor([-1, -1, 1])
    rotation, translation, scale = (value[0].tolist() for value in camera_pose(layout))
    actual = torch.from_numpy(Pose(rotation, translation, scale).apply(mesh.numpy()))
    torch.testing.assert_close(actual.float(), expected, rtol=1e-5, atol=1e-5)


def test_bad_input():
    latents = {"6drotation_normalized": torch.ones(1, 1, 6), "translation": torch.ones(1, 1, 3)}
    with pytest.raises(InputError, match=r"'scale' must be \(B, 1, 3\), got none"):
        decode_layout(latents)
    with pytest.raises(InputError, match=r"got \(1, 3\)"):
        decode_layout(latents | {"scale": torch.ones(1, 3)})
    with pytest.raises(InputError, match=r"'scale'.*3 values"):
        decode_layout(latents | {"scale": torch.full((1, 1, 3), torch.nan)})
    local = Posed(torch.zeros(1, 3), torch.ones(1, 4), torch.ones(1, 3), 0.1)
    uneven = Layout(torch.ones(1, 4), torch.ones(1, 3), torch.tensor([[1.0, 2, 1]]))
    with pytest.raises(InputError, match=r"\[1.0, 2.0, 1.0\]"):
        place_gaussians(local, uneven)
