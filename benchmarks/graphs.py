"""CUDA graphs for the flows: the same kernels, without the gaps between their launches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class GraphedFlow:
    """Stands in for a flow inside one request, and replays its forward pass.

    Guided and plain steps have a graph each. The first call of either kind runs as it is, so that
    libraries and tables are set up; the second is captured. What it returns is overwritten by the
    next call.
    """

    def __init__(self, flow: Callable[..., Any]) -> None:
        self.flow = flow
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, list[Tensor], Any] | None] = {}

    def __call__(self, state: Any, modulation: Any, *fixed: Any, guided: bool = False) -> Any:
        """Call the flow; everything but `state` and `modulation` must stay what it was."""
        if guided not in self._graphs:
            self._graphs[guided] = None
            return self.flow(state, modulation, *fixed, guided=guided)
        given, spec = tree_flatten((state, modulation))
        entry = self._graphs[guided]
        if entry is None:
            inputs = [tensor.clone() for tensor in given]
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self.flow(*tree_unflatten(inputs, spec), *fixed, guided=guided)
            entry = self._graphs[guided] = (graph, inputs, out)
        graph, inputs, out = entry
        for own, tensor in zip(inputs, given, strict=True):
            own.copy_(tensor)
        graph.replay()
        return out
