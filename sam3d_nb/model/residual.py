"""The residual stream of a transformer block: what is added to it, and the norm that reads it.

A block adds an update to the stream and normalizes the sum for its next layer. Fused, that is one
pass over memory instead of four. The stream keeps its dtype; sums and statistics are float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.model import kernels


def norm(
    x: Tensor,  # (B, N, C)
    gain: Tensor,  # (C,), or (1 or B, 1, C)
    shift: Tensor,  # as `gain`
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return the layer norm of `x` times `gain` plus `shift`, (B, N, C) in `dtype`."""
    if _fuses(x, dtype, gain):
        return _kernel()(x, gain=gain, shift=shift, eps=eps, dtype=dtype)[1]
    return _plain_norm(x, gain, shift, eps, dtype)


def add(
    x: Tensor,  # (B, N, C)
    update: Tensor,  # (B, N, C)
    gate: Tensor,  # (1 or B, 1, C)
) -> Tensor:
    """Return `x + gate * update`, (B, N, C) in the dtype of `x`."""
    if _fuses(x, update.dtype, gate):
        return _kernel()(x, update, gate=gate)[0]
    return torch.addcmul(x, gate, update)


def add_norm(
    x: Tensor,  # (B, N, C)
    update: Tensor,  # (b, N, C), b <= B: added to the first b items
    gain: Tensor,  # (C,), or (1 or B, 1, C)
    shift: Tensor,  # as `gain`
    eps: float,
    *,
    gate: Tensor | None = None,  # (1 or b, 1, C): times `update`
    rest: Tensor | None = None,  # (C,): added to the items after the first b
    items: int | None = None,  # how many items are normalized; None: all
) -> tuple[Tensor, Tensor]:
    """Add to the stream; return it (B, N, C) and its norm (items, N, C) in the update's dtype."""
    if _fuses(x, update.dtype, gain, gate):
        return _kernel()(
            x,
            update,
            gate=gate,
            rest=rest,
            gain=gain,
            shift=shift,
            eps=eps,
            dtype=update.dtype,
            items=items,
        )
    x = _plain_sum(x, update, gate, rest)
    return x, _plain_norm(x[:items], gain, shift, eps, update.dtype)


def _plain_sum(x: Tensor, update: Tensor, gate: Tensor | None, rest: Tensor | None) -> Tensor:
    first = len(update)
    head = x[:first] + update if gate is None else torch.addcmul(x[:first], gate, update)
    if first == len(x):
        return head
    return torch.cat([head, x[first:] if rest is None else x[first:] + rest])


def _plain_norm(x: Tensor, gain: Tensor, shift: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    width = x.shape[-1]
    inner = dtype if x.dtype == dtype else torch.float32  # statistics are float32 in any case
    gain, shift, x = gain.to(inner), shift.to(inner), x.to(inner)
    if gain.numel() == width:  # one time for the whole batch: the norm's own affine does it
        return F.layer_norm(x, (width,), gain.view(-1), shift.view(-1), eps).to(dtype)
    return torch.addcmul(shift, F.layer_norm(x, (width,), eps=eps), gain).to(dtype)


def _fuses(x: Tensor, dtype: torch.dtype, *rows: Tensor | None) -> bool:
    """Say whether the kernel serves: it takes one gain, shift and gate for the whole batch."""
    width = x.shape[-1]
    if x.device.type != "cuda" or any(r is not None and r.numel() != width for r in rows):
        return False
    return kernels.fuses(x, dtype)


def _kernel() -> Callable[..., tuple[Tensor, Tensor]]:
    from sam3d_nb.model import triton_residual

    return triton_residual.residual_norm
