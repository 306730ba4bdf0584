"""One function's steps as CUDA graphs, where there is memory for them."""

import traceback
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


@cache
def side_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Return the streams for captures and for the layout; libraries keep memory for each."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


ROOM = 2**29
"""Bytes that must be free for a capture. The graphs of a flow of published size share nearly as
much."""


class Captured(NamedTuple):
    """One kind of step as a CUDA graph."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]  # what the graph reads
    outputs: Any  # what it writes


class StepGraphs:
    """The graphs of a function, one for each kind of step.

    A kind runs as it is first, so that libraries set up what they need, and is captured then. A
    capture takes the host about as long as a step. `patient` graphs are captured only while that
    delays nothing. A kind of theirs that ran in an earlier request, before the last `forget`, may
    be captured without a run: at once where the run would take the device no longer than the
    capture the host, or ahead, see `foresee`. Where memory is short, steps run as they are: graphs
    keep theirs to themselves.
    """

    def __init__(self, device: torch.device, *, patient: bool = False) -> None:
        self.patient = patient
        self._stream = side_streams(device)[0] if device.type == "cuda" else None
        self._known: set[Hashable] = set()  # kinds that ran since `forget`
        self._set_up: set[Hashable] = set()  # kinds that ran in earlier requests
        self._early = True  # whether kinds can be captured without a run
        self._crowded = False  # no memory to capture more of them until `forget`
        self._starved: dict[Hashable, int] = {}  # largest step, in numbers, that found it idle
        self._captured: dict[Hashable, Captured] = {}
        self._pool_owner: torch.cuda.CUDAGraph | None = None
        self._ends: deque[torch.cuda.Event] = deque(maxlen=3)  # of the last three steps
        self._full = False  # no memory for graphs until `forget`

    def run(self, kind: Hashable, step: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return `step(*inputs)`; tensors in it last until the next call.

        The step must read nothing else that changes between calls of the same kind.
        """
        if self._stream is None or torch.is_grad_enabled():
            return step(*inputs)
        if kind not in self._captured:
            if kind in self._known:
                if self._may_capture(kind, inputs[0].numel()):
                    self._capture_in_room(self._stream, kind, step, *inputs)
            elif self.patient and inputs[0].numel() <= self._starved.get(kind, 0):
                self._capture_early(self._stream, kind, step, *inputs)
        if kind in self._captured:
            outputs = self._replay(self._captured[kind], *inputs)
        else:
            self._known.add(kind)
            outputs = self._beside(self._stream, step, *inputs)
        self._ends.append(torch.cuda.current_stream(self._stream.device).record_event())
        return outputs

    def foresee(self, kind: Hashable, step: Callable[..., Any], *inputs: Tensor) -> None:
        """Capture a kind that comes later, if the device has three steps to do meanwhile.

        inputs: of the sizes that it will have. It must have run in a request before.
        """
        if self._stream is None or torch.is_grad_enabled() or kind in self._captured:
            return
        if len(self._ends) == self._ends.maxlen and not any(end.query() for end in self._ends):
            self._capture_early(self._stream, kind, step, *inputs)

    def forget(self) -> None:
        """Drop all graphs; their memory stays for the next ones."""
        self._set_up |= self._known
        self._known.clear()
        self._captured.clear()
        self._ends.clear()
        self._full = self._crowded = False

    def close(self) -> None:
        """Drop all graphs and give their memory back."""
        held = bool(self._captured) or self._pool_owner is not None
        self.forget()
        if held:
            self._pool_owner = None
            torch.cuda.empty_cache()

    def _may_capture(self, kind: Hashable, size: int) -> bool:
        """Say whether the device has more than a step to do yet, or waits for the host anyway.

        size: of the step, in numbers; where the device waits, a smaller one would let it wait, too,
        unless the host was only busy setting up libraries.
        """
        if self._full or not self.patient:
            return not self._full
        busy = [not end.query() for end in list(self._ends)[-2:]]
        if not any(busy) and kind in self._set_up:
            self._starved[kind] = max(self._starved.get(kind, 0), size)
        return busy == [True, True] or not any(busy)

    @staticmethod
    def _replay(captured: Captured, *inputs: Tensor) -> Any:
        for own, given in zip(captured.inputs, inputs, strict=True):
            own.copy_(given)
        captured.graph.replay()
        return captured.outputs

    def _beside(self, stream: torch.cuda.Stream, step: Callable[..., Any], *inputs: Tensor) -> Any:
        """Run on the stream of the captures, so that libraries set up what they need there."""
        caller = torch.cuda.current_stream(stream.device)
        stream.wait_stream(caller)
        with torch.cuda.stream(stream):
            outputs = step(*inputs)
        caller.wait_stream(stream)
        for tensor in tensors(outputs):
            tensor.record_stream(caller)
        return outputs

    def _capture_early(
        self,
        stream: torch.cuda.Stream,
        kind: Hashable,
        step: Callable[..., Any],
        *inputs: Tensor,
    ) -> None:
        """Capture a kind without a run, where libraries are set up; if they are not, never again.

        For other sizes they may still load a kernel, which a relaxed capture lets them do. Graphs
        that are there stay, whatever becomes of this one.
        """
        if self._full or self._crowded or not self._early or kind not in self._set_up:
            return
        if room(stream.device) < ROOM:
            return
        try:
            self._captured[kind] = self._capture(stream, step, *inputs)
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            torch.cuda.empty_cache()
            self._crowded = True
        except RuntimeError as error:
            traceback.clear_frames(error.__traceback__)
            self._early = False
            warnings.warn(f"no step is captured ahead any more: {error}", stacklevel=4)

    def _capture_in_room(
        self,
        stream: torch.cuda.Stream,
        kind: Hashable,
        step: Callable[..., Any],
        *inputs: Tensor,
    ) -> None:
        """Capture the kind, or nothing more from here on if memory is too short or CUDA refuses.

        A capture cannot use memory that PyTorch keeps for others, nor free it; so where there is
        time for that, it is freed before.
        """
        if not self.patient:
            torch.cuda.empty_cache()
        if room(stream.device) >= ROOM:
            try:
                self._captured[kind] = self._capture(stream, step, *inputs)
                return
            except RuntimeError as error:  # one of the step itself comes up again when it runs
                traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
                if not isinstance(error, torch.OutOfMemoryError):
                    warnings.warn(f"steps run without graphs, slower: {error}", stacklevel=4)
        self.close()
        torch.cuda.empty_cache()
        self._full = True

    def _capture(
        self, stream: torch.cuda.Stream, step: Callable[..., Any], *inputs: Tensor
    ) -> Captured:
        """Record the step, without the pause that `torch.cuda.graph` makes to collect garbage."""
        own = tuple(tensor.clone() for tensor in inputs)
        owner, graph = self._pool_owner, torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if owner is None else owner.pool()  # one for all
        with torch.cuda.stream(stream):
            graph.capture_begin(pool, capture_error_mode="relaxed")
            try:
                outputs = step(*own)
            except BaseException:
                with suppress(RuntimeError):  # the first error counts
                    self._end(graph, pool)
                raise
            self._end(graph, pool)
        self._pool_owner = graph
        return Captured(graph, own, outputs)

    def _end(self, graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> None:
        """End a capture on the current stream.

        One that CUDA has refused stays open for PyTorch, which then neither captures into its pool
        nor draws random numbers. So the pool is closed and left, and something small captured.
        """
        try:
            graph.capture_end()
        except RuntimeError:
            self._pool_owner, other = None, torch.cuda.CUDAGraph()
            with suppress(RuntimeError):  # where PyTorch did close it
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
            with suppress(RuntimeError):  # where CUDA refuses all that is asked
                other.capture_begin(capture_error_mode="relaxed")
                torch.empty(1, device="cuda").zero_()
                other.capture_end()
            raise


def room(device: torch.device) -> int:
    """Return the bytes that PyTorch can still take of the device, limits of the process counted."""
    free, total = torch.cuda.mem_get_info(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free, limit - torch.cuda.memory_reserved(device))


def tensors(nested: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples and dictionaries, in their order."""
    if isinstance(nested, Tensor):
        yield nested
        return
    for part in nested.values() if isinstance(nested, dict) else nested:
        yield from tensors(part)
