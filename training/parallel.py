"""One training run on several GPUs of a machine: every process has its own photos.

Started by `torchrun --nproc-per-node 2 -m training.train ...`; without it there is one process, and
everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> None:
    """Join the other processes, if there are any, and take the GPU of this one."""
    if "LOCAL_RANK" not in os.environ:
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def same_start(modules: Iterable[nn.Module]) -> None:
    """Give all processes the parameters and buffers of the first."""
    if dist.is_initialized():
        for module in modules:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(
        gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]
    )


def agreed(value: float, device: torch.device) -> float:
    """Return the first process's `value` in all of them."""
    if not dist.is_initialized():
        return value
    told: Tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(told, 0)
    return float(told)
