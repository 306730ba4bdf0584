"""Preprocessing: golden files, frames, medians, boxes, nearest rules, bad input."""

import math

import pytest
import torch
import torch.nn.functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model import preprocess
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import PreprocessConfig
from sam3d_nb.model.preprocess import (
    crop,
    crop_box,
    flip_frame,
    full_image,
    image_tensor,
    mask_tensor,
    pad_square,
    pointmap_moments,
    pointmap_tensor,
    prepare_inputs,
    shrink,
)

NAN, INF = math.nan, math.inf


SIZE_70 = PreprocessConfig(size=70)


def cases(reference):
    return reference.config["cases"]


def config_of(reference):
    return PreprocessConfig(reference.config["size"], reference.config["box_size_factor"])


def case_inputs(reference, case):
    rgba = reference[f"{case}.in.rgba"]
    mask = mask_tensor(rgba[..., 3].float() / 255)
    return image_tensor(rgba), mask, reference[f"{case}.in.pointmap"]


@pytest.mark.golden_cases("case", "stage1/preprocess", cases)
def test_golden(golden, case):
    reference = golden("stage1/preprocess")
    inputs = prepare_inputs(*case_inputs(reference, case), config_of(reference))
    names = [key for key in reference.tensors if key.startswith((f"{case}.ss.", f"{case}.slat."))]
    assert len(names) >= 10
    for key in names:
        name = key.split(".")[-1].removeprefix("rgb_")
        if name.startswith("pointmap_s"):
            moment = getattr(inputs.moments, name.removeprefix("pointmap_"))
            reference.check(moment[None], key)
        else:
            tolerance = "mask" if name in ("mask", "image_mask") else None
            reference.check(inputs.tensors[key.split(".")[-1]], key, tolerance=tolerance)


def test_golden_at_518(golden):
    reference = golden("stage1/preprocess")
    names = [key for key in reference.tensors if ".518s7." in key]
    assert len(names) >= 7
    for key in names:
        inputs = prepare_inputs(*case_inputs(reference, key.split(".")[0]), PreprocessConfig())
        reference.check(inputs.tensors[key.split(".")[-1]][..., ::7, ::7], key)


@pytest.mark.golden_cases("case", "stage1/preprocess", cases)
def test_golden_boxes(golden, case):
    reference = golden("stage1/preprocess")
    _, mask, _ = case_inputs(reference, case)
    box = crop_box(mask, reference.config["box_size_factor"])
    assert list(box) == reference.config["cases"][case]["bbox_x1y1x2y2"]


@pytest.mark.golden_cases("case", "stage1/preprocess", cases)
def test_stage_2_alone_needs_no_point_map(golden, case):
    reference = golden("stage1/preprocess")
    image, mask, _ = case_inputs(reference, case)
    inputs = prepare_inputs(image, mask, None, config_of(reference))
    assert set(inputs.tensors) == {"image", "rgb_image", "mask", "rgb_image_mask"}
    assert inputs.moments.scale.tolist() == [1, 1, 1]
    assert inputs.moments.shift.tolist() == [0, 0, 0]


def test_user_pointmap_golden(golden):
    reference = golden("stage1/pointmap_moge")
    image = image_tensor(reference["in.rgba"])
    reference.check(image, "pipeline.pts_color")
    actual = pointmap_tensor(reference["user.in.pointmap"], image.shape[1:])
    reference.check(actual, "user.pointmap")


def test_shrink_golden(golden):
    reference = golden("stage1/pointmap_moge")
    reference.check(shrink(reference["downsample.in"]), "downsample.out")


def test_shrink_samples_at_the_factor_not_at_the_ratio_of_sides():
    ramp = torch.arange(1301.0).expand(3, 8, 1301)  # a factor of 0.5 leaves 650.5, cut to 650
    assert float(shrink(ramp)[0, 0, 649]) == pytest.approx(1298.5, abs=1e-3)


@pytest.mark.parametrize(
    ("longer", "expected"),
    [
        (1200, (3, 8, 1200)),
        (1201, (3, 4, 600)),
        (1900, (3, 4, 950)),
        (1901, (3, 2, 475)),
        (4000, (3, 2, 1000)),
    ],
)
def test_shrink_factor_by_longer_side(longer, expected):
    assert shrink(torch.zeros(3, 8, longer)).shape == expected


def test_image_values_are_those_of_double_division():
    levels = torch.arange(256, dtype=torch.uint8)
    image = levels[:, None, None].expand(256, 1, 4)
    expected = (levels.double() / 255).float()
    assert torch.equal(image_tensor(image)[0, :, 0], expected)


def test_flip_is_its_own_inverse_and_spreads_what_is_not_finite():
    points = torch.tensor([[1.0, 2, 3], [INF, 1, 1], [1, -INF, 1], [1, 1, NAN]])
    flipped = flip_frame(points)
    assert flipped[0].tolist() == [-1, -2, 3]
    assert flipped[1:].isnan().all()
    assert flip_frame(flipped)[0].tolist() == [1, 2, 3]


def test_user_pointmap_uses_legacy_nearest_not_nearest_exact():
    """At 5 from 3 pixels the two rules pick different rows."""
    points = torch.arange(3.0)[:, None, None].expand(3, 3, 3)
    rows = pointmap_tensor(points, (5, 5))[0, :, 0]
    assert rows.tolist() == [math.floor(i * 3 / 5) for i in range(5)]
    exact = F.interpolate(points.permute(2, 0, 1)[None], (5, 5), mode="nearest-exact")[0, 0, :, 0]
    assert rows.tolist() != exact.tolist()


def test_nearest_views_follow_float32_index_arithmetic():
    """Sides where floor(i · float32(in / out)) differs from integer arithmetic by one pixel."""
    i = torch.arange(518)

    def source(side):
        return (i.float() * torch.tensor(side / 518, dtype=torch.float32)).floor().long()

    side = next(n for n in range(519, 3000) if not torch.equal(source(n), i * n // 518))
    mask = (torch.arange(side) % 2).float().expand(1, side, side).clone()
    view = prepare_inputs(torch.zeros(3, side, side), mask, None, PreprocessConfig()).tensors
    assert torch.equal(view["rgb_image_mask"][0, 0, 0], mask[0, 0, source(side)])
    assert not torch.equal(view["rgb_image_mask"][0, 0, 0], mask[0, 0, i * side // 518])


def moments_of(points, mask):
    """`pointmap_moments` of a single row of points (n, 3) and mask values (n,)."""
    row = torch.tensor(points, dtype=torch.float32).T[:, None]  # (3, 1, n)
    return pointmap_moments(row, torch.tensor(mask, dtype=torch.float32)[None, None])


def test_medians_take_the_lower_of_two_middle_values():
    """Four object points and four distances, so both medians have two middle values."""
    points = [[0, 0, 1], [1, 0, 1], [4, 0, 1], [9, 0, 1]]
    moments = moments_of(points, [1, 1, 1, 1])
    assert moments.shift.tolist() == [1, 0, 1]  # not 4, not 2.5
    assert moments.scale.tolist() == [1, 1, 1]  # distances 1, 0, 3, 8: lower middle 1, not 3


def test_scale_is_of_the_whole_image_and_shift_of_the_object():
    points = [[0, 0, 1], [0, 0, 1], [5, 0, 1], [6, 0, 1], [7, 0, 1]]
    moments = moments_of(points, [1, 1, 0, 0, 0])
    assert moments.shift.tolist() == [0, 0, 1]
    assert moments.scale.tolist() == [5, 5, 5]


def test_distance_is_the_largest_of_the_channels_and_nan_if_any_is():
    points = [[0, 0, 0], [1, -7, 2], [2, 1, 7], [NAN, 50, 50], [50, NAN, 50]]
    moments = moments_of(points, [1, 0, 0, 0, 0])
    assert moments.scale.tolist() == [7, 7, 7]


def test_mask_at_one_half_is_not_object():
    with pytest.raises(InputError, match=r"above 0\.5"):
        moments_of([[0, 0, 1], [1, 1, 1]], [0.5, 0.0])


def test_object_without_points_has_unit_moments():
    moments = moments_of([[NAN, NAN, NAN], [1, 1, 1]], [1, 0])
    assert (moments.scale.tolist(), moments.shift.tolist()) == ([1, 1, 1], [0, 0, 0])


@pytest.mark.parametrize(
    "points", [[[1, 1, 1]] * 4, [[INF, 1, 1]] * 3 + [[1, 1, 1]]], ids=["flat", "infinite"]
)
def test_unusable_moments_are_refused(points):
    with pytest.raises(InputError, match="point map"):
        moments_of(points, [1, 1, 1, 1])


def box_mask(height, width, y0, y1, x0, x1):
    mask = torch.zeros(1, height, width)
    mask[:, y0 : y1 + 1, x0 : x1 + 1] = 0.1  # any alpha above 0 counts
    return mask


def test_box_truncates_towards_zero_and_excludes_plus_one():
    # x 0..5: width 5, side int(6.0) = 6, half 3, center 2.5: int(-0.5) = 0, int(5.5) = 5
    assert crop_box(box_mask(40, 40, 20, 24, 0, 5), 1.2) == (0, 19, 5, 25)


def test_box_one_pixel_off_square_is_padded_with_nan_and_image_border_with_zero():
    image, mask = torch.ones(3, 40, 40), box_mask(40, 40, 20, 24, 0, 5).ceil()
    grid = torch.arange(1600.0).view(1, 40, 40)
    pointmap = torch.cat([grid, grid * 0.5, grid + 1])
    inputs = prepare_inputs(image, mask, pointmap, PreprocessConfig())
    view = inputs.tensors["pointmap"][0]  # 5 wide, 6 high, padded to 6 x 6 on the right
    assert view[:, :, -80:].isnan().all()
    assert not view[:, :, :400].isnan().any()
    assert (inputs.tensors["image"][0, :, :, -40:] == 0).all()

    corner = box_mask(40, 40, 0, 6, 10, 20).ceil()  # the crop leaves the image at the top
    assert crop_box(corner, 1.2) == (9, -3, 21, 9)  # 3 of 12 rows
    view = prepare_inputs(image, corner, pointmap, PreprocessConfig()).tensors["pointmap"][0]
    assert (view[:, :120] == 0).all()
    assert not view.isnan().any()


def test_full_pointmap_is_padded_with_zero():
    pointmap = torch.randn(3, 30, 60)
    inputs = prepare_inputs(
        torch.ones(3, 30, 60), box_mask(30, 60, 5, 20, 5, 20).ceil(), pointmap, PreprocessConfig()
    )
    view = inputs.tensors["rgb_pointmap"][0]
    assert (view[:, :120] == 0).all()
    assert (view[:, -120:] == 0).all()
    assert not view.isnan().any()


def plain_inputs(image, mask, pointmap, config):
    """The twin of `prepare_inputs`: normalize the photo first, then crop, pad and resize."""
    moments = pointmap_moments(pointmap, mask)
    points = (pointmap - moments.shift[:, None, None]) / moments.scale[:, None, None]
    points[:, ~points.isfinite().all(0)] = NAN
    x1, y1, x2, y2 = crop_box(mask, config.box_factor)

    def cut(x):
        out = torch.zeros(len(x), y2 - y1, x2 - x1)
        for row in range(y1, y2):
            for column in range(x1, x2):
                if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                    out[:, row - y1, column - x1] = x[:, row, column]
        return out

    def square(x, value):
        gap = x.shape[1] - x.shape[2]
        across, down = max(gap, 0), max(-gap, 0)
        sides = (across // 2, across - across // 2, down // 2, down - down // 2)
        return F.pad(x, sides, value=value)

    size = (config.size, config.size)
    nearest = {"mode": "nearest"}
    smooth = {"mode": "bilinear", "antialias": True, "align_corners": False}
    plan = {
        "image": (square(cut(image), 0), smooth),
        "mask": (square(cut(mask), 0), nearest),
        "pointmap": (square(cut(points), NAN), nearest),
        "rgb_image": (square(image, 0), smooth),
        "rgb_image_mask": (square(mask, 0), nearest),
        "rgb_pointmap": (square(points, 0), nearest),
    }
    return {name: F.interpolate(x[None], size, **how) for name, (x, how) in plan.items()}


@pytest.mark.parametrize("seed", range(12))
def test_against_plain_twin(seed):
    random = torch.Generator().manual_seed(seed)
    height, width = torch.randint(12, 50, (2,), generator=random).tolist()
    image = torch.rand(3, height, width, generator=random)
    y0, x0 = (int(torch.randint(0, n - 6, (), generator=random)) for n in (height, width))
    y1, x1 = (
        int(torch.randint(start + 3, n, (), generator=random))
        for start, n in ((y0, height), (x0, width))
    )
    mask = torch.zeros(1, height, width)
    mask[:, y0 : y1 + 1, x0 : x1 + 1] = torch.rand(y1 - y0 + 1, x1 - x0 + 1, generator=random)
    mask[:, y0, x0] = mask[:, y1, x1] = 1
    pointmap = torch.randn(3, height, width, generator=random)
    holes = torch.rand(height, width, generator=random) < 0.2
    pointmap[:, holes] = NAN
    pointmap[0, torch.rand(height, width, generator=random) < 0.05] = INF
    config = PreprocessConfig(size=37)
    actual = prepare_inputs(image, mask, pointmap, config).tensors
    expected = plain_inputs(image, mask, pointmap, config)
    assert list(actual) == [
        "image",
        "rgb_image",
        "mask",
        "rgb_image_mask",
        "pointmap",
        "rgb_pointmap",
    ]
    for name, tensor in expected.items():
        assert torch.equal(actual[name].isnan(), tensor.isnan()), name
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)


def test_cache_keeps_the_full_view_for_the_next_mask():
    image, cache = torch.rand(3, 40, 50), SceneCache()
    masks = [box_mask(40, 50, 5, 20, 5, 20), box_mask(40, 50, 10, 30, 20, 40)]
    views = [prepare_inputs(image, m, None, SIZE_70, cache).tensors["rgb_image"] for m in masks]
    assert views[0] is views[1]
    assert (cache.computed, cache.recalled) == (1, 1)
    assert torch.equal(views[0], full_image(image, SIZE_70))
    other = prepare_inputs(image + 0.1, masks[0], None, SIZE_70, cache).tensors["rgb_image"]
    assert not torch.equal(other, views[0])


def test_the_crop_of_a_mask_is_worked_out_once(monkeypatch):
    boxes = []

    def counted(mask, factor):
        boxes.append(crop_box(mask, factor))
        return boxes[-1]

    monkeypatch.setattr(preprocess, "crop_box", counted)
    prepare_inputs(*GOOD, SIZE_70)
    assert len(boxes) == 1


def test_crop_outside_of_the_image_is_all_fill():
    assert (crop(torch.ones(1, 4, 4), (10, 10, 12, 13)) == 0).all()
    assert pad_square(torch.ones(2, 3, 6), torch.tensor([7.0, 8])).shape == (2, 6, 6)


GOOD = (torch.zeros(3, 20, 30), box_mask(20, 30, 5, 15, 5, 15).ceil(), torch.randn(3, 20, 30))


@pytest.mark.parametrize(
    ("position", "bad", "message"),
    [
        (0, torch.zeros(4, 20, 30), r"image: float32 of shape \(4, 20, 30\)"),
        (0, torch.zeros(3, 20, 30, dtype=torch.uint8), "image: uint8.* floating"),
        (1, torch.ones(1, 20, 31), r"\(1, 20, 31\) must be \(1, 20, 30\).*\(3, 20, 30\)"),
        (2, torch.ones(3, 10, 15), r"point map: shape \(3, 10, 15\) must be \(3, 20, 30\)"),
        (1, torch.zeros(1, 20, 30), "empty"),
        (1, box_mask(20, 30, 5, 5, 5, 5), "1 x 1 px"),
        (1, box_mask(20, 30, 5, 6, 5, 25), "21 x 2 px"),
        (1, box_mask(20, 30, 5, 15, 5, 15), r"above 0\.5"),
    ],
)
def test_bad_input_is_named(position, bad, message):
    inputs = [bad if i == position else x for i, x in enumerate(GOOD)]
    with pytest.raises(InputError, match=message):
        prepare_inputs(*inputs, SIZE_70)


@pytest.mark.parametrize(
    ("function", "bad", "message"),
    [
        (image_tensor, torch.zeros(5, 5, 3), "uint8"),
        (image_tensor, torch.zeros(5, 5, dtype=torch.uint8), r"\(5, 5\)"),
        (mask_tensor, torch.ones(5, 5, dtype=torch.uint8), "uint8.*must be bool"),
        (mask_tensor, torch.full((5, 5), 255.0), "divide"),
        (mask_tensor, torch.full((5, 5), NAN), "between|lie in"),
        (mask_tensor, torch.ones(1, 5, 5, dtype=torch.bool), r"\(1, 5, 5\)"),
        (flip_frame, torch.zeros(3, 5, 5), r"\(3, 5, 5\)"),
        (lambda x: pointmap_tensor(x, (4, 4)), torch.zeros(3, 5, 5), r"\(3, 5, 5\)"),
    ],
)
def test_bad_tensors_are_named(function, bad, message):
    with pytest.raises(InputError, match=message):
        function(bad)


def test_the_unit_of_an_object_does_not_depend_on_the_rest_of_the_photo():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 20, 24, generator=generator)
    mask = torch.zeros(1, 20, 24)
    mask[:, 5:12, 6:15] = 1
    far = points.where(mask > 0.5, points * 50)
    near, again = (pointmap_moments(p, mask, "object") for p in (points, far))
    assert torch.equal(near.scale, again.scale)
    inside = points[:, 5:12, 6:15].flatten(1)
    wanted = (inside - near.shift[:, None]).abs().amax(0).median()
    assert torch.equal(near.scale, wanted.expand(3))
    assert not torch.equal(pointmap_moments(far, mask).scale, again.scale)
