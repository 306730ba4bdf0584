"""Networks faster on CUDA: steps replayed from CUDA graphs, stage 1's two streams side by side.

    flow = accelerate(build_structure_flow(dtype=torch.float16, device="cuda"))
    for step, latents in sample_structure(flow, tokens, noise): ...

A graph launches all kernels of a step at once. In stage 1, half of a thousand are for the four
layout tokens and far shorter than their launch; they run beside the shape's, on a second CUDA
stream. Off CUDA every step runs as it is.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.conditioning import ImageEmbed
from sam3d_nb.model.constants import onto
from sam3d_nb.model.graphs import StepGraphs, side_streams
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import Condition as LatentCondition
from sam3d_nb.model.latent_flow import LatentFlow, LatentModulation, make_tables
from sam3d_nb.model.layers import Modulation
from sam3d_nb.model.sampler import Latents
from sam3d_nb.model.structure_blocks import LAYOUT, SHAPE
from sam3d_nb.model.structure_flow import Condition, StructureFlow

Table = TypeVar("Table", Tensor, LatentModulation)


@overload
def accelerate(flow: StructureFlow) -> "AcceleratedStructureFlow": ...
@overload
def accelerate(flow: LatentFlow) -> "AcceleratedLatentFlow": ...
def accelerate(flow: Any) -> Any:
    """Return `flow` with its steps replayed from CUDA graphs, on the device where it is.

    The first step of a kind (guided or not) runs as it is, in stage 2 only of the first request or
    where that is faster. Then the kind is captured, and replayed from there on: in stage 1 also in
    later requests of the same sizes, in stage 2 until the next request, whose voxels are others.
    Steps for whose graphs the memory is too short run as they are. After a change of weights in
    place call its `close`.
    """
    if isinstance(flow, StructureFlow):
        return AcceleratedStructureFlow(flow)
    return AcceleratedLatentFlow(flow)


def addresses(modules: Iterable[nn.Module]) -> list[int]:
    """Return where the tensors of `modules` lie, those inside of them left out."""
    own = ((*module._parameters.values(), *module._buffers.values()) for module in modules)
    return [tensor.data_ptr() for some in own for tensor in some if tensor is not None]


class LastTimes(Generic[Table]):
    """The modulation of the last times: most requests have the same, one hundred launches less.

    Weights that are changed in place are not noticed; `close` after that.
    """

    def __init__(self, compute: Callable[..., Table]) -> None:
        self._compute: Callable[..., Table] = compute
        self._known: tuple[object, Table] | None = None

    def __call__(self, device: torch.device, *times: Tensor | None) -> Table:
        """Return `compute(*times)` for a network on `device`."""
        if torch.is_grad_enabled():
            return self._compute(*times)
        asked = (device, [None if t is None else t.tolist() for t in times])
        if self._known is None or self._known[0] != asked:
            self._known = asked, self._compute(*times)
        return self._known[1]

    def close(self) -> None:
        """Forget them."""
        self._known = None


class AcceleratedStructureFlow:
    """A `StructureFlow` whose steps are replayed; made by `accelerate`.

    It serves one request at a time: `prepare` ends the one before. Graphs and condition stay for
    the next request, until `close`.
    """

    def __init__(self, flow: StructureFlow) -> None:
        device = next(flow.parameters()).device
        self.flow, self.config = flow, flow.config
        self._modules = list(flow.modules())
        self._times = LastTimes(flow.modulation)
        self._graphs = StepGraphs(device)
        self._side = side_streams(device)[1] if device.type == "cuda" else None
        self._condition: Condition | None = None  # in buffers that stay where they are
        self._built_for: object = None  # sizes and addresses in the graphs

    def prepare(self, tokens: Tensor) -> Condition:
        """Begin a request; see `StructureFlow.prepare`.

        Graphs stay where the sizes, and the places of the weights, are those of the last request.
        """
        tokens = self.flow.ready_tokens(tokens)
        wanted = (tokens.shape, addresses(self._modules))
        if self._condition is None or self._built_for != wanted:
            self.close()
            self._condition, self._built_for = self.flow.prepare(tokens), wanted
        else:
            own = self._condition
            self._graphs.run("condition", lambda new: self._refill(own, new), tokens)
            self._condition = (*own,)  # another, which tells this request from the one before
        return self._condition

    def modulation(self, t: Tensor, d: Tensor | None = None) -> Tensor:
        """See `StructureFlow.modulation`."""
        return self._times(next(self.flow.parameters()).device, t, d)

    def close(self) -> None:
        """Free the graphs and the condition; the flow itself stays."""
        self._condition = None
        self._times.close()
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

    def _refill(self, condition: Condition, tokens: Tensor) -> tuple[()]:
        """Write over the buffers, block by block, so that only one block's is there twice."""
        for own, block in zip(condition, self.flow.blocks, strict=True):
            for stream, layer in own.items():
                block.cross_attn[stream].keys_values(tokens, layer.tokens)
        return ()


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


class AcceleratedVision:
    """`ImageEmbed.features` with the passes of the DINOv2 networks replayed.

    Graphs serve all later images of the same size, until `close`. Off CUDA, and where memory is
    short, passes run as they are.
    """

    def __init__(self) -> None:
        self._graphs: StepGraphs | None = None
        self._built_for: dict[nn.Module, list[int]] = {}  # addresses in the graphs

    def __call__(self, embed: ImageEmbed, image: Tensor) -> Tensor:
        """Return `embed.features(image)`."""
        backbone, device = embed.backbone, embed.backbone.cls_token.device
        self._graphs = self._graphs or StepGraphs(device)
        places = addresses(backbone.modules())
        if self._built_for.setdefault(backbone, places) != places:
            self.close()
            self._built_for[backbone] = places
        image = onto(image, device)
        kind = (backbone, image.shape, image.dtype)
        return self._graphs.run(kind, embed.features, image).clone()

    def close(self) -> None:
        """Free the graphs."""
        self._built_for.clear()
        if self._graphs is not None:
            self._graphs.close()


class AcceleratedLatentFlow:
    """A `LatentFlow` whose steps are replayed; made by `accelerate`.

    Graphs belong to one condition and one grid. Launching a step takes the host about as long as
    the device needs for it, so steps are captured while the device is behind, or starves; those
    without guidance, which come last, while the device is busy with those before.
    """

    def __init__(self, flow: LatentFlow) -> None:
        self.flow, self.config = flow, flow.config
        self._times = LastTimes(flow.modulation)
        self._graphs = StepGraphs(next(flow.parameters()).device, patient=True)
        self._served: tuple[LatentCondition, Grid] | None = None

    def prepare(self, tokens: Tensor) -> LatentCondition:
        """Begin a request; see `LatentFlow.prepare`."""
        self._served = None
        self._graphs.forget()
        return self.flow.prepare(tokens)

    def modulation(self, t: Tensor) -> LatentModulation:
        """See `LatentFlow.modulation`."""
        return self._times(next(self.flow.parameters()).device, t)

    def close(self) -> None:
        """Free the graphs and the last condition; the flow itself stays."""
        self._served = None
        self._times.close()
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
        make_tables(grid, self.config.width, guided=guided)  # in a capture nothing can be counted

        def step(guided: bool, x: Tensor, blocks: Tensor, *residual: Tensor) -> Tensor:
            rows = LatentModulation(blocks, residual)
            return self.flow(x, rows, condition, grid, guided=guided)

        inputs, times = (x, modulation.blocks, *modulation.residual), modulation.blocks.shape[0]
        result = self._graphs.run((guided, times), partial(step, guided), *inputs)
        if guided:  # the last steps are not; nor do they need other tables of the grid
            self._graphs.foresee((False, times), partial(step, False), *inputs)
        return result
