"""Gaussian decoders, activations and their inverses, PLY tables, scenes."""

import math

import numpy as np
import published
import pytest
import torch
from coordinates import voxels
from harness import Golden, fill, manifest, shapes
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import (
    SMALL_SPLAT_DECODER,
    SPLAT_DECODER_4,
    SPLAT_DECODER_32,
    GaussianConfig,
    SplatDecoderConfig,
)
from sam3d_nb.model.gaussian_scene import merge, normalize_for_video, place
from sam3d_nb.model.gaussians import PLY_PROPERTIES, GaussianSet
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.layout import Layout
from sam3d_nb.model.splat_decoder import SplatDecoder, build_splat_decoder, radical_inverse

SETTINGS = ["slat_decoder_gs", "slat_decoder_gs_4"]


def filled(config: SplatDecoderConfig) -> SplatDecoder:
    decoder = build_splat_decoder(config)
    fill(decoder)
    return decoder


def check_raw(data: Golden, actual: GaussianSet, prefix: str = "") -> None:
    data.check(actual.raw_xyz, f"{prefix}_xyz")
    data.check(actual.raw_color[:, None], f"{prefix}_features_dc")
    data.check(actual.raw_scale, f"{prefix}_scaling")
    data.check(actual.raw_rotation, f"{prefix}_rotation")
    data.check(actual.raw_opacity, f"{prefix}_opacity")


def check_activated(data: Golden, actual: GaussianSet, prefix: str = "") -> None:
    data.check(actual.xyz, f"{prefix}get_xyz")
    data.check(actual.scale, f"{prefix}get_scaling")
    data.check(actual.rotation, f"{prefix}get_rotation")
    if f"{prefix}rgb" in data.tensors:
        data.check(actual.opacity, f"{prefix}get_opacity")
        data.check(actual.rgb, f"{prefix}rgb")


def check_ply(data: Golden, actual: GaussianSet, key: str, opacity_atol: float) -> None:
    """Compare the table with the bytes of a whole file."""
    head, _, body = data[key].numpy().tobytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in head.decode().splitlines() if "property" in line]
    assert names == list(PLY_PROPERTIES)
    expected = torch.from_numpy(np.frombuffer(body, "<f4").reshape(-1, 17).copy())
    table = actual.ply_table()
    assert table.dtype == torch.float32
    bounds = data.tolerance(key)["atol"] + data.tolerance(key)["rtol"] * expected.abs()
    bounds[:, 9] = bounds[:, 9].clamp_min(opacity_atol)
    assert ((table - expected).abs() <= bounds).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_golden(golden, name: str) -> None:
    data: Golden = golden(f"stage2/{name}")
    decoder = filled(published.splat_decoder(data.config))
    grid = Grid(data["coords"], data.config["resolution"])
    data.check(decoder.offset_perturbation, "offset_perturbation")
    data.check(decoder.channels(data["slat"], grid), "raw")
    gaussians = decoder(data["slat"], grid)
    check_raw(data, gaussians)
    check_activated(data, gaussians)
    check_ply(data, gaussians, "ply", opacity_atol=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_full_size_golden(golden, name: str) -> None:
    data: Golden = golden(f"stage2/full_{name}")
    decoder = filled(published.splat_decoder(data.config))
    grid = Grid(data["coords"], data.config["resolution"])
    data.check(decoder.channels(data["slat"], grid), "out_feats")
    data.check(grid.coords, "out_coords")


@pytest.mark.parametrize(
    ("name", "config"),
    [("slat_decoder_gs", SPLAT_DECODER_32), ("slat_decoder_gs_4", SPLAT_DECODER_4)],
)
def test_manifest(name: str, config: SplatDecoderConfig) -> None:
    assert shapes(build_splat_decoder(config, device="meta")) == manifest(name)


def test_head_norm_has_eps_1e_5() -> None:
    """No golden file catches the eps of the head's norm."""
    decoder = filled(SMALL_SPLAT_DECODER)
    with torch.no_grad():
        decoder.input_layer.weight.zero_()
        decoder.input_layer.bias.zero_()
        for block in decoder.blocks:
            for parameter in block.parameters():
                parameter.zero_()
    grid = Grid(torch.zeros(1, 4, dtype=torch.int32), 16)  # position embedding: zeros and ones
    h = torch.tensor([0.0] * 16 + [1.0] * 16).repeat(3)
    shrunk = 1e-3 * h
    with torch.no_grad():
        decoder.input_layer.bias.copy_(shrunk - h)
    expected = (shrunk - shrunk.mean()) / (shrunk.var(correction=0) + 1e-5).sqrt()
    actual = decoder.channels(torch.zeros(1, 8), grid)
    torch.testing.assert_close(actual[0], decoder.out_layer(expected), rtol=1e-3, atol=1e-4)


def test_channels_by_loops() -> None:
    """Field, voxel and gaussian order, one number at a time."""
    decoder = filled(SMALL_SPLAT_DECODER)
    count, grid = 8, Grid(voxels(5, 16), 16)
    raw = torch.randn(len(grid), 14 * count)
    gaussians = decoder.to_gaussians(raw, grid)
    for v in range(len(grid)):
        for g in range(count):
            row = v * count + g
            assert gaussians.raw_opacity[row, 0] == raw[v, 13 * count + g]
            for axis in range(3):
                assert gaussians.raw_color[row, axis] == raw[v, 3 * count + 3 * g + axis]
                assert gaussians.raw_scale[row, axis] == raw[v, 6 * count + 3 * g + axis]
                spread = decoder.offset_perturbation[g, axis]
                shift = math.tanh(raw[v, 3 * g + axis] + spread) * 0.5 * 1.5 / 16
                expected = (int(grid.xyz[v, axis]) + 0.5) / 16 + shift
                assert float(gaussians.raw_xyz[row, axis]) == pytest.approx(expected, abs=1e-6)
            for axis in range(4):
                expected = 0.1 * float(raw[v, 9 * count + 4 * g + axis])
                assert float(gaussians.raw_rotation[row, axis]) == pytest.approx(expected, rel=1e-5)


def test_radical_inverse() -> None:
    assert [radical_inverse(n, 2) for n in range(6)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625]
    assert [radical_inverse(n, 3) for n in (1, 3, 5)] == pytest.approx([1 / 3, 1 / 9, 7 / 9])


def test_decoder_learns() -> None:
    decoder = SplatDecoder(SMALL_SPLAT_DECODER)
    grid = Grid(voxels(10, 16), 16)
    gaussians = decoder(torch.randn(len(grid), 8), grid)
    total = sum(
        getattr(gaussians, name).square().mean()
        for name in ("xyz", "rgb", "scale", "rotation", "opacity")
    )
    assert isinstance(total, Tensor)
    total.backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_half_precision(dtype: torch.dtype, limit: float) -> None:
    """Relative error of the raw channels; heads and activations are float32."""
    exact, half = filled(SMALL_SPLAT_DECODER), build_splat_decoder(SMALL_SPLAT_DECODER, dtype=dtype)
    half.load_state_dict(exact.state_dict())
    grid = Grid(voxels(100, 16), 16)
    latent = torch.randn(len(grid), 8)
    a, b = exact.channels(latent, grid), half.channels(latent, grid)
    assert b.dtype == torch.float32
    error = (b - a).norm() / a.norm()
    assert error < limit, f"{error:.2e}"


def test_bad_latent() -> None:
    decoder = filled(SMALL_SPLAT_DECODER)
    grid = Grid(voxels(10, 16), 16)
    latent = torch.zeros(len(grid), 8)
    latent[1, 1] = torch.nan
    with pytest.raises(InputError, match=r"1 of .* rows of the latent"):
        decoder(latent, grid)
    with pytest.raises(InputError, match=r"shape \(2, 8\)"):
        decoder(latent[:2], grid)


# --- Activations, files, scenes ---------------------------------------------------------------


def random_set(count: int = 50, kernel_size: float = 0.0009, seed: int = 0) -> GaussianSet:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, width, generator=generator) for width in (3, 3, 3, 4, 1)]
    return GaussianSet(*parts, kernel_size=kernel_size)


def test_ply_table_reads_back() -> None:
    original = random_set(kernel_size=0.002)
    copy = GaussianSet.from_ply_table(original.ply_table(), kernel_size=0.002)
    for name in ("raw_xyz", "raw_color", "raw_scale", "raw_rotation", "raw_opacity"):
        torch.testing.assert_close(getattr(copy, name), getattr(original, name), msg=name)
    for name in ("xyz", "rgb", "scale", "rotation", "opacity"):
        torch.testing.assert_close(getattr(copy, name), getattr(original, name), msg=name)


def test_reading_scales_below_the_kernel_gives_no_nan() -> None:
    merged = merge([random_set(), random_set(kernel_size=0.01)])
    copy = GaussianSet.from_ply_table(merged.ply_table(), kernel_size=0.01)
    assert copy.raw_scale.isfinite().all()
    floor = merged.scale.clamp_min(0.01)
    torch.testing.assert_close(copy.scale, floor, rtol=1e-4, atol=1e-6)


def test_saturated_opacity_stays_finite() -> None:
    gaussians = random_set(1)
    full = GaussianSet(
        gaussians.raw_xyz, gaussians.raw_color, gaussians.raw_scale, gaussians.raw_rotation,
        torch.full((1, 1), 60.0),
    )  # fmt: skip
    assert float(full.opacity) == 1
    assert full.ply_table().isfinite().all()


def load_set(data: Golden, prefix: str, settings: GaussianConfig) -> GaussianSet:
    return GaussianSet(
        data[f"{prefix}_xyz"],
        data[f"{prefix}_features_dc"][:, 0],
        data[f"{prefix}_scaling"],
        data[f"{prefix}_rotation"],
        data[f"{prefix}_opacity"],
        settings.kernel_size,
        settings.scale_bias,
        settings.opacity_bias,
    )


def test_scene_golden(golden) -> None:
    data: Golden = golden("stage2/make_scene")
    settings = published.gaussians(data.config["representation_config"])
    placed = [
        place(
            load_set(data, f"in{n}.", settings),
            Layout(data[f"in{n}.rotation"], data[f"in{n}.translation"], data[f"in{n}.scale"]),
        )
        for n in range(data.config["objects"])
    ]
    scene = merge(placed)
    for name, actual in (("first", merge(placed[:1])), ("scene", scene)):
        check_raw(data, actual, f"{name}.")
        check_activated(data, actual, f"{name}.")
        size = torch.tensor([actual.kernel_size], dtype=torch.float64)
        data.check(size, f"{name}.mininum_kernel_size")
    check_ply(data, scene, "scene.ply", data.info["tolerance"]["ply opacity column"]["atol"])
    for name, fix in (("video", False), ("video_fixed", True)):
        actual = normalize_for_video(scene, fix_axes=fix)
        check_activated(data, actual, f"{name}.")
        size = torch.tensor([actual.kernel_size], dtype=torch.float64)
        data.check(size, f"{name}.mininum_kernel_size")


def test_placing_moves_the_ellipsoids_with_the_points() -> None:
    """A covariance turns as the rows of points do: R^T S R, with scale squared."""
    gaussians = random_set()
    q = F.normalize(torch.tensor([[0.5, -0.2, 0.7, 0.1]]), dim=-1)
    layout = Layout(q, torch.tensor([[1.0, 2.0, 3.0]]), torch.full((1, 3), 0.5))
    placed = place(gaussians, layout)
    turn = matrix(q[0])
    expected = gaussians.xyz * 0.5 @ turn + layout.translation
    torch.testing.assert_close(placed.xyz, expected, rtol=1e-4, atol=1e-4)
    before, after = covariance(gaussians), covariance(placed)
    torch.testing.assert_close(after, 0.25 * turn.T @ before @ turn, rtol=1e-3, atol=1e-4)


def matrix(q: Tensor) -> Tensor:
    w, x, y, z = q.tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def covariance(gaussians: GaussianSet) -> Tensor:
    turn = torch.stack([matrix(q) for q in gaussians.rotation])
    return turn @ torch.diag_embed(gaussians.scale.square()) @ turn.mT


def test_bad_sets() -> None:
    good = random_set(4)
    with pytest.raises(InputError, match=r"raw_color of 4 gaussians must be \(4, 3\): \(3, 3\)"):
        GaussianSet(
            good.raw_xyz, good.raw_color[:3], good.raw_scale, good.raw_rotation, good.raw_opacity
        )
    with pytest.raises(InputError, match=r"\(K, 17\), got \(4, 16\)"):
        GaussianSet.from_ply_table(torch.zeros(4, 16))
    with pytest.raises(InputError, match="no gaussian set"):
        merge([])
    with pytest.raises(InputError, match="one positive scale"):
        place(good, Layout(torch.eye(4)[:1], torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 1.0]])))
    dim = GaussianSet(
        good.raw_xyz, good.raw_color, good.raw_scale, good.raw_rotation, good.raw_opacity - 9
    )
    with pytest.raises(InputError, match=r"none of 4 gaussians has an opacity above 0.9"):
        normalize_for_video(dim)
    other = GaussianSet(
        good.raw_xyz, good.raw_color, good.raw_scale, good.raw_rotation, good.raw_opacity,
        scale_bias=0.01,
    )  # fmt: skip
    with pytest.raises(InputError, match="2 different activation biases"):
        merge([good, other])
