"""Timing, memory and floating-point operations of one function, and the limits of the device."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.attention.varlen  # registers the operator that `count_work` names
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sam3d_nb.devices import synchronizer
from sam3d_nb.model import kernels
from sam3d_nb.model.layers import attention, fastest_attention

GIB = 2**30


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one run; a multiplication and an addition are two."""

    matrix: int  # matrix products and convolutions
    attention: int

    @property
    def total(self) -> int:
        """All operations."""
        return self.matrix + self.attention

    def __add__(self, other: "Work") -> "Work":
        return Work(self.matrix + other.matrix, self.attention + other.attention)

    def __rmul__(self, times: int) -> "Work":
        return Work(times * self.matrix, times * self.attention)


@dataclass(frozen=True)
class Limits:
    """What the device reaches on large problems, in operations a second."""

    matrix: float  # product of two square matrices
    attention: float  # 16 heads of 64

    def floor(self, work: Work) -> float:
        """Return the seconds that `work` takes at these limits."""
        return work.matrix / self.matrix + work.attention / self.attention


@dataclass(frozen=True)
class Timing:
    """Seconds of single runs, synchronized; memory in bytes, None without CUDA."""

    first: float  # the first call: library set-up, compilation of kernels, graph capture
    warm: list[float]
    allocated: int | None  # largest while running; weights and inputs included
    reserved: int | None

    @property
    def median(self) -> float:
        """Seconds of the middle warm run."""
        return statistics.median(self.warm)


def synchronize(device: torch.device) -> None:
    wait = synchronizer(device)
    if wait is not None:
        wait()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the wall-clock seconds of one run, from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def measure(
    run: Callable[[], object], device: torch.device, *, runs: int, warmup: int = 1
) -> Timing:
    """Time the first call, then `warmup` calls that do not count, then `runs` calls that do."""
    cuda = device.type == "cuda"
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    first = seconds(run, device)
    for _ in range(warmup):
        run()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    warm = [seconds(run, device) for _ in range(runs)]
    allocated = torch.cuda.max_memory_allocated(device) if cuda else None
    reserved = torch.cuda.max_memory_reserved(device) if cuda else None
    return Timing(first, warm, allocated, reserved)


def count_work(run: Callable[[], object]) -> Work:
    """Count the operations of one run on the plain paths, since fused kernels hide theirs.

    Products are counted as executed there, padding included. The counter keeps tensors of the run
    alive until it ends, so count a long run in parts.
    """
    aten = torch.ops.aten
    formulas: dict[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _dense_attention,
        torch.ops.torch_attn._varlen_attn: _varlen_attention,
    }
    plain = patch.object(kernels, "_is_half_inference", return_value=False)
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with plain, counter:
        run()
    counts = counter.get_flop_counts().get("Global", {})
    attended = sum(
        count for op, count in counts.items() if "attn" in str(op) or "attention" in str(op)
    )
    return Work(matrix=sum(counts.values()) - attended, attention=attended)


def _dense_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *_: Any, **__: Any
) -> int:
    """Two products a sequence: 4 · length² · heads · width."""
    lengths = starts.diff().long()
    return int((lengths * lengths).sum()) * 4 * query.shape[1] * query.shape[2]


_varlen_attention._get_raw = True  # type: ignore[attr-defined]  # wants tensors, not shapes


def device_limits(device: torch.device, dtype: torch.dtype, *, small: bool) -> Limits:
    """Measure a large matrix product and a large attention, the best of several runs."""
    side, tokens = (512, 256) if small else (8192, 8192)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    q = torch.randn(1, tokens, 16, 64, device=device, dtype=dtype)

    def attend() -> None:
        with fastest_attention():
            attention(q, q, q)

    product = _best(lambda: torch.mm(a, b, out=out), device)
    attended = _best(attend, device)
    return Limits(2 * side**3 / product, 4 * tokens**2 * 16 * 64 / attended)


def _best(run: Callable[[], object], device: torch.device, repeat: int = 10) -> float:
    """Return seconds a call in the best of five batches of `repeat` calls."""

    def batch() -> None:
        for _ in range(repeat):
            run()

    batch()
    return min(seconds(batch, device) for _ in range(5)) / repeat


def named_tensors(result: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries, lists, tuples and dataclasses, with their path."""
    parts: Iterable[tuple[object, object]]
    if isinstance(result, Tensor):
        yield name, result
        return
    if isinstance(result, dict):
        parts = result.items()
    elif isinstance(result, list | tuple):
        parts = enumerate(result)
    elif is_dataclass(result):
        parts = ((field.name, getattr(result, field.name)) for field in fields(result))
    else:
        parts = ()
    for key, value in parts:
        yield from named_tensors(value, f"{name}.{key}" if name else str(key))


def all_finite(result: object) -> bool:
    """Tell whether all numbers in a result are finite."""
    return all(bool(t.isfinite().all()) for _, t in named_tensors(result))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference over that of `expected`."""
    difference = (actual.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())
