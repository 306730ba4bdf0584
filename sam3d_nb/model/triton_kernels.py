"""Triton kernels of `kernels`; imported only where Triton is."""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 128, 128  # of one tile of the result
NORM_ROWS = 32  # heads that one program normalizes


@triton.jit
def _gathered_linear(  # type: ignore[no-untyped-def]
    source,  # (S, CHANNELS)
    table,  # (rows, TAPS) int32; `absent` where there is no row
    weight,  # (OUT, TAPS * CHANNELS)
    bias,  # (OUT,)
    out,  # (rows, OUT)
    rows,
    absent,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    lane = tl.arange(0, BLOCK_DEPTH)
    steps: tl.constexpr = (CHANNELS + BLOCK_DEPTH - 1) // BLOCK_DEPTH  # a tap
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), dtype=tl.float32)
    for step in range(TAPS * steps):
        tap, channel = step // steps, (step % steps) * BLOCK_DEPTH + lane
        inside = channel < CHANNELS
        found = tl.load(table + row * TAPS + tap, mask=row < rows, other=absent)
        a = tl.load(
            source + found.to(tl.int64)[:, None] * CHANNELS + channel[None, :],
            mask=(found < absent)[:, None] & inside[None, :],
            other=0.0,
        )
        w = tl.load(
            weight + column[None, :] * (TAPS * CHANNELS) + (tap * CHANNELS + channel)[:, None],
            mask=(column < OUT)[None, :] & inside[:, None],
            other=0.0,
        )
        total = tl.dot(a, w, total)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < OUT, other=0.0).to(tl.float32)[None, :]
    tl.store(
        out + row.to(tl.int64)[:, None] * OUT + column[None, :],
        total.to(out.dtype.element_ty),
        mask=(row < rows)[:, None] & (column < OUT)[None, :],
    )


@triton.jit
def _head_norm(  # type: ignore[no-untyped-def]
    qkv,  # (tokens, 3, heads, WIDTH)
    q_gamma,  # (heads, WIDTH) float32
    k_gamma,  # (heads, WIDTH) float32
    out,  # (tokens, 2, heads, WIDTH)
    rows,  # tokens * 2 * heads
    ROOT: tl.constexpr,  # square root of WIDTH
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    row = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    lane = tl.arange(0, BLOCK_WIDTH)[None, :]
    mask = (row < rows) & (lane < WIDTH)
    token, head = row // (2 * HEADS), row % (2 * HEADS)  # of queries, then of keys
    place = (token * (3 * HEADS) + head).to(tl.int64) * WIDTH + lane
    x = tl.load(qkv + place, mask=mask, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, axis=1))[:, None]
    is_key = head >= HEADS
    gain = tl.load(q_gamma + head * WIDTH + lane, mask=mask & ~is_key, other=0.0)
    gain += tl.load(k_gamma + (head - HEADS) * WIDTH + lane, mask=mask & is_key, other=0.0)
    y = x / tl.maximum(length, 1e-12) * (gain * ROOT)
    tl.store(out + row.to(tl.int64) * WIDTH + lane, y.to(out.dtype.element_ty), mask=mask)


def gathered_linear(source: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See `kernels.gathered_linear`."""
    channels, (rows, taps), out_width = source.shape[1], table.shape, weight.shape[0]
    out = source.new_empty(rows, out_width)
    block_out = min(COLUMNS, max(16, triton.next_power_of_2(out_width)))
    depth = 64 if channels % 64 == 0 else 32  # channels a product step, as timed on an H200
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(out_width, block_out))
    _gathered_linear[grid](
        source.contiguous(),
        table.contiguous(),
        weight.contiguous(),
        weight if bias is None else bias,
        out,
        rows,
        len(source),
        channels,
        taps,
        out_width,
        bias is not None,
        ROWS,
        block_out,
        depth,
        num_warps=8,
        num_stages=3 if depth == 64 else 5,
    )
    return out


def head_norm(qkv: Tensor, q_gamma: Tensor, k_gamma: Tensor) -> Tensor:
    """See `kernels.head_norm`."""
    *_, heads, width = qkv.shape
    out = qkv.new_empty(*qkv.shape[:-3], 2, heads, width)
    rows = out.numel() // width
    _head_norm[(triton.cdiv(rows, NORM_ROWS),)](
        qkv.contiguous(),
        q_gamma.float().contiguous(),
        k_gamma.float().contiguous(),
        out,
        rows,
        width**0.5,
        heads,
        width,
        NORM_ROWS,
        triton.next_power_of_2(width),
        num_warps=4,
    )
    return out


def probe(device: torch.device) -> None:
    """Run the kernels once; raises what Triton raises where it cannot compile."""
    qkv = torch.ones(1, 3, 1, 16, dtype=torch.float16, device=device)
    gamma = torch.ones(1, 16, device=device)
    head_norm(qkv, gamma, gamma)
    table = torch.zeros(1, 1, dtype=torch.int32, device=device)
    gathered_linear(qkv[0, 0], table, qkv[0, 0].expand(16, 16), None)
