"""Flows faster on CUDA: steps replayed from CUDA graphs, stage 1's two streams side by side.

    flow = accelerate(build_structure_flow(dtype=torch.float16, device="cuda"))
    for step, latents in sample_structure(flow, tokens, noise): ...

A graph launches all kernels of a step at once. In stage 1, half of a thousand are for the four
layout tokens and far shorter than their launch; they run beside the shape's, on a second CUDA
stream. Off CUDA every step runs as it is.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import Condition as LatentCondition
from sam3d_nb.model.latent_flow import LatentFlow, LatentModulation
from sam3d_nb.model.layers import Modulation
from sam3d_nb.model.sampler import Latents
from sam3d_nb.model.structure_blocks import LAYOUT, SHAPE
from sam3d_nb.model.structure_flow import Condition, StructureFlow


@overload
def accelerate(flow: StructureFlow) -> "AcceleratedStructureFlow": ...
@overload
def accelerate(flow: LatentFlow) -> "AcceleratedLatentFlow": ...
def accelerate(flow: Any) -> Any:
    """Return `flow` with its steps replayed from CUDA graphs, on the device where it is.

    The first step of a kind (guided or not) runs as it is. Then the kind is captured, and replayed
    from there on: in stage 1 also in later requests of the same sizes, in stage 2 until the next
    request, whose voxels are others.
    """
    if isinstance(flow, StructureFlow):
        return AcceleratedStructureFlow(flow)
    return AcceleratedLatentFlow(flow)


@cache
def side_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Return the streams for captures and for the layout; libraries keep memory for each."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


class Captured(NamedTuple):
    """One kind of step as a CUDA graph."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]  # what the graph reads
    outputs: Any  # what it writes


class StepGraphs:
    """The graphs of a function, one for each kind of step.

    A capture takes the host about as long as a step. `patient` graphs are captured only while that
    delays nothing.
    """

    def __init__(self, device: torch.device, *, patient: bool = False) -> None:
        self.patient = patient
        self._stream = side_streams(device)[0] if device.type == "cuda" else None
        self._known: set[Hashable] = set()  # kinds that ran
        self._captured: dict[Hashable, Captured] = {}
        self._pool_owner: torch.cuda.CUDAGraph | None = None
        self._ends: deque[torch.cuda.Event] = deque(maxlen=2)  # of the last two steps

    def run(self, kind: Hashable, step: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return `step(*inputs)`; tensors in it last until the next call.

        The step must read nothing else that changes between calls of the same kind.
        """
        if self._stream is None or torch.is_grad_enabled():
            return step(*inputs)
        if kind in self._known and kind not in self._captured and self._may_capture():
            self._captured[kind] = self._capture(self._stream, step, *inputs)
        if kind in self._captured:
            outputs = self._replay(self._captured[kind], *inputs)
        else:
            self._known.add(kind)
            outputs = self._beside(self._stream, step, *inputs)
        self._ends.append(torch.cuda.current_stream(self._stream.device).record_event())
        return outputs

    def forget(self) -> None:
        """Drop all graphs; their memory stays for the next ones."""
        self._known.clear()
        self._captured.clear()
        self._ends.clear()

    def close(self) -> None:
        """Drop all graphs and give their memory back."""
        self.forget()
        if self._pool_owner is not None:
            self._pool_owner = None
            torch.cuda.empty_cache()

    def _may_capture(self) -> bool:
        """Say whether the device has more than a step to do yet, or waits for the host anyway."""
        if not self.patient:
            return True
        busy = [not end.query() for end in self._ends]
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

    def _capture(
        self, stream: torch.cuda.Stream, step: Callable[..., Any], *inputs: Tensor
    ) -> Captured:
        """Record the step, without the pause that `torch.cuda.graph` makes to collect garbage.

        A capture cannot use memory that PyTorch keeps for others, nor free it; so where there is
        time for that, it is freed before.
        """
        if not self.patient:
            torch.cuda.empty_cache()
        own = tuple(tensor.clone() for tensor in inputs)
        owner, graph = self._pool_owner, torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if owner is None else owner.pool()  # one for all
        with torch.cuda.stream(stream):
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                outputs = step(*own)
            except BaseException:
                with suppress(RuntimeError):  # the capture may be broken; the first error counts
                    graph.capture_end()
                raise
            graph.capture_end()
        self._pool_owner = graph
        return Captured(graph, own, outputs)


class AcceleratedStructureFlow:
    """A `StructureFlow` whose steps are replayed; made by `accelerate`.

    It serves one request at a time: `prepare` ends the one before. Graphs and condition stay for
    the next request, until `close`.
    """

    def __init__(self, flow: StructureFlow) -> None:
        device = next(flow.parameters()).device
        self.flow, self.config = flow, flow.config
        self._graphs = StepGraphs(device)
        self._side = side_streams(device)[1] if device.type == "cuda" else None
        self._condition: Condition | None = None  # in buffers that stay where they are
        self._built_for: object = None  # sizes and addresses in the graphs

    def prepare(self, tokens: Tensor) -> Condition:
        """Begin a request; see `StructureFlow.prepare`.

        Graphs stay where the sizes, and the places of the weights, are those of the last request.
        """
        tokens = self.flow.ready_tokens(tokens)
        addresses = [t.data_ptr() for t in chain(self.flow.parameters(), self.flow.buffers())]
        wanted = (tokens.shape, addresses)
        if self._condition is None or self._built_for != wanted:
            self.close()
            self._condition, self._built_for = self.flow.prepare(tokens), wanted
        else:
            self._condition = self._refilled(self._condition, tokens)
        return self._condition

    def modulation(self, t: Tensor, d: Tensor | None = None) -> Tensor:
        """See `StructureFlow.modulation`."""
        return self.flow.modulation(t, d)

    def close(self) -> None:
        """Free the graphs and the condition; the flow itself stays."""
        self._condition = None
        self._graphs.close()

    def __call__(
        self,
        latents: Latents,
        modulation: Tensor,  # (B or 1, blocks, 6, C); one row with `guided`
        condition: Condition,
        *,
        guided: bool = False,
    ) -> Latents:
        """Return what `StructureFlow` does, in tensors that the next call overwrites.

        Raises `InputError` where it does, and for the condition of an earlier request.
        """
        if condition is not self._condition:
            raise InputError(
                "the condition belongs to an earlier request, which a later `prepare` or `close` "
                "ended; finish one request before the next, or use the flow without `accelerate`"
            )
        self.flow.check(latents, modulation, condition, guided=guided)
        names = sorted(latents)

        def step(rows: Tensor, *values: Tensor) -> Latents:
            given = dict(zip(names, values, strict=True))
            if self._side is None or torch.is_grad_enabled():
                return self.flow(given, rows, condition, guided=guided)
            return side_by_side(self.flow, given, rows, condition, self._side, guided=guided)

        kind = (guided, modulation.shape[0])
        return self._graphs.run(kind, step, modulation, *(latents[name] for name in names))

    def _refilled(self, condition: Condition, tokens: Tensor) -> Condition:
        """Write over the buffers, block by block, so that only one block's is there twice.

        The tuple around them is another, by which a call knows a request from the one before.
        """
        for own, block in zip(condition, self.flow.blocks, strict=True):
            for stream, layer in own.items():
                new = block.cross_attn[stream].keys_values(tokens)
                layer.tokens.keys.copy_(new.keys)
                layer.tokens.values.copy_(new.values)
        return (*condition,)


def side_by_side(
    flow: StructureFlow,
    latents: Latents,
    modulation: Tensor,  # (B or 1, blocks, 6, C)
    condition: Condition,
    side: torch.cuda.Stream,
    *,
    guided: bool,
) -> Latents:
    """Return what `flow` does, with the layout tokens on the stream `side`.

    Shape tokens never read layout tokens, so the layout of a block waits for that block's shape
    keys and values alone.
    """
    main = torch.cuda.current_stream(side.device)
    tokens = flow.encode(latents)  # kept to the end, since `side` reads it
    shape, layout = tokens[SHAPE], tokens[LAYOUT]
    side.wait_stream(main)
    try:
        for block, rows, c in zip(flow.blocks, modulation.unbind(1), condition, strict=True):
            m = Modulation.of(rows)
            q, own = block.project(SHAPE, shape, m)  # frees the last block's keys and values, so
            main.wait_stream(side)  # what reads them must have finished; it has long done so
            side.wait_stream(main)
            with torch.cuda.stream(side):
                layout, _ = block(LAYOUT, layout, m, c[LAYOUT], own, guided=guided)
            shape = block.advance(SHAPE, shape, m, q, own, c[SHAPE], guided=guided)
    finally:  # also after an error: no capture ends while its streams are apart
        main.wait_stream(side)
    return flow.decode(shape, layout)


class AcceleratedLatentFlow:
    """A `LatentFlow` whose steps are replayed; made by `accelerate`.

    Graphs belong to one condition and one grid. Launching a step takes the host about as long as
    the device needs for it, so steps are captured while the device is behind, or starves.
    """

    def __init__(self, flow: LatentFlow) -> None:
        self.flow, self.config = flow, flow.config
        self._graphs = StepGraphs(next(flow.parameters()).device, patient=True)
        self._served: tuple[LatentCondition, Grid] | None = None

    def prepare(self, tokens: Tensor) -> LatentCondition:
        """Begin a request; see `LatentFlow.prepare`."""
        self._served = None
        self._graphs.forget()
        return self.flow.prepare(tokens)

    def modulation(self, t: Tensor) -> LatentModulation:
        """See `LatentFlow.modulation`."""
        return self.flow.modulation(t)

    def close(self) -> None:
        """Free the graphs and the last condition; the flow itself stays."""
        self._served = None
        self._graphs.close()

    def __call__(
        self,
        x: Tensor,  # (N, channels)
        modulation: LatentModulation,  # S = 1, or B without `guided`
        condition: LatentCondition,
        grid: Grid,
        *,
        guided: bool = False,
    ) -> Tensor:
        """Return what `LatentFlow` does, in a tensor that the next call overwrites."""
        self.flow.check(x, modulation, condition, grid, guided=guided)
        if self._served is None or self._served[0] is not condition or self._served[1] is not grid:
            self._graphs.forget()
            self._served = condition, grid

        def step(x: Tensor, blocks: Tensor, *residual: Tensor) -> Tensor:
            rows = LatentModulation(blocks, residual)
            return self.flow(x, rows, condition, grid, guided=guided)

        kind = (guided, modulation.blocks.shape[0])
        return self._graphs.run(kind, step, x, modulation.blocks, *modulation.residual)


def tensors(nested: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples and dictionaries, in their order."""
    if isinstance(nested, Tensor):
        yield nested
        return
    for part in nested.values() if isinstance(nested, dict) else nested:
        yield from tensors(part)
