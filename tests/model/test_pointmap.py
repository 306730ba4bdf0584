"""MoGe v1: golden files, options, published configuration, bad input."""

import math
import warnings
from dataclasses import replace

import published
import pytest
import torch
from harness import fill, manifest, shapes

from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import SMALL_MOGE, MogeConfig, VisionConfig
from sam3d_nb.model.focal import recover_focal, uv_map
from sam3d_nb.model.moge import (
    Moge,
    ResidualBlock,
    append_uv,
    build_moge,
    remap,
    resized_size,
)
from sam3d_nb.model.pointmap import (
    PointMapOptions,
    estimate_pointmap,
    locate,
    moge_config,
    tokens_at_level,
)
from sam3d_nb.model.preprocess import flip_frame, image_tensor


def test_published_names_and_shapes():
    network = build_moge(device="meta")
    assert shapes(network) == manifest("moge")
    assert sum(p.numel() for p in network.parameters()) == 314_174_020


def test_small_configuration_has_the_golden_names(golden):
    reference = golden("pointmap/forward")
    names = reference.info["names"]
    network = shapes(build_moge(published.moge(reference.config)))
    del network["image_mean"], network["image_std"]
    assert network == {k: tuple(v) for k, v in names.items() if k in network}
    assert set(names) - set(network) <= {"image_mean", "image_std"}


def test_token_grid_golden(golden):
    reference = golden("pointmap/token_grid")
    for height, width, tokens, *expected in reference["grid"].tolist():
        patch = reference.config["patch_size"]
        h, w = resized_size(height, width, tokens, patch)
        assert [h, w, h // patch, w // patch] == expected
    for low, high, level, tokens in reference["levels"].tolist():
        assert tokens_at_level((low, high), level) == tokens


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_residual_block_golden(golden, norm):
    reference = golden("pointmap/res_block")
    config = reference.config
    block = ResidualBlock(config["in"], config["hidden"], f"{norm}_norm")
    fill(block, config["weight_prefix"][norm])
    for size in ("", "_small"):
        reference.check(block(reference[f"x{size}"][None])[0], f"out{size}_{norm}")


@pytest.mark.parametrize("mode", ["linear", "sinh", "exp", "sinh_exp"])
def test_remap_golden(golden, mode):
    reference = golden("pointmap/remap")
    reference.check(remap(reference["raw"], mode), mode)


@pytest.fixture(scope="module")
def small():
    return fill(build_moge(SMALL_MOGE))


def runs(reference):
    return reference.info["runs"]


@pytest.mark.golden_cases("run", "pointmap/forward", runs)
def test_forward_golden(golden, run):
    reference = golden("pointmap/forward")
    network = fill(build_moge(published.moge(reference.config)))
    info = reference.info["runs"][run]
    image = image_tensor(reference[f"{run}.image"])
    resized = resized_size(info["height"], info["width"], info["num_tokens"])
    assert list(resized) == info["resized"]
    actual = trace(network, image, resized, info["num_tokens"])
    names = [key for key in reference.tensors if key.startswith(f"{run}.")]
    names.remove(f"{run}.image")
    for key in names:
        name = key.split(".")[1]
        reference.check(actual[name], key, tolerance=name)


def trace(network: Moge, image, resized, tokens):
    """Return the intermediate tensors that the golden file holds, by name."""
    x = network.backbone_input(image, resized)
    maps = network.backbone.feature_maps(x, network.taken_blocks)
    aspect = resized[1] / resized[0]
    levels = [network.head.project(maps)]
    for level in network.head.upsample_blocks:
        levels.append(level(append_uv(levels[-1], aspect)))
    head_points, head_mask = network.head(maps, resized)
    points, mask = network(image, tokens)
    return {
        "image_norm": network.normalized(image, resized)[:, ::2, ::2],
        "image_14": x[0],
        **{f"feature_{i}": feature[0] for i, feature in enumerate(maps)},
        "level_in_0": append_uv(levels[0], aspect)[0],
        "level_out_0": levels[1][0],
        "level_out_1": levels[2][0, ::2],
        "uv_level_1": append_uv(levels[1], aspect)[0, -2:],
        "uv_output": append_uv(torch.zeros(1, 1, *resized), aspect)[0, 1:, ::6, ::6],
        "head_points": head_points[0],
        "head_mask": head_mask[0],
        "points": points,
        "mask": mask,
    }


@pytest.mark.slow
def test_full_forward_golden(golden):
    reference = golden("pointmap/full_forward")
    network = fill(build_moge(moge_config(reference.config["model_config"])))
    image = image_tensor(reference["image"])
    resized = resized_size(*image.shape[1:], reference.config["num_tokens"])
    x = network.backbone_input(image, resized)
    maps = network.backbone.feature_maps(x, network.taken_blocks)
    aspect = resized[1] / resized[0]
    reference.check(maps[0][0, ::8], "feature_0")
    reference.check(maps[3][0, ::8], "feature_3")
    level = network.head.project(maps)
    reference.check(append_uv(level, aspect)[0, ::4], "level_in_0")
    for block in network.head.upsample_blocks:
        level = block(append_uv(level, aspect))
    reference.check(level[0, ::4], "level_out_2")
    points, mask = network(image, reference.config["num_tokens"])
    reference.check(points, "points")
    reference.check(mask, "mask")


def formula_image(height, width, phase):
    """The images of the golden file `infer`, as its json describes them."""
    x = ((torch.arange(width, dtype=torch.float64) + 0.5) / width)[None]
    y = ((torch.arange(height, dtype=torch.float64) + 0.5) / height)[:, None]
    red = 0.5 + 0.4 * torch.sin(6 * x + 3 * y + phase)
    green = 0.5 + 0.4 * torch.cos(9 * x * y + phase + 1)
    blue = 0.3 + 0.5 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.08).double()
    return image_tensor((torch.stack([red, green, blue], -1) * 255).round().to(torch.uint8))


def call_options(info):
    call = dict(info["call"])
    if "resolution_level" in call:
        call["level"] = call.pop("resolution_level")
    return PointMapOptions(**call)


@pytest.mark.golden_cases("run", "pointmap/infer", runs)
def test_infer_golden(golden, run):
    reference = golden("pointmap/infer")
    info = reference.info["runs"][run]
    network = infer_network(reference, run, info["mask_threshold"])
    image = formula_image(info["height"], info["width"], reference.info["phase"][run])
    result = estimate_pointmap(network, image, call_options(info))
    raw_points, raw_mask = network(image, info["num_tokens"])
    near = (raw_mask - info["mask_threshold"]).abs() < 2e-4
    actual = {
        "raw_points": raw_points,
        "raw_mask": raw_mask,
        "focal": torch.tensor(result.focal),
        "shift": torch.tensor(result.shift),
        "intrinsics": result.intrinsics,
        "mask": result.mask,
        "points": result.points,
        "depth": result.depth,
        "pointmap": flip_frame(result.points).permute(2, 0, 1),
    }
    names = [key.split(".")[1] for key in reference.tensors if key.startswith(f"{run}.")]
    assert {"mask", "intrinsics", "focal", "shift"} <= set(names)
    for name in names:
        expected = reference[f"{run}.{name}"]
        if name in ("mask", "points", "depth", "pointmap"):  # not where the mask is a coin toss
            place = {"points": near[..., None], "pointmap": near[None]}.get(name, near)
            blank = expected.new_zeros(())
            reference.tensors[f"{run}.{name}"] = expected.where(~place, blank)
            actual[name] = actual[name].to(expected.dtype).where(~place, blank)
        tolerance = "points" if name == "pointmap" else name
        reference.check(actual[name], f"{run}.{name}", tolerance=tolerance)


def infer_network(reference, run, threshold):
    """Return the small network with the run's overrides and mask threshold."""
    config = replace(published.moge(reference.config), mask_threshold=threshold)
    network = fill(build_moge(config))
    if run != "standin":
        state = {name: reference[f"override.{name}"] for name in reference.info["overrides"]}
        missing = network.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys
    return network


def test_pipeline_pointmap_golden(golden):
    reference = golden("stage1/pointmap_moge")
    valid = reference["in.raw_mask_logits"] > reference.config["mask_threshold_on_logits"]
    result = locate(reference["in.raw_points"], valid, PointMapOptions())
    assert torch.equal(result.mask, reference["moge.mask"] != 0)
    reference.check(result.points, "moge.points")
    reference.check(result.intrinsics, "moge.intrinsics")
    reference.check(flip_frame(result.points).permute(2, 0, 1), "pipeline.pointmap")
    assert tokens_at_level(MogeConfig().token_range, 9) == reference.config["num_tokens"][0]


# --- inference --------------------------------------------------------------------------------


def test_point_map_is_computed_once_for_a_scene(small, monkeypatch):
    calls = []
    forward = Moge.forward
    monkeypatch.setattr(Moge, "forward", lambda *a: calls.append(1) or forward(*a))
    image, cache = formula_image(40, 60, 0.0), SceneCache()
    alone = estimate_pointmap(small, image)
    first = estimate_pointmap(small, image, cache=cache)
    again = estimate_pointmap(small, image.clone(), cache=cache)
    assert again is first
    assert len(calls) == 2
    assert torch.equal(first.points, alone.points)
    other = estimate_pointmap(small, image, PointMapOptions(level=3), cache)
    assert other is not first
    assert len(calls) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(golden, dtype):
    network = infer_network(golden("pointmap/infer"), "default", 0.5)
    image = formula_image(40, 60, 0.0)
    exact, exact_mask = network(image, 91)
    mixed = build_moge(network.config, dtype=dtype)
    mixed.load_state_dict(network.state_dict())
    for lower in (mixed, network.to(dtype)):
        half, half_mask = lower(image, 91)
        assert half.dtype == half_mask.dtype == torch.float32
        error = (half - exact).norm() / exact.norm()
        assert error < {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        assert ((half_mask > 0.5) != (exact_mask > 0.5)).float().mean() < 0.02


def test_x_and_y_stay_without_projection_and_follow_rays_with_it(small):
    image = formula_image(40, 60, 0.0)
    raw, _ = small(image, 60)
    free = estimate_pointmap(small, image, PointMapOptions(num_tokens=60, apply_mask=False))
    torch.testing.assert_close(free.points[..., :2], raw[..., :2])
    torch.testing.assert_close(free.points[..., 2], raw[..., 2] + free.shift)
    options = PointMapOptions(num_tokens=60, apply_mask=False, force_projection=True)
    bound = estimate_pointmap(small, image, options)
    rays = bound.points[..., :2] / bound.points[..., 2:] * bound.focal
    torch.testing.assert_close(rays, uv_map(40, 60, 1.5, like=rays), rtol=1e-4, atol=1e-4)


def test_the_shift_is_fitted_unless_the_depth_is_known_up_to_a_factor():
    depth = 1 + torch.rand(40, 60, 1, generator=torch.Generator().manual_seed(0))
    rays = uv_map(40, 60, 1.5, like=depth) / 0.8
    shifted = torch.cat([rays * depth, depth - 0.4], dim=-1)
    valid = torch.ones(40, 60, dtype=torch.bool)
    fitted = locate(shifted, valid, PointMapOptions())
    assert (fitted.focal, fitted.shift) == pytest.approx((0.8, 0.4), rel=1e-2)
    kept = locate(shifted, valid, PointMapOptions(fit_shift=False))
    assert kept.shift == 0
    assert kept.focal == pytest.approx(recover_focal(shifted, valid))
    assert kept.focal < 0.7
    exact = torch.cat([rays * depth, depth], dim=-1)
    assert locate(exact, valid, PointMapOptions(fit_shift=False)).focal == pytest.approx(0.8)
    known = PointMapOptions(fit_shift=False, fov_x=50)
    assert 2 * math.degrees(
        math.atan(0.5 / float(locate(exact, valid, known).intrinsics[0, 0]))
    ) == pytest.approx(50)


def test_points_that_fix_no_focal_length_are_told():
    points = torch.ones(8, 8, 3)
    points[..., :2] = 0
    with pytest.raises(InputError, match="fix no camera"):
        recover_focal(points, torch.ones(8, 8, dtype=torch.bool))
    assert recover_focal(points, torch.zeros(8, 8, dtype=torch.bool)) == 1.0


def test_field_of_view_is_that_of_the_intrinsics(small):
    result = estimate_pointmap(small, formula_image(40, 60, 0.0), PointMapOptions(fov_x=50))
    assert 2 * math.degrees(math.atan(0.5 / float(result.intrinsics[0, 0]))) == pytest.approx(50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PointMapOptions(level=10), "level 10"),
        (PointMapOptions(level=-1), "level -1"),
        (PointMapOptions(fov_x=180), "view 180"),
        (PointMapOptions(num_tokens=0), "0 tokens"),
        (PointMapOptions(num_tokens=-3), "-3 tokens"),
    ],
)
def test_bad_options_are_named(small, options, message):
    with pytest.raises(InputError, match=message):
        estimate_pointmap(small, formula_image(40, 60, 0.0), options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 40, 60), r"\(1, 3, 40, 60\)"),
        (torch.zeros(4, 40, 60), r"\(4, 40, 60\)"),
        (torch.zeros(3, 0, 60), r"\(3, 0, 60\)"),
        (torch.zeros(3, 40, 60, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, 5, 4000), "4000 x 5 px"),
    ],
)
def test_bad_images_are_named(small, image, message):
    with pytest.raises(InputError, match=message):
        estimate_pointmap(small, image)


# --- published configuration ------------------------------------------------------------------


def test_released_configuration(golden):
    released = golden("pointmap/full_forward").config["model_config"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert moge_config(released) == MogeConfig()


def test_absent_keys_have_the_constructor_defaults():
    config = moge_config({})
    assert config.vision == VisionConfig(width=768, depth=12, heads=12, registers=0)
    assert (config.level_widths, config.hidden_factor, config.blocks_per_level) == (
        (256, 128, 128),
        1,
        1,
    )
    assert (config.remap, config.token_range) == ("linear", (1200, 2500))


def test_other_settings_are_read():
    config = moge_config(
        {
            "encoder": "dinov2_vits14",
            "intermediate_layers": [2, 5, 8, 11],
            "res_block_norm": "layer_norm",
            "last_res_blocks": 1,
            "last_conv_size": 3,
            "num_tokens_range": [100, 200],
        }
    )
    network = build_moge(config, device="meta")
    assert network.taken_blocks == (2, 5, 8, 11)
    assert "head.output_block.0.3.weight" in network.state_dict()  # moved by the residual block
    assert config.token_range == (100, 200)


def test_unknown_keys_are_named_and_ignored():
    with pytest.warns(UserWarning, match=r"\['color'\]"):
        assert moge_config({"color": 1}) == moge_config({})


@pytest.mark.parametrize(
    "bad",
    [
        {"encoder": "resnet"},
        {"output_mask": False},
        {"remap_output": "log"},
        {"res_block_norm": "none"},
    ],
)
def test_configurations_of_other_networks_are_refused(bad):
    with pytest.raises(WeightsError, match=next(iter(bad)).replace("_", ".")):
        moge_config(bad)
