"""The Triton kernel of `residual`; imported only where Triton is."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _residual_norm(  # type: ignore[no-untyped-def]
    x,  # (rows, WIDTH)
    update,  # (updated, WIDTH)
    gate,  # (WIDTH,)
    rest,  # (WIDTH,)
    gain,  # (WIDTH,)
    shift,  # (WIDTH,)
    total,  # (rows, WIDTH), in the dtype of `x`
    normed,  # (counted, WIDTH)
    updated,
    counted,
    eps,
    HAS_UPDATE: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_REST: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    inside = lane < WIDTH
    place = row.to(tl.int64) * WIDTH + lane
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        if row < updated:
            added = tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
            if HAS_GATE:
                added *= tl.load(gate + lane, mask=inside, other=0.0).to(tl.float32)
            value += added
        else:
            if HAS_REST:
                value += tl.load(rest + lane, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        value = rounded.to(tl.float32)  # the norm reads what the stream holds
    if row < counted:
        centered = tl.where(inside, value - tl.sum(value, axis=0) / WIDTH, 0.0)
        variance = tl.sum(centered * centered, axis=0) / WIDTH
        scale = tl.load(gain + lane, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(shift + lane, mask=inside, other=0.0).to(tl.float32)
        y = centered * (1 / tl.sqrt(variance + eps)) * scale + offset
        tl.store(normed + place, y.to(normed.dtype.element_ty), mask=inside)


def residual_norm(
    x: Tensor,  # (B, N, C)
    update: Tensor | None = None,  # (b, N, C)
    *,
    gate: Tensor | None = None,
    rest: Tensor | None = None,
    gain: Tensor | None = None,  # None: no norm
    shift: Tensor | None = None,
    eps: float = 0.0,
    dtype: torch.dtype | None = None,  # of the norm
    items: int | None = None,
) -> tuple[Tensor, Tensor]:
    """See `residual.add_norm`; gate, rest, gain and shift have C elements each."""
    width = x.shape[-1]
    x = x.contiguous()
    rows = x.numel() // width
    updated = 0 if update is None else update.numel() // width
    total = x if update is None else torch.empty_like(x)
    normed = x if gain is None else x[:items].new_empty(x[:items].shape, dtype=dtype)

    def given(tensor: Tensor | None) -> Any:
        return x if tensor is None else tensor.contiguous()  # a stand-in that nobody reads

    block = triton.next_power_of_2(width)
    _residual_norm[(rows if update is not None else normed.numel() // width,)](
        x,
        given(update),
        given(gate),
        given(rest),
        given(gain),
        given(shift),
        total,
        normed,
        updated,
        0 if gain is None else normed.numel() // width,
        eps,
        update is not None,
        gate is not None,
        rest is not None,
        width,
        block,
        num_warps=4 if block <= 2048 else 8,
    )
    return total, normed


def probe(device: torch.device) -> None:
    """Run the kernel once; raises what Triton raises where it cannot compile."""
    x = torch.ones(1, 1, 16, dtype=torch.float16, device=device)
    residual_norm(x, x, gate=x, gain=x, shift=x, eps=1e-6, dtype=x.dtype)
