"""Where tensors live: the devices that this machine has, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sam3d_nb.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclass(frozen=True)
class Device:
    """One device of this machine. memory, free: bytes; free is None where nobody can tell."""

    name: str
    description: str
    memory: int
    free: int | None


def choose_device(name: str = "auto") -> str:
    """Return cuda, mps or cpu: the one called `name`, or the fastest that is there.

    Raises InputError where the name is unknown or the machine has no such device.
    """
    check_device_name(name)
    import torch

    ready = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, is_ready in ready.items() if is_ready)
    if not ready[name]:
        there = ", ".join(device for device, is_ready in ready.items() if is_ready)
        raise InputError(f"this machine has no device {name!r} that torch can use; it has {there}")
    return name


def check_device_name(name: str) -> None:
    """Raise InputError unless `name` is one of DEVICES."""
    if name not in DEVICES:
        raise InputError(f"there is no device {name!r}; choose from {', '.join(DEVICES)}")


def synchronizer(device: torch.device) -> Callable[[], None] | None:
    """Return what waits until `device` is idle; None where there is nothing to wait for."""
    import torch

    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)
    return torch.mps.synchronize if device.type == "mps" else None


def with_doubles(device: torch.device) -> torch.device:
    """Return `device`, or the CPU where it has no 64-bit floats."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def list_devices() -> list[Device]:
    """Return the devices of this machine, fastest first; the CPU is always the last."""
    import platform

    import psutil
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, memory = torch.cuda.mem_get_info(index)
        found.append(Device(f"cuda:{index}", torch.cuda.get_device_name(index), memory, free))
    memory = psutil.virtual_memory()
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU, memory shared with the CPU", memory.total, None))
    cores = psutil.cpu_count(logical=True) or 1
    cpu = f"{platform.machine()}, {cores} {'core' if cores == 1 else 'cores'}"
    return [*found, Device("cpu", cpu, memory.total, memory.available)]
