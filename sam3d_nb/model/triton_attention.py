"""The Triton kernels of `kernels.few_queries`; imported only where Triton is."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sam3d_nb.model.kernels import FEW

KEYS = 64  # of one step
SHARE = 512  # keys of one program


@triton.jit
def _fold(  # type: ignore[no-untyped-def]
    asked,  # (QUERIES, WIDTH)
    keys,  # address of the first key
    values,
    key_row,
    value_row,
    count,
    scale,
    top,  # (QUERIES,): largest logit so far
    total,  # (QUERIES,): sum of exponentials, relative to `top`
    mixed,  # (QUERIES, WIDTH): values times exponentials
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    lane = tl.arange(0, WIDTH)[None, :]
    for start in range(0, count, BLOCK):
        row = start + tl.arange(0, BLOCK)
        there = (row < count)[:, None]
        key = tl.load(keys + row[:, None] * key_row + lane, mask=there, other=0.0)
        logits = tl.dot(asked, tl.trans(key)) * scale
        logits = tl.where((row < count)[None, :], logits, -float("inf"))
        higher = tl.maximum(top, tl.max(logits, axis=1))
        weights = tl.exp(logits - higher[:, None])
        shrink = tl.exp(top - higher)
        value = tl.load(values + row[:, None] * value_row + lane, mask=there, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value)
        total = total * shrink + tl.sum(weights, axis=1)
        top = higher
    return top, total, mixed


@triton.jit
def _few_queries(  # type: ignore[no-untyped-def]
    mixed_parts,  # (B * HEADS, parts, QUERIES, WIDTH) float32: values times exponentials
    sums,  # (B * HEADS, parts, 2, QUERIES) float32: largest logit, sum of exponentials
    q,  # (B, queries, HEADS, WIDTH), from here on with strides of items and rows
    k,  # (B, first_count, HEADS, WIDTH)
    v,
    other_k,  # (B, other_count, HEADS, WIDTH)
    other_v,
    queries,
    first_count,
    other_count,
    scale,
    q_item,
    q_row,
    k_item,
    k_row,
    v_item,
    v_row,
    other_k_item,
    other_k_row,
    other_v_item,
    other_v_row,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCK: tl.constexpr,
    SHARE: tl.constexpr,  # keys of one program
):
    pair, part = tl.program_id(0), tl.program_id(1)
    item, head = (pair // HEADS).to(tl.int64), pair % HEADS
    row, lane = tl.arange(0, QUERIES)[:, None], tl.arange(0, WIDTH)[None, :]
    start = head * WIDTH
    asked = tl.load(q + item * q_item + start + row * q_row + lane, mask=row < queries, other=0.0)
    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
    begin = part.to(tl.int64) * SHARE
    keys = k + item * k_item + start + begin * k_row
    values = v + item * v_item + start + begin * v_row
    count = tl.minimum(first_count - part * SHARE, SHARE)
    top, total, mixed = _fold(
        asked, keys, values, k_row, v_row, count, scale, top, total, mixed, WIDTH, BLOCK
    )
    keys, values = other_k + item * other_k_item + start, other_v + item * other_v_item + start
    count = tl.where(part == 0, other_count, 0)
    top, total, mixed = _fold(
        asked, keys, values, other_k_row, other_v_row, count, scale, top, total, mixed, WIDTH, BLOCK
    )
    place = (pair * tl.num_programs(1) + part).to(tl.int64)
    tl.store(mixed_parts + (place * QUERIES + row) * WIDTH + lane, mixed)
    place = sums + place * (2 * QUERIES) + tl.arange(0, QUERIES)
    tl.store(place, top)
    tl.store(place + QUERIES, total)


@triton.jit
def _merge(  # type: ignore[no-untyped-def]
    out,  # (B, queries, HEADS, WIDTH)
    mixed_parts,  # see `_few_queries`
    sums,
    queries,
    parts,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
):
    pair = tl.program_id(0)
    item, head = (pair // HEADS).to(tl.int64), pair % HEADS
    row, lane = tl.arange(0, QUERIES), tl.arange(0, WIDTH)[None, :]
    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
    for part in range(0, parts):
        place = (pair * parts + part).to(tl.int64)
        its_top = tl.load(sums + place * (2 * QUERIES) + row)
        its_total = tl.load(sums + place * (2 * QUERIES) + QUERIES + row)
        higher = tl.maximum(top, its_top)
        shrink, share = tl.exp(top - higher), tl.exp(its_top - higher)
        its_mixed = tl.load(mixed_parts + (place * QUERIES + row[:, None]) * WIDTH + lane)
        mixed = mixed * shrink[:, None] + its_mixed * share[:, None]
        total = total * shrink + its_total * share
        top = higher
    place = ((item * queries + row[:, None]) * HEADS + head) * WIDTH + lane
    result = (mixed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + place, result, mask=row[:, None] < queries)


def few_queries(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    other_k: Tensor | None,
    other_v: Tensor | None,
) -> Tensor:
    """See `kernels.few_queries`.

    Each program takes a share of the keys, so that none holds a multiprocessor for long while
    other kernels run; a second kernel merges what they found.
    """
    items, queries, heads, width = q.shape
    rest = (k[:, :0], v[:, :0]) if other_k is None or other_v is None else (other_k, other_v)
    q, k, v = (_rows(tensor) for tensor in (q, k, v))
    rest = _rows(rest[0]), _rows(rest[1])
    parts = max(triton.cdiv(k.shape[1], SHARE), 1)
    mixed = torch.empty(items * heads, parts, FEW, width, dtype=torch.float32, device=q.device)
    sums = torch.empty(items * heads, parts, 2, FEW, dtype=torch.float32, device=q.device)
    _few_queries[(items * heads, parts)](
        mixed,
        sums,
        q,
        k,
        v,
        *rest,
        queries,
        k.shape[1],
        rest[0].shape[1],
        width**-0.5,
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *rest[0].stride()[:2],
        *rest[1].stride()[:2],
        heads,
        width,
        FEW,
        KEYS,
        SHARE,
        num_warps=4,
        num_stages=3,
    )
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    _merge[(items * heads,)](out, mixed, sums, queries, parts, heads, width, FEW, num_warps=4)
    return out


def _rows(x: Tensor) -> Tensor:
    """Return (B, N, H, d) with the heads of a row side by side in memory."""
    return x if x.stride()[2:] == (x.shape[3], 1) else x.contiguous()


def probe(device: torch.device) -> None:
    """Run the kernels once; raises what Triton raises where it cannot compile."""
    q = torch.ones(1, 1, 1, 16, dtype=torch.float16, device=device)
    few_queries(q, q, q, None, None)
