"""Sparse convolutions and group norm against dense PyTorch and the golden files."""

import pytest
import torch
from coordinates import voxels
from harness import Golden
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model import sparse_conv
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.sparse_conv import (
    PointwiseConv,
    SparseConv,
    VoxelGroupNorm,
    pointwise_conv,
    subdivided_conv,
    submanifold_conv,
    upsampled_conv,
)


def dense_conv(features: Tensor, grid: Grid, weight: Tensor, bias: Tensor) -> Tensor:
    """Scatter into a dense cube, convolve there and read the result at the voxels."""
    side, (b, x, y, z) = grid.resolution, grid.coords.long().unbind(1)
    cube = features.new_zeros(len(grid.items), side, side, side, features.shape[1])
    cube[b, x, y, z] = features
    out = F.conv3d(cube.movedim(-1, 1), weight.permute(0, 4, 1, 2, 3), bias, padding=1)
    return out.movedim(1, -1)[b, x, y, z]


def problem(grid: Grid, rows: int, width: int = 6, out: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(rows, width), make(out, 3, 3, 3, width), make(out)


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request, monkeypatch) -> None:
    if request.param == "many chunks":
        monkeypatch.setattr(sparse_conv, "CHUNK_BYTES", {"cpu": 27 * 6 * 8 * 7})


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("grad", [True, False])
def test_fast_convolutions_against_dense(grad: bool) -> None:
    grid = Grid(voxels(70, 6, items=2), 6)
    with torch.set_grad_enabled(grad):
        features, weight, bias = problem(grid, len(grid))
        actual = submanifold_conv(features, grid, weight, bias)
        torch.testing.assert_close(actual, dense_conv(features, grid, weight, bias))

        fine = grid.subdivided
        actual = subdivided_conv(features, grid, weight, bias)
        expected = dense_conv(grid.subdivide(features), fine, weight, bias)
        torch.testing.assert_close(actual, expected)

        parents, weight, bias = problem(grid, len(grid.parents.grid))
        actual = upsampled_conv(parents, grid, weight, bias)
        torch.testing.assert_close(actual, dense_conv(grid.upsample(parents), grid, weight, bias))


def test_convolution_of_a_convolution_on_subdivided_voxels() -> None:
    grid = Grid(voxels(20, 4), 4).subdivided.subdivided
    features, weight, bias = problem(grid, len(grid))
    actual = submanifold_conv(features, grid, weight, bias)
    torch.testing.assert_close(actual, dense_conv(features, grid, weight, bias))


def test_embedding_bag_is_the_gathered_sum() -> None:
    """CUDA sums taps with `embedding_bag`; here it is held against the plain sum."""
    grid = Grid(voxels(40, 6), 6)
    products = torch.randn((len(grid.parents.grid) + 1) * 27, 5)
    actual = F.embedding_bag(grid.parent_taps, products, mode="sum")
    torch.testing.assert_close(actual, sparse_conv._gathered_sum(products, grid.parent_taps))


def test_pointwise_reads_the_flat_weight_as_in_out() -> None:
    features, weight, bias = torch.randn(7, 3), torch.randn(4, 1, 1, 1, 3), torch.randn(4)
    flat, expected = weight.flatten(), bias.repeat(7, 1)
    for i in range(3):
        for o in range(4):
            expected[:, o] += features[:, i] * flat[i * 4 + o]
    torch.testing.assert_close(pointwise_conv(features, weight, bias), expected)
    ordinary = F.linear(features, weight[:, 0, 0, 0], bias)
    assert not torch.allclose(ordinary, expected)


def test_golden(golden) -> None:
    data: Golden = golden("stage2/sparse_conv")
    grid = Grid(data["coords"])
    data.check(submanifold_conv(data["feats"], grid, data["weight"], data["bias"]), "out")
    out = pointwise_conv(data["feats"], data["weight_1x1"], data["bias_1x1"])
    data.check(out, "out_1x1")


def test_gradients() -> None:
    grid = Grid(voxels(6, 3), 3)
    for conv, rows in (
        (submanifold_conv, len(grid)),
        (upsampled_conv, len(grid.parents.grid)),
    ):
        inputs = [x.requires_grad_() for x in problem(grid, rows, width=2, out=2)]
        assert torch.autograd.gradcheck(lambda f, w, b, c=conv: c(f, grid, w, b), inputs)
    features, weight, bias = (x.requires_grad_() for x in problem(grid, len(grid), 2, 2))
    fast = subdivided_conv(features, grid, weight, bias).square().sum()
    fine = dense_conv(grid.subdivide(features), grid.subdivided, weight, bias).square().sum()
    inputs = (features, weight, bias)
    for a, b in zip(
        torch.autograd.grad(fast, inputs), torch.autograd.grad(fine, inputs), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 6e-4), (torch.bfloat16, 5e-3)])
def test_half_precision(dtype: torch.dtype, limit: float) -> None:
    """Relative error of one convolution: rounding of inputs, weights and result."""
    grid = Grid(voxels(300, 9), 9)
    parents = len(grid.parents.grid)
    for conv, rows in (
        (submanifold_conv, len(grid)),
        (subdivided_conv, len(grid)),
        (upsampled_conv, parents),
    ):
        features, weight, bias = (x.float() for x in problem(grid, rows, 64, 32))
        weight = weight / (27 * 64) ** 0.5
        exact = conv(features, grid, weight, bias)
        half = conv(features.to(dtype), grid, weight.to(dtype), bias.to(dtype))
        assert half.dtype == dtype
        error = (half.float() - exact).norm() / exact.norm()
        assert error < limit, f"{conv.__name__}: {error:.2e}"


def test_group_norm_over_the_voxels_of_each_item() -> None:
    grid = Grid(voxels(40, 5, items=2), 5)
    norm = VoxelGroupNorm(12, groups=4)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    features = torch.randn(len(grid), 12) * 3 + 5
    assert norm.eps == 1e-5
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            actual = norm(features, grid)
            for rows in grid.items:
                one = F.group_norm(features[rows].T[None], 4, norm.weight, norm.bias, 1e-5)[0].T
                torch.testing.assert_close(actual[rows], one)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_group_norm_of_half_precision_keeps_a_large_mean(dtype: torch.dtype, grad: bool) -> None:
    grid = Grid(voxels(500, 9), 9)
    features = (torch.randn(len(grid), 64) + 100).to(dtype)
    norm = VoxelGroupNorm(64)
    with torch.set_grad_enabled(grad):
        actual = norm(features, grid)
    expected = F.group_norm(features.double().T[None], 32)[0].T
    assert actual.dtype == dtype
    rounding = torch.finfo(dtype).eps * expected.abs() + 1e-3
    assert ((actual.double() - expected).abs() <= rounding).all()


def test_wrong_shapes() -> None:
    grid = Grid(voxels(10, 4), 4)
    conv = SparseConv(6, 5)
    with pytest.raises(InputError, match=r"shape \(3, 6\) do not fit a grid of \d+ voxels"):
        conv(torch.zeros(3, 6), grid)
    with pytest.raises(InputError, match=rf"give \({len(grid)}, 6\)"):
        conv.subdivided(torch.zeros(len(grid), 4), grid)
    with pytest.raises(InputError, match=f"grid of {len(grid.parents.grid)} voxels"):
        conv.upsampled(torch.zeros(len(grid) + 1, 6), grid)
    with pytest.raises(InputError, match="do not fit"):
        VoxelGroupNorm(32)(torch.zeros(len(grid), 31), grid)


def test_names() -> None:
    assert {k: tuple(v.shape) for k, v in SparseConv(6, 5).state_dict().items()} == {
        "conv.weight": (5, 3, 3, 3, 6),
        "conv.bias": (5,),
    }
    assert PointwiseConv(6, 5).conv.weight.shape == (5, 1, 1, 1, 6)
