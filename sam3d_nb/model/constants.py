"""Small tensors of known numbers, made once a device.

Making one on a GPU copies it from the host, which waits for all that the GPU has queued.
"""

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
    return _kept(values, device, dtype)


@cache
def _kept(values: Any, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    with torch.inference_mode(False):  # else no gradient could ever go through its products
        return torch.tensor(values, dtype=dtype, device=device)
