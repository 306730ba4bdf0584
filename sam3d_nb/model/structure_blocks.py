"""The blocks of the stage-1 flow: two streams with weights of their own that meet in attention."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sam3d_nb.model import residual
from sam3d_nb.model.config import StructureFlowConfig
from sam3d_nb.model.layers import (
    BLOCK_EPS,
    CrossAttention,
    FeedForward,
    HeadNorm,
    KeysValues,
    LayerNorm,
    Modulation,
    ModuleTable,
    adaptive_norm,
    attention,
    split_qkv,
)

SHAPE = "shape"
LAYOUT = "6drotation_normalized"  # the published name of the layout stream, after its first token
STREAMS = (SHAPE, LAYOUT)

M = TypeVar("M", bound=nn.Module)


class LayerCondition(NamedTuple):
    """What one stream of one block needs of the condition tokens."""

    tokens: KeysValues  # (B, M, H, d) each
    zeros: Tensor  # (C,): cross-attention to tokens that are all zero


def per_stream(make: Callable[[], M]) -> ModuleTable[M]:
    """Return one module for each stream, under the stream's published name."""
    return ModuleTable({stream: make() for stream in STREAMS})


class JointAttention(nn.Module):
    """Self-attention with weights of its own for each stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = per_stream(lambda: nn.Linear(width, 3 * width))
        self.q_rms_norm = per_stream(lambda: HeadNorm(heads, width // heads))
        self.k_rms_norm = per_stream(lambda: HeadNorm(heads, width // heads))
        self.to_out = per_stream(lambda: nn.Linear(width, width))

    def project(self, stream: str, h: Tensor) -> tuple[Tensor, KeysValues]:
        """Return queries, keys and values of `h` (B, N, C), each (B, N, H, d)."""
        qkv = self.to_qkv[stream](h).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, H, d)
        q, k, v = split_qkv(qkv, self.q_rms_norm[stream], self.k_rms_norm[stream])
        return q, KeysValues(k, v)

    def attend(
        self, stream: str, q: Tensor, own: KeysValues, other: KeysValues | None = None
    ) -> Tensor:
        """Let queries (B, N, H, d) attend to `own` and `other`; return (B, N, C)."""
        return self.to_out[stream](attention(q, *own, other))


class StructureBlock(nn.Module):
    """One block: joint self-attention, cross-attention, feed-forward, per stream.

    The residual streams are float32; matrix products run in the dtype of their weights.
    """

    def __init__(self, config: StructureFlowConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm2 = per_stream(lambda: LayerNorm(width, BLOCK_EPS))
        self.self_attn = JointAttention(width, heads)
        self.cross_attn = per_stream(lambda: CrossAttention(width, config.condition_width, heads))
        self.mlp = per_stream(lambda: FeedForward(width, config.mlp_ratio))
        self.adaLN_modulation = adaptive_norm(width)

    def prepare(self, tokens: Tensor) -> dict[str, LayerCondition]:
        """Project the condition tokens (B, M, condition width) for both streams."""
        return {
            s: LayerCondition(
                self.cross_attn[s].keys_values(tokens), self.cross_attn[s].unconditional()
            )
            for s in STREAMS
        }

    def forward(
        self,
        stream: str,
        x: Tensor,  # (B, N, C), or (2 B, N, C) after the passes of guidance have parted
        m: Modulation,
        condition: LayerCondition,
        other: KeysValues | None = None,  # what this stream sees besides itself
        *,
        guided: bool = False,
    ) -> tuple[Tensor, KeysValues]:
        """Advance one stream; return it and its keys and values for the other stream.

        With `guided` the result is (2 B, N, C), the conditional pass first.
        """
        q, own = self.project(stream, x, m)
        return self.advance(stream, x, m, q, own, condition, other, guided=guided), own

    def project(self, stream: str, x: Tensor, m: Modulation) -> tuple[Tensor, KeysValues]:
        """Return the stream's own queries, keys and values, each (B, N, H, d)."""
        dtype = self.self_attn.to_qkv[stream].weight.dtype
        h = residual.norm(x, m.attention_gain, m.attention_shift, BLOCK_EPS, dtype)
        return self.self_attn.project(stream, h)

    def advance(
        self,
        stream: str,
        x: Tensor,  # (B, N, C)
        m: Modulation,
        q: Tensor,  # (B, N, H, d)
        own: KeysValues,
        condition: LayerCondition,
        other: KeysValues | None = None,
        *,
        guided: bool = False,
    ) -> Tensor:
        """Finish what `project` began: return the stream (B, N, C), or (2 B, N, C)."""
        update, norm = self.self_attn.attend(stream, q, own, other), self.norm2[stream]
        batch = condition.tokens.keys.shape[0]
        x, h = residual.add_norm(
            x, update, norm.weight, norm.bias, norm.eps, gate=m.attention_gate, items=batch
        )
        update = self.cross_attn[stream](h, condition.tokens)  # (B, N, C)
        if guided and len(x) == batch:  # up to here both passes are the same
            x = torch.cat([x, x])
        rest = condition.zeros if guided else None
        x, h = residual.add_norm(x, update, m.mlp_gain, m.mlp_shift, BLOCK_EPS, rest=rest)
        return residual.add(x, self.mlp[stream](h), m.mlp_gate)
