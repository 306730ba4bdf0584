"""The fused CUDA kernels against their plain paths; they need a card, so other machines skip."""

import pytest
import torch
from coordinates import voxels
from torch import nn
from torch.nn import functional as F

from sam3d_nb.model import kernels, layers, residual, sparse_conv, windows
from sam3d_nb.model.grid import Grid

CARD = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
needs_card = pytest.mark.skipif(not CARD, reason="needs an NVIDIA card from Ampere on")
HALF = [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)]


def test_plain_paths_elsewhere() -> None:
    """The processor, float32 and gradients never meet a fused kernel."""
    assert not kernels.fuses(torch.zeros(1, dtype=torch.float16))
    if CARD:
        with torch.no_grad():
            assert not kernels.fuses(torch.zeros(1, device="cuda"))
        assert not kernels.fuses(torch.zeros(1, dtype=torch.float16, device="cuda"))


def test_linear_gelu_is_linear_then_gelu() -> None:
    layer, x = nn.Linear(6, 10), torch.randn(3, 4, 6)
    expected = F.gelu(layer(x), approximate="tanh")
    torch.testing.assert_close(kernels.linear_gelu(x, layer), expected)


def test_linear_gelu_does_without_the_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_is_half_inference", lambda *_: True)
    monkeypatch.delattr(torch, "_addmm_activation")
    test_linear_gelu_is_linear_then_gelu()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
@pytest.mark.parametrize(("width", "out"), [(16, 24), (96, 96), (128, 128), (256, 130), (40, 8)])
def test_gathered_linear(width: int, out: int, dtype: torch.dtype, limit: float) -> None:
    grid = Grid(voxels(500, 12).cuda(), 12)
    make = lambda *shape: torch.randn(shape, device="cuda", dtype=dtype)  # noqa: E731
    features, bias = make(len(grid), width), make(out)
    weight = make(out, 27 * width) / (27 * width) ** 0.5
    assert kernels.fuses(features)
    gathered = sparse_conv.with_zero_row(features.double())[grid.neighbors.long()].flatten(1)
    for b in (bias, None):
        actual = kernels.gathered_linear(features, grid.neighbors, weight, b)
        expected = F.linear(gathered, weight.double(), None if b is None else b.double())
        assert actual.dtype == dtype
        assert (actual.double() - expected).norm() < limit * expected.norm()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
def test_convolutions(dtype: torch.dtype, limit: float) -> None:
    """Every convolution on the card against float64 on the processor."""
    grid = Grid(voxels(300, 9, items=2), 9)
    for conv, rows in (
        (sparse_conv.submanifold_conv, len(grid)),
        (sparse_conv.subdivided_conv, len(grid)),
        (sparse_conv.upsampled_conv, len(grid.parents.grid)),
    ):
        features, bias = torch.randn(rows, 64).to(dtype), torch.randn(32).to(dtype)
        weight = (torch.randn(32, 3, 3, 3, 64) / 42).to(dtype)
        expected = conv(features.double(), grid, weight.double(), bias.double())
        actual = conv(features.cuda(), grid.to("cuda"), weight.cuda(), bias.cuda())
        assert (actual.cpu().double() - expected).norm() < limit * expected.norm()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
@pytest.mark.parametrize(("heads", "width"), [(16, 64), (3, 48)])
def test_head_norm(heads: int, width: int, dtype: torch.dtype, limit: float) -> None:
    qkv = torch.randn(2, 100, 3, heads, width, device="cuda", dtype=dtype)
    qkv[0, 0] = 0
    gamma = torch.rand(2, heads, width, device="cuda")
    actual = kernels.head_norm(qkv, *gamma)
    expected = layers.head_norm(qkv[..., :2, :, :].float(), gamma)
    assert actual.dtype == dtype
    assert (actual.float() - expected).norm() < limit * expected.norm()
    assert not actual[0, 0].any()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
@pytest.mark.parametrize("others", [0, 4])
@pytest.mark.parametrize("heads_first", [False, True])
def test_few_queries(heads_first: bool, others: int, dtype: torch.dtype, limit: float) -> None:
    make = lambda count: torch.randn(2, count, 3, 5, 64, device="cuda", dtype=dtype)  # noqa: E731
    q, (k, v), rest = 3 * make(4)[:, :, 0], make(1001).unbind(2)[1:], make(others).unbind(2)[1:]
    if heads_first:
        k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    assert kernels.fuses_few(q)
    actual = kernels.few_queries(q, k, v, *(rest if others else ()))
    all_k, all_v = torch.cat([k, rest[0]], 1), torch.cat([v, rest[1]], 1)
    parts = (part.double().transpose(1, 2) for part in (q, all_k, all_v))
    expected = F.scaled_dot_product_attention(*parts).transpose(1, 2)
    assert actual.dtype == dtype
    assert (actual.double() - expected).norm() < limit * expected.norm()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
@pytest.mark.parametrize("full_stream", [False, True])
@pytest.mark.parametrize("width", [96, 1024])
def test_residual_stream(width: int, full_stream: bool, dtype: torch.dtype, limit: float) -> None:
    """Sum, gated sum, the rest's constant, norm of all or some items, against float64."""
    stream = torch.float32 if full_stream else dtype
    make = lambda *shape: torch.randn(*shape, width, device="cuda")  # noqa: E731
    x, update = make(4, 7).to(stream), make(4, 7).to(dtype)
    gate, gain, shift, rest = make(1, 1), make(1, 1), make(1, 1), make().to(dtype)

    def plain_norm(value: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(value, (width,), eps=1e-6) * gain.double() + shift.double()

    def close(actual: torch.Tensor, expected: torch.Tensor, kind: torch.dtype) -> None:
        assert actual.dtype == kind
        assert (actual.double() - expected).norm() < limit * expected.norm()

    x64, update64 = x.double(), update.double()
    close(residual.norm(x, gain, shift, 1e-6, dtype), plain_norm(x64), dtype)
    close(residual.add(x, update, gate), x64 + gate.double() * update64, stream)
    total, normed = residual.add_norm(x, update, gain, shift, 1e-6, gate=gate, items=2)
    close(total, x64 + gate.double() * update64, stream)
    close(normed, plain_norm(total.double()[:2]), dtype)
    total, normed = residual.add_norm(x, update[:3], gain, shift, 1e-6, rest=rest)
    close(total, torch.cat([x64[:3] + update64[:3], x64[3:] + rest.double()]), stream)
    close(normed, plain_norm(total.double()), dtype)


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
def test_gelu_epilogue(dtype: torch.dtype, limit: float) -> None:
    layer = nn.Linear(128, 512).cuda().to(dtype)
    x = torch.randn(2, 50, 128, device="cuda", dtype=dtype)
    expected = F.gelu(layer.double()(x.double()), approximate="tanh")
    actual = kernels.linear_gelu(x, layer.to(dtype))
    assert (actual.double() - expected).norm() < limit * expected.norm()


@needs_card
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "limit"), HALF)
def test_variable_length_attention(dtype: torch.dtype, limit: float) -> None:
    sizes = torch.tensor([7, 1, 600, 30, 31, 9, 512])
    key = torch.repeat_interleave(torch.arange(7), sizes)[torch.randperm(int(sizes.sum()))]
    groups = windows.Groups(key.cuda())
    qkv = torch.randn(len(key), 3, 4, 64, device="cuda", dtype=dtype)
    assert windows.has_varlen_kernel(qkv)
    expected = windows.bucketed_attention(qkv.float(), groups)
    actual = windows.grouped_attention(qkv, groups)
    assert (actual.float() - expected).norm() < limit * expected.norm()
