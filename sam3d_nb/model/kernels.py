"""Fused CUDA kernels, each with a plain path beside it that runs everywhere else.

They save memory traffic that PyTorch's own operations need in half precision: small rows are
gathered slowly, and a norm over heads takes four passes. They run on NVIDIA cards from Ampere on,
without gradients and outside `torch.compile`, which fuses by itself. Triton comes with PyTorch on
Linux and needs a C compiler on first use; without one the plain paths give the same results.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HALF = (torch.float16, torch.bfloat16)
FEW = 16  # queries that one program of `few_queries` takes


def fuses(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Say whether the Triton kernels take tensors like `x` (in `dtype`) here and now."""
    return _is_half_inference(x, dtype or x.dtype) and _works(x.device)


def _is_half_inference(x: Tensor, dtype: torch.dtype) -> bool:
    if x.device.type != "cuda" or torch.version.hip is not None or dtype not in HALF:
        return False
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


@cache
def _works(device: torch.device) -> bool:
    """Try every kernel once a device; warn where Triton is there but cannot compile one."""
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from sam3d_nb.model import triton_attention, triton_kernels, triton_residual

        for room in (triton_kernels, triton_attention, triton_residual):
            room.probe(device)
    except Exception as error:  # a missing compiler or header shows in many ways
        warnings.warn(
            f"fused kernels are off, the model runs slower: {error}", RuntimeWarning, stacklevel=2
        )
        return False
    return True


def gathered_linear(
    source: Tensor,  # (S, in)
    table: Tensor,  # (R, K) int32: rows of `source`; S where there is none
    weight: Tensor,  # (out, K * in)
    bias: Tensor | None,  # (out,)
) -> Tensor:
    """Put the K rows of each table entry side by side and map them to (R, out).

    Rows that do not exist count as zero. Only where `fuses(source)`; sums are float32.
    """
    from sam3d_nb.model import triton_kernels

    return triton_kernels.gathered_linear(source, table, weight, bias)


def head_norm(
    qkv: Tensor,  # (..., 3, H, d)
    q_gamma: Tensor,  # (H, d)
    k_gamma: Tensor,  # (H, d)
) -> Tensor:
    """Return queries and keys over their length, times gamma, times √d; (..., 2, H, d).

    Only where `fuses(qkv)`; computed in float32.
    """
    from sam3d_nb.model import triton_kernels

    return triton_kernels.head_norm(qkv, q_gamma, k_gamma)


def fuses_few(q: Tensor) -> bool:
    """Say whether `few_queries` takes queries (B, N, H, d) here and now."""
    return q.shape[1] <= FEW and q.shape[3] in (16, 32, 64, 128) and fuses(q)


def few_queries(
    q: Tensor,  # (B, N, H, d), N <= FEW
    k: Tensor,  # (B, M, H, d)
    v: Tensor,  # (B, M, H, d)
    other_k: Tensor | None = None,  # (B, L, H, d)
    other_v: Tensor | None = None,  # (B, L, H, d)
) -> Tensor:
    """Return softmax(q k / √d) v over both sets of keys, (B, N, H, d).

    Only where `fuses_few(q)`. Saves putting the sets into a row, and a launch.
    """
    from sam3d_nb.model import triton_attention

    return triton_attention.few_queries(q, k, v, other_k, other_v)


def linear_gelu(x: Tensor, layer: nn.Linear) -> Tensor:
    """Return GELU, by its tanh approximation, of a linear layer; (..., in) to (..., out).

    On CUDA the activation is part of the matrix product (cuBLASLt's epilogue), as far as PyTorch
    still has the private function for it.
    """
    fused = hasattr(torch, "_addmm_activation") and layer.bias is not None
    if not fused or not _is_half_inference(x, x.dtype):
        return F.gelu(layer(x), approximate="tanh")
    rows = x.reshape(-1, x.shape[-1])
    out = torch._addmm_activation(layer.bias, rows, layer.weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], -1)
