"""Which networks lie on the device and when, and what to say when its memory runs out."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import psutil
import torch

from sam3d_nb.errors import OutOfMemoryError
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.store import ModuleStore

GIB = 2**30
ROOMY = 15 * 10**9
"""Bytes of device memory from which all networks stay there; what a 16 GB card has left."""
AHEAD = 2
"""Steps that may be queued behind the one that runs, or is about to."""
OPTIONAL = ("splat_decoder_4",)
"""Networks that are brought in only for those who ask."""


Result = TypeVar("Result")


class Placement:
    """Networks of a store on one device under a memory plan.

    plan: `resident` brings all networks to the device once and leaves them there; `staged` keeps
    each one there for its stage only; `auto` is resident where the device is roomy.

    roomy: at least `ROOMY` bytes of the device's memory can be ours.
    """

    def __init__(self, store: ModuleStore, device: torch.device, plan: str = "auto") -> None:
        self.store = store
        self.device = device
        self.roomy = available(device) >= ROOMY
        self.plan = choose_plan(device) if plan == "auto" else plan

    @property
    def staged(self) -> bool:
        """Whether networks leave the device after their stage."""
        return self.plan == "staged"

    def begin(self) -> None:
        """Bring what belongs on the device there, and only that; raises OutOfMemoryError."""
        if self.staged:
            self.store.release_all()
            return
        names = [name for name in PARTS if name not in OPTIONAL]
        try:
            with ThreadPoolExecutor(1) as pool:
                made = [pool.submit(self.store.make, name) for name in names]
                for name, ready in zip(names, made, strict=True):
                    ready.result()  # while one's weights are copied, the next ones are made
                    self.store.get(name, self.device)
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        self.clear()
        raise out_of_memory(self.device, self.plan)

    @contextmanager
    def hold(self, *names: str) -> Iterator[None]:
        """Let the networks `names` be got inside of a `with` block, and released after it."""
        try:
            yield
        finally:
            if self.staged:
                for name in names:
                    self.store.release(name)

    def with_room(
        self, work: Callable[[], Result], *names: str, free: Callable[[], None] = lambda: None
    ) -> Result:
        """Return `work()`, which needs the networks `names`.

        Where memory runs out under the resident plan, all other networks make room, and what `free`
        frees, and it is done again; the networks come back with the next `begin`.
        """
        try:
            return work()
        except Exception as error:
            if self.staged or not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        free()
        for name in set(PARTS) - set(names):
            self.store.release(name)
        self.empty_cache()
        return work()

    def clear(self) -> None:
        """Take all networks off the device and hand the memory back to the driver."""
        self.store.release_all()
        self.empty_cache()

    def empty_cache(self) -> None:
        """Hand what is not in use back to the driver."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


class Pace:
    """Keeps the host at most two steps ahead of the device.

    Steps are queued faster than they run. Without this, progress would be over before the work
    is, and a cancelled run would go on for all that is queued. (With less, the device would wait.)
    """

    def __init__(self, device: torch.device) -> None:
        self.on = device.type == "cuda"
        self._queued: deque[torch.cuda.Event] = deque()

    def __call__(self) -> None:
        """Call after queueing a step: waits for the one two before it."""
        if not self.on:
            return
        self._queued.append(torch.cuda.Event())
        self._queued[-1].record()
        if len(self._queued) > AHEAD:
            self._queued.popleft().synchronize()


def choose_plan(device: torch.device) -> str:
    """Return the plan that `auto` stands for: networks on the CPU run where they are read."""
    return "resident" if device.type == "cpu" or available(device) >= ROOMY else "staged"


def available(device: torch.device) -> int:
    """Return the bytes of memory that can be ours, what we have already included."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        free, total = torch.cuda.mem_get_info(index)
        limit = int(total * torch.cuda.get_per_process_memory_fraction(index))
        return min(free + torch.cuda.memory_reserved(index), limit)
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` says that memory of the device or of the host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    said = "out of memory" in text or "can't allocate memory" in text
    return isinstance(error, RuntimeError) and said


def out_of_memory(device: torch.device, plan: str) -> OutOfMemoryError:
    """Return the error that tells the person what to do next."""
    if device.type == "cpu":
        return OutOfMemoryError("memory ran out; close other programs, or take a smaller photo")
    if plan == "resident":
        advice = 'load the model with memory="staged", which needs about half'
    else:
        advice = 'close other programs that use it, or load the model with device="cpu"'
    free = ""
    if device.type == "cuda":
        left, total = torch.cuda.mem_get_info(device)
        free = f", {left / GIB:.1f} of {total / GIB:.1f} GiB free"
    return OutOfMemoryError(
        f"the memory of {device.type} ran out with the plan {plan!r}{free}; {advice}"
    )
