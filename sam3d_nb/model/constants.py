"""Numbers of the host on a GPU without waiting for it.

An ordinary copy waits for all that the GPU has queued. So what is always the same is copied once,
and what differs goes by way of page-locked memory.
"""

from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return what `torch.tensor` does, the same tensor every time: do not change it in place.

    `values` are a number, or tuples of numbers and tuples.
    """
    if torch.compiler.is_compiling():  # which keeps constants by itself
        return torch.tensor(values, dtype=dtype, device=device)
    return _kept(values, repr(values), device, dtype)  # 1, 1.0 and True are equal as keys


@cache
def _kept(values: Any, text: str, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    with torch.inference_mode(False):  # else no gradient could ever go through its products
        return torch.tensor(values, dtype=dtype, device=device)


def onto(x: Tensor, device: torch.device) -> Tensor:
    """Return `x` on `device`, where it arrives in its turn; a new one, or `x` if it is there."""
    if x.device.type == "cpu" and device.type == "cuda":
        with suppress(RuntimeError):  # the host locks no more pages
            return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
