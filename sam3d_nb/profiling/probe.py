"""The clock and the memory of one device: the CPU, a CUDA GPU or an Apple GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import torch

from sam3d_nb.devices import synchronizer
from sam3d_nb.pipeline import Model


class Memory(NamedTuple):
    """Bytes in use; None where nobody can tell.

    allocated: by tensors on the device. reserved: by PyTorch there, what it keeps for later
    included. host: the process's resident set.
    """

    allocated: int | None = None
    reserved: int | None = None
    host: int | None = None

    def most(self, other: Memory) -> Memory:
        """Return the larger one of each."""
        pairs = (tuple(v for v in pair if v is not None) for pair in zip(self, other, strict=True))
        allocated, reserved, host = (max(known) if known else None for known in pairs)
        return Memory(allocated, reserved, host)


class Probe:
    """Reads the CPU, which has no clock of its own and finishes what it is told at once.

    synchronize: waits until the device is idle; None where there is nothing to wait for.
    """

    device = "cpu"

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self._synchronize = synchronize
        self._process = psutil.Process()

    def synchronize(self) -> None:
        """Wait until the device has done all that it was told."""
        if self._synchronize is not None:
            self._synchronize()

    def mark(self) -> Any:
        """Put a mark into the device's queue without waiting; None where there is no queue."""
        return None

    def between(self, first: Any, second: Any) -> float | None:
        """Return the seconds between two marks on the device's own clock; None without one.

        The device must have passed both.
        """
        return None

    def memory(self) -> Memory:
        """Return what is in use now, without waiting."""
        return Memory(host=self._process.memory_info().rss)

    def take_peak(self) -> Memory:
        """Return the most since the last call.

        Where a device does not keep count, as the CPU, it is what is in use now.
        """
        return self.memory()


class CudaProbe(Probe):
    """Reads an NVIDIA GPU through PyTorch's allocator and CUDA events."""

    def __init__(self, device: torch.device, synchronize: Callable[[], None] | None) -> None:
        super().__init__(synchronize)
        self.device = str(device)
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """Record a CUDA event on the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Return the seconds between two events."""
        return first.elapsed_time(second) / 1e3

    def memory(self) -> Memory:
        """Return what PyTorch's allocator counts now; the driver is not asked."""
        return self._read("current")

    def take_peak(self) -> Memory:
        """Return the allocator's peaks and begin new ones."""
        found = self._read("peak")
        torch.cuda.reset_peak_memory_stats(self._device)
        return found

    def _read(self, which: str) -> Memory:
        counts = torch.cuda.memory.memory_stats_as_nested_dict(self._device)  # one call for all
        allocated, reserved = (
            counts.get(f"{kind}_bytes", {}).get("all", {}).get(which, 0)
            for kind in ("allocated", "reserved")
        )
        return Memory(allocated, reserved, self._process.memory_info().rss)


class MpsProbe(Probe):
    """Reads an Apple GPU; it counts no peaks, so they are those of the moments of reading."""

    device = "mps"

    def mark(self) -> Any:
        """Record an event on the GPU's queue."""
        event = torch.mps.event.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: Any, second: Any) -> float:
        """Return the seconds between two events."""
        return first.elapsed_time(second) / 1e3

    def memory(self) -> Memory:
        """Return what PyTorch counts now."""
        allocated = torch.mps.current_allocated_memory()
        return Memory(allocated, torch.mps.driver_allocated_memory(), super().memory().host)


def probe_for(model: Model) -> Probe:
    """Return what reads the device of `model`, and waits for it as the model itself does."""
    device = torch.device(getattr(model, "device", "cpu"))
    wait = model.synchronize or synchronizer(device)
    if device.type == "cuda":
        return CudaProbe(device, wait)
    return MpsProbe(wait) if device.type == "mps" else Probe(wait)
