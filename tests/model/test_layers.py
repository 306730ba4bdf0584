"""Shared layers against plain formulas written out in float64."""

import math

import pytest
import torch
from torch import nn

from sam3d_nb.model.layers import (
    CrossAttention,
    FeedForward,
    HeadNorm,
    LayerNorm,
    Modulation,
    SelfAttention,
    TimestepEmbedder,
    adaptive_norm,
    attention,
    fastest_attention,
    layer_norm,
    modulation_table,
    position_embedding,
    set_linear_dtype,
    timestep_sinusoid,
)

HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def plain_norm(x, eps):
    x = x.double()
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()


def plain_attention(q, k, v):
    """One query and one head at a time."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b, n, h in torch.cartesian_prod(*(torch.arange(s) for s in q.shape[:3])).tolist():
        weights = (k[b, :, h].double() @ q[b, n, h].double() / math.sqrt(q.shape[-1])).softmax(0)
        out[b, n, h] = weights @ v[b, :, h].double()
    return out.flatten(2)


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_layer_norm_uses_its_eps(eps):
    x = 1e-3 * torch.randn(5, 32)  # so small that another eps would show
    torch.testing.assert_close(
        layer_norm(x, eps).double(), plain_norm(x, eps), rtol=1e-5, atol=1e-6
    )
    assert (plain_norm(x, 1e-6) - plain_norm(x, 1e-5)).abs().max() > 0.1


@pytest.mark.parametrize("dtype", HALVES)
def test_layer_norm_accumulates_in_float32(dtype):
    x = (200 + torch.randn(3, 1024)).to(dtype)  # squares overflow float16
    torch.testing.assert_close(
        layer_norm(x, 1e-6, dtype=torch.float32).double(), plain_norm(x, 1e-6), rtol=1e-3, atol=1e-3
    )


def test_affine_norm():
    norm = LayerNorm(16, 1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 16)
    expected = plain_norm(x, 1e-6) * norm.weight + norm.bias
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert norm(x, torch.bfloat16).dtype == torch.bfloat16


def test_modulation_of_all_times_at_once():
    layers = [adaptive_norm(8) for _ in range(3)]
    embedding = torch.randn(4, 8)
    table = modulation_table(layers, embedding)
    for k in range(4):
        for i, layer in enumerate(layers):
            shift, scale, gate, shift2, scale2, gate2 = layer(embedding[k]).chunk(6)
            expected = (shift, 1 + scale, gate, shift2, 1 + scale2, gate2)
            for actual, value in zip(Modulation.of(table[k : k + 1, i]), expected, strict=True):
                torch.testing.assert_close(actual, value[None, None])


def test_head_norm():
    norm = HeadNorm(2, 8)
    nn.init.normal_(norm.gamma)
    x = torch.randn(3, 2, 8)
    x[0, 1] = 0
    expected = torch.zeros_like(x)
    for n in range(3):
        for h in range(2):
            length = max(float(x[n, h].norm()), 1e-12)
            expected[n, h] = x[n, h] / length * norm.gamma[h] * math.sqrt(8)
    torch.testing.assert_close(norm(x), expected)


def test_attention():
    q, k, v = torch.randn(2, 3, 2, 8), torch.randn(2, 5, 2, 8), torch.randn(2, 5, 2, 8)
    torch.testing.assert_close(attention(q, k, v).double(), plain_attention(q, k, v).double())
    with fastest_attention():
        torch.testing.assert_close(attention(q, k, v).double(), plain_attention(q, k, v).double())


@pytest.mark.parametrize("head_norms", [False, True])
def test_self_attention(head_norms):
    layer = SelfAttention(16, 2, head_norms=head_norms)
    x = torch.randn(2, 5, 16)
    q, k, v = (part.unflatten(-1, (2, 8)) for part in layer.to_qkv(x).chunk(3, -1))
    if head_norms:
        nn.init.normal_(layer.q_rms_norm.gamma)
        nn.init.normal_(layer.k_rms_norm.gamma)
        q, k = layer.q_rms_norm(q), layer.k_rms_norm(k)
    expected = layer.to_out(plain_attention(q, k, v).float())
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_cross_attention():
    layer = CrossAttention(16, 12, 2)
    x, tokens = torch.randn(2, 3, 16), torch.randn(2, 7, 12)
    k, v = (part.unflatten(-1, (2, 8)) for part in layer.to_kv(tokens).chunk(2, -1))
    q = layer.to_q(x).unflatten(-1, (2, 8))
    expected = layer.to_out(plain_attention(q, k, v).float())
    torch.testing.assert_close(layer(x, layer.keys_values(tokens)), expected, rtol=1e-4, atol=1e-5)


def test_attention_to_zero_tokens_is_one_constant():
    layer = CrossAttention(16, 12, 2)
    x, tokens = torch.randn(2, 3, 16), torch.zeros(2, 7, 12)
    attended = layer(x, layer.keys_values(tokens))
    torch.testing.assert_close(attended, layer.unconditional().expand_as(attended))


def test_feed_forward_has_the_tanh_approximation():
    layer = FeedForward(4)
    x = 3 * torch.randn(100, 4)
    h = layer.mlp[0](x)
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    torch.testing.assert_close(layer(x), layer.mlp[2](gelu), rtol=1e-6, atol=1e-6)


def test_timestep_sinusoid_has_the_cosine_first():
    table = timestep_sinusoid(torch.tensor([0.0, 480.0]), 8)
    for m in range(4):
        angle = 480 * 10000 ** (-m / 4)
        assert table[1, m] == pytest.approx(math.cos(angle), abs=1e-4)
        assert table[1, 4 + m] == pytest.approx(math.sin(angle), abs=1e-4)
    assert table[0].tolist() == [1] * 4 + [0] * 4


def test_position_embedding_has_the_sine_first():
    channels, count = 26, 4  # 26 // 3 // 2 frequencies, 24 values, 2 zeros
    table = position_embedding(torch.tensor([[3, 0, 31]]), channels)
    for axis, value in enumerate((3, 0, 31)):
        for m in range(count):
            angle = value * 10000 ** (-m / count)
            at = axis * 2 * count + m
            assert table[0, at] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[0, at + count] == pytest.approx(math.cos(angle), abs=1e-5)
    assert table.shape == (1, channels)
    assert table[0, 24:].tolist() == [0, 0]


def test_linear_dtype_leaves_norms_alone():
    layer = SelfAttention(16, 2, head_norms=True)
    set_linear_dtype([layer], torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in layer.named_parameters()}
    assert kinds["to_qkv.weight"] == kinds["to_out.bias"] == torch.bfloat16
    assert kinds["q_rms_norm.gamma"] == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_embedder_takes_times_to_one_thousand_in_half_precision(dtype):
    layer = TimestepEmbedder(16)
    t = torch.tensor([0.0, 13.698630, 999.0])
    expected = layer(t)
    set_linear_dtype([layer], dtype)
    torch.testing.assert_close(layer(t).float(), expected, rtol=0.05, atol=0.02)
