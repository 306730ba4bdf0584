"""Layers that the flow transformers and the decoders share.

Parameters carry the published names. Norms, soft-max and residual sums accumulate in float32
whatever the weights are; matrix products run in the dtype of their weights.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam3d_nb.model import kernels
from sam3d_nb.model.constants import constant

M = TypeVar("M", bound=nn.Module)


class ModuleTable(nn.ModuleDict, Generic[M]):
    """Modules of one type by name."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> M: ...


class Stack(nn.ModuleList, Generic[M]):
    """Modules of one type in a row."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[M]: ...


BLOCK_EPS = 1e-6  # layer norms inside transformer blocks
OUTPUT_EPS = 1e-5  # layer norms in front of output layers


def layer_norm(
    x: Tensor,  # (..., C)
    eps: float,
    weight: Tensor | None = None,  # (C,)
    bias: Tensor | None = None,  # (C,)
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Normalize the last axis in float32; return (..., C) in `dtype`, or in that of `x`."""
    weight = None if weight is None else weight.float()
    bias = None if bias is None else bias.float()
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(dtype or x.dtype)


class LayerNorm(nn.LayerNorm):
    """Affine layer norm that computes in float32; `dtype` is that of the result."""

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return the normalized (..., C)."""
        return layer_norm(x, self.eps, self.weight, self.bias, dtype=dtype)


class Modulation(NamedTuple):
    """What the time embedding does to one transformer block; each (B or 1, 1, C), float32.

    The two gains are 1 + the published scales.
    """

    attention_shift: Tensor
    attention_gain: Tensor
    attention_gate: Tensor
    mlp_shift: Tensor
    mlp_gain: Tensor
    mlp_gate: Tensor

    @classmethod
    def of(cls, table: Tensor) -> "Modulation":
        """Read one block's rows of `modulation_table`, (B or 1, 6, C)."""
        return cls(*table.unsqueeze(2).unbind(1))


def adaptive_norm(channels: int) -> nn.Sequential:
    """Return the layer `adaLN_modulation`, (S, C) → (S, 6 C)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))


def modulation_table(layers: Iterable[nn.Module], embedding: Tensor) -> Tensor:
    """Evaluate the `adaptive_norm` of every block for all times at once.

    `embedding` is (S, C), one row a time; the result is (S, blocks, 6, C), float32, in the order
    of `Modulation`, with 1 added to the gains.
    """
    rows = [
        layer(embedding.to(linear_dtype(layer))).float().unflatten(-1, (6, -1)) for layer in layers
    ]  # blocks x (S, 6, C)
    table = torch.stack(rows, 1)
    one = constant((0, 1, 0, 0, 1, 0), table.device, table.dtype)
    return table + one[:, None]  # (6, 1): the two scales become gains


def linear_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype in which the matrix products of `module` run."""
    return next(parameter.dtype for parameter in module.parameters() if parameter.dim() > 1)


class FeedForward(nn.Module):
    """Linear, GELU with the tanh approximation, linear."""

    def __init__(self, channels: int, ratio: float = 4) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.mlp[2](kernels.linear_gelu(x, cast(nn.Linear, self.mlp[0])))


class KeysValues(NamedTuple):
    """Keys and values of tokens that others attend to, each (B, M, H, d)."""

    keys: Tensor
    values: Tensor


def attention(
    q: Tensor,  # (B, N, H, d)
    k: Tensor,  # (B, M, H, d)
    v: Tensor,  # (B, M, H, d)
    other: KeysValues | None = None,  # more tokens to attend to, (B, L, H, d) each
) -> Tensor:
    """Return softmax(q k / √d) v with the heads side by side, (B, N, H d)."""
    if kernels.fuses_few(q):
        return kernels.few_queries(q, k, v, *(other or ())).flatten(2)
    if other is not None:
        k, v = torch.cat([k, other.keys], 1), torch.cat([v, other.values], 1)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, N or M, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@contextmanager
def fastest_attention() -> Iterator[None]:
    """Let `attention` prefer cuDNN's kernel, which is the fastest on an H100 at these sizes.

    Outside CUDA, and where cuDNN does not take the input, PyTorch's own order applies.
    """
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    with sdpa_kernel(order, set_priority=True):
        yield


class HeadNorm(nn.Module):
    """Root-mean-square norm of queries or keys, one gain a head and channel."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x / max(|x|, 1e-12) · gamma · √d for (..., H, d), computed in float32."""
        return head_norm(x, self.gamma)


def head_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """Apply `HeadNorm` with `gamma` (..., H, d) to `x` (..., H, d); the dtype is that of `x`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    gain = gamma.float() * math.sqrt(x.shape[-1])
    return (x / length.clamp_min(1e-12) * gain).to(x.dtype)


class SelfAttention(nn.Module):
    """Full self-attention with a fused projection and optional query and key norms."""

    def __init__(self, channels: int, heads: int, *, head_norms: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        if head_norms:
            self.q_rms_norm = HeadNorm(heads, channels // heads)
            self.k_rms_norm = HeadNorm(heads, channels // heads)
        self.head_norms = head_norms
        self.to_out = nn.Linear(channels, channels)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of `x` (..., N, C), each (..., N, H, d)."""
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))  # (..., N, 3, H, d)
        if not self.head_norms:
            return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]
        return split_qkv(qkv, self.q_rms_norm, self.k_rms_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        return self.to_out(attention(*self.project(x)))


def split_qkv(
    qkv: Tensor,  # (..., N, 3, H, d)
    q_norm: HeadNorm,
    k_norm: HeadNorm,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize queries and keys together; return queries, keys and values, (..., N, H, d)."""
    if kernels.fuses(qkv):
        qk = kernels.head_norm(qkv, q_norm.gamma, k_norm.gamma)  # (..., N, 2, H, d)
    else:
        qk = head_norm(qkv[..., :2, :, :], torch.stack([q_norm.gamma, k_norm.gamma]))
    return qk[..., 0, :, :], qk[..., 1, :, :], qkv[..., 2, :, :]


class CrossAttention(nn.Module):
    """Attention to condition tokens whose keys and values are projected once a request."""

    def __init__(self, channels: int, condition_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(condition_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)

    def keys_values(self, tokens: Tensor, own: KeysValues | None = None) -> KeysValues:
        """Project tokens (B, M, condition channels), each result contiguous in memory.

        own: results of the same shape, to be written over.
        """
        kv = self.to_kv(tokens.to(self.to_kv.weight.dtype))
        keys, values = kv.unflatten(-1, (2, self.heads, -1)).unbind(2)  # (B, M, H, d) each
        if own is None:
            return KeysValues(keys.contiguous(), values.contiguous())
        return KeysValues(own.keys.copy_(keys), own.values.copy_(values))

    def unconditional(self) -> Tensor:
        """Return what attention to tokens that are all zero gives for any query, (C,).

        Every key and every value is then the bias of the projection, so the average over the
        values is that bias, whatever the weights of the average.
        """
        return self.to_out(self.to_kv.bias.chunk(2)[1])

    def forward(self, x: Tensor, condition: KeysValues) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        q = self.to_q(x).unflatten(-1, (self.heads, -1))  # (B, N, H, d)
        return self.to_out(attention(q, *condition))


class TimestepEmbedder(nn.Module):
    """Sinusoid of a number, then two linear layers."""

    def __init__(self, channels: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(frequencies, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Map (S,) to (S, C); times are given in thousandths, 0 … 1000."""
        weight = cast(nn.Linear, self.mlp[0]).weight
        t = t.to(weight.device)
        return self.mlp(timestep_sinusoid(t, self.frequencies).to(weight.dtype))


def timestep_sinusoid(t: Tensor, channels: int = 256) -> Tensor:
    """Return [cos, sin] of t · 10000^(-m / half) for (S,), (S, channels), float32."""
    half = channels // 2
    exponent = torch.arange(half, device=t.device, dtype=torch.float32) / half
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * exponent)  # (S, half)
    return torch.cat([angle.cos(), angle.sin()], -1)


def position_embedding(coords: Tensor, channels: int) -> Tensor:
    """Return [sin, cos] of the coordinates (N, 3), axis after axis, (N, channels), float32.

    Each axis has channels // 3 // 2 frequencies 10000^(-m / F); zeros fill the rest.
    """
    count = channels // 3 // 2
    exponent = torch.arange(count, device=coords.device, dtype=torch.float32) / count
    angle = coords.float()[:, :, None] / 10000**exponent  # (N, 3, F)
    table = torch.cat([angle.sin(), angle.cos()], -1).flatten(1)  # (N, 6 F)
    return F.pad(table, (0, channels - table.shape[1]))


def set_linear_dtype(modules: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Turn the weights and biases of all linear layers and convolutions inside to `dtype`."""
    for root in modules:
        for module in root.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
                module.to(dtype)
