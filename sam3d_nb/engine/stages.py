"""The stages of one object, in the order in which data goes through them.

Each is a generator: it yields its events and returns what the next ones need. What a stage leaves
on the device is freed when its generator ends, at the latest when it is closed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.engine.memory import Pace, Placement
from sam3d_nb.engine.options import Options
from sam3d_nb.engine.results import gaussians_of, mesh_of, no_mesh, pixel_intrinsics, pose_of
from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.events import (
    ConditioningEvent,
    DepthEvent,
    Event,
    GaussiansEvent,
    LayoutEvent,
    MeshEvent,
    SparseStructureEvent,
    StructuredLatentEvent,
)
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model import latent_flow, structure_flow
from sam3d_nb.model.accelerate import (
    AcceleratedLatentFlow,
    AcceleratedStructureFlow,
    AcceleratedVision,
    accelerate,
)
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.conditioning import Features, begin_condition, condition_tokens
from sam3d_nb.model.coords import Voxels, find_voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import denormalize, sample_latent
from sam3d_nb.model.layout import decode_layout
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.pointmap import PointMapOptions, estimate_pointmap
from sam3d_nb.model.preprocess import (
    Moments,
    crop_box,
    flip_frame,
    image_inputs,
    mask_tensor,
    point_inputs,
)
from sam3d_nb.model.sampler import Latents, Step
from sam3d_nb.model.structure_decoder import decode_structure
from sam3d_nb.model.structure_flow import sample_structure
from sam3d_nb.model.surface import Sculpt
from sam3d_nb.object3d import ESTIMATED
from sam3d_nb.request import Request
from sam3d_nb.splats import Gaussians
from sam3d_nb.weights.store import ModuleStore

State = TypeVar("State")

GIVEN = "given"


class Depth(NamedTuple):
    """A point map, its camera, and where they come from."""

    points: Tensor  # (H, W, 3) float32, OpenCV, NaN where unknown; on the CPU
    intrinsics: np.ndarray  # K (3, 3) in pixels
    source: str  # GIVEN, or estimated


class Condition(NamedTuple):
    """What the flows are told about the object."""

    tokens: list[Tensor]  # of stage 1 and stage 2, each (1, L, C)
    moments: Moments  # of the point map


class Stages:
    """Networks on a device, and the stages that use them.

    accelerate: replay the steps of the flows from CUDA graphs, as far as memory allows; None does
    so on CUDA.
    """

    pointmap_options = PointMapOptions()

    def __init__(
        self,
        store: ModuleStore,
        device: torch.device,
        memory: str = "auto",
        *,
        accelerate: bool | None = None,
    ) -> None:
        self.store = store
        self.config = store.config
        self.device = device
        self.memory = Placement(store, device, memory)
        self.accelerate = device.type == "cuda" if accelerate is None else accelerate
        self._accelerated: dict[str, AcceleratedStructureFlow | AcceleratedLatentFlow] = {}
        self._vision = AcceleratedVision()

    def release(self) -> None:
        """Free the memory of the device; the next reconstruction takes it again."""
        self.close_graphs()
        self.memory.clear()

    def close_graphs(self) -> None:
        """Free what is kept to replay flows and features: graphs, and the last condition."""
        for flow in self._accelerated.values():
            flow.close()
        self._vision.close()

    def estimate_depth(
        self, request: Request, image: Tensor, cache: SceneCache
    ) -> Generator[Event, None, Depth]:
        """Take the point map of the request, or estimate it from `image` (3, H, W)."""
        yield DepthEvent()
        if request.pointmap is not None:
            depth = Depth(torch.tensor(request.pointmap), request.intrinsics, GIVEN)
        else:
            depth = cache.recall((self.store, "point map"), image, self._estimate)
        on_object = depth.points[torch.tensor(request.mask)]  # (n, 3)
        if not bool(on_object.isfinite().all(-1).any()):
            warnings.warn(
                "the point map has no point within the mask, so the object's size and place are "
                "only a guess",
                stacklevel=2,
            )
        seen = depth.points.numpy()
        seen.flags.writeable = False  # a cache may hold it for the next object
        yield DepthEvent(1.0, seen, depth.intrinsics)
        return depth

    def _estimate(self, image: Tensor) -> Depth:
        with self.memory.hold("moge"):
            network = self.store.get("moge", self.device)
            found = estimate_pointmap(network, image, self.pointmap_options)
        points = found.points.float()
        points = points.masked_fill(~points.isfinite().all(-1, keepdim=True), torch.nan).cpu()
        return Depth(points, pixel_intrinsics(found.intrinsics, *points.shape[:2]), ESTIMATED)

    def embed(
        self, request: Request, image: Tensor, depth: Depth, cache: SceneCache
    ) -> Generator[Event, None, Condition]:
        """Turn photo (3, H, W), mask and point map into the condition tokens of both stages."""
        yield ConditioningEvent()
        mask, config = mask_tensor(torch.tensor(request.mask)), self.config.preprocess
        box = crop_box(mask, config.box_factor)
        views = image_inputs(image, mask, box, config, cache)
        with self.memory.hold("condition_stage1", "condition_stage2"):
            first = self.store.get("condition_stage1", self.device)
            second = self.store.get("condition_stage2", self.device)
            begin_condition([first, second], views, cache, self._features)
            points = cache.recall(flip_frame, depth.points, _network_frame)  # (3, H, W)
            inputs = point_inputs(points, mask, box, config)
            tensors = views | inputs.tensors
            tokens = condition_tokens([first, second], tensors, cache, self._features)
        yield ConditioningEvent(1.0)
        return Condition(tokens, inputs.moments)

    @property
    def _features(self) -> Features | None:
        """What runs the backbones; their graphs stay, so they are for where there is room."""
        stay = self.accelerate and self.memory.roomy and not self.memory.staged
        return self._vision if stay else None

    def sample_structure(
        self, tokens: Tensor, generator: torch.Generator, options: Options
    ) -> Generator[Event, None, tuple[Latents, Tensor]]:
        """Stage 1: sample the latents of shape and layout, and occupancy logits (1, 1, R, R, R)."""
        sampler, _ = options.samplers(self.config)
        steps = sampler.steps
        yield SparseStructureEvent(steps=steps)
        config = self.config.structure_flow
        noise = structure_flow.draw_noise(config, generator, device=self.device)
        with self._flow("structure_flow") as flow:
            run = sample_structure(flow, tokens, noise, sampler)
            latents = yield from self._stepped(
                run, lambda done: SparseStructureEvent(done / (steps + 1), done, steps)
            )
        with self.memory.hold("structure_decoder"):
            decoder = self.store.get("structure_decoder", self.device)
            logits = decode_structure(decoder, latents[structure_flow.SHAPE])
        return latents, logits

    def occupied(
        self, logits: Tensor, generator: torch.Generator, options: Options
    ) -> Generator[Event, None, Voxels]:
        """Read occupancy logits (1, 1, R, R, R) as voxels, and show them."""
        sampler, _ = options.samplers(self.config)
        voxels = self.find_voxels(logits, generator)
        preview, side = voxels.coords[:, 1:].cpu().numpy().copy(), logits.shape[-1]
        yield SparseStructureEvent(1.0, sampler.steps, sampler.steps, preview, side)
        return voxels

    def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Voxels:
        """Return the occupied voxels of logits (1, 1, R, R, R)."""
        try:
            return find_voxels(logits, self.config.coords, generator)
        except InputError as error:
            raise ReconstructionError(str(error)) from error

    def place(
        self, latents: Latents, moments: Moments, factor: float = 1
    ) -> Generator[Event, None, Pose]:
        """Decode the pose out of the layout latents of stage 1; `factor` is that of the voxels."""
        yield LayoutEvent()
        on_host = {name: latents[name].cpu() for name in structure_flow.LAYOUT_CHANNELS}
        pose = pose_of(decode_layout(on_host, moments, factor, self.config.layout))
        yield LayoutEvent(1.0, pose)
        return pose

    def sample_latent(
        self, voxels: Voxels, tokens: Tensor, generator: torch.Generator, options: Options
    ) -> Generator[Event, None, tuple[Tensor, Grid]]:
        """Stage 2: sample the structured latent (N, C) of the N voxels, de-normalized."""
        _, sampler = options.samplers(self.config)
        steps = sampler.steps
        yield StructuredLatentEvent(steps=steps)
        config = self.config.latent_flow
        grid = Grid(voxels.coords, config.resolution)
        noise = latent_flow.draw_noise(grid, config.channels, generator)
        with self._flow("latent_flow") as flow:
            run = sample_latent(flow, tokens, grid, noise, sampler)
            latent = yield from self._stepped(
                run, lambda done: StructuredLatentEvent(done / steps, done, steps)
            )
        return denormalize(latent, self.config.latent), grid

    def decode_gaussians(
        self, latent: Tensor, grid: Grid, options: Options
    ) -> Generator[Event, None, Gaussians | None]:
        """Decode the gaussians that were asked for, if any."""
        if options.gaussians is None:
            return None
        yield GaussiansEvent()
        name = "splat_decoder_4" if options.gaussians == "gaussians_4" else "splat_decoder"
        with self.memory.hold(name):
            decoder = self.store.get(name, self.device)
            gaussians = self.memory.with_room(
                lambda: gaussians_of(decoder(latent, grid)), name, free=self.close_graphs
            )
        yield GaussiansEvent(1.0)
        return gaussians

    def decode_mesh(
        self, latent: Tensor, grid: Grid, options: Options, sculpt: Sculpt | None = None
    ) -> Generator[Event, None, Mesh]:
        """Decode the mesh, if it was asked for. sculpt: see `mesh_from_features`."""
        if "mesh" not in options.formats:
            return no_mesh()
        yield MeshEvent()
        with self.memory.hold("mesh_decoder"):
            decoder = self.store.get("mesh_decoder", self.device)
            mesh = self.memory.with_room(
                lambda: mesh_of(self.extract(decoder, latent, grid, sculpt)),
                "mesh_decoder",
                free=self.close_graphs,
            )
        yield MeshEvent(1.0)
        return mesh

    def extract(
        self, decoder: MeshDecoder, latent: Tensor, grid: Grid, sculpt: Sculpt | None = None
    ) -> Surface:
        """Return the surface that `decoder` sees in latents (N, C)."""
        return decoder.decode(latent, grid, sculpt)

    @contextmanager
    def _flow(self, name: str) -> Iterator[Any]:
        """Have a flow; what it keeps for the next request stays if there is room."""
        with self.memory.hold(name):
            flow: Any = self.store.get(name, self.device)
            if not self.accelerate:
                yield flow
                return
            if name not in self._accelerated:
                self._accelerated[name] = accelerate(flow)
            finished = False
            try:
                yield self._accelerated[name]
                finished = True
            finally:
                if self.memory.staged or not (finished and self.memory.roomy):
                    self._accelerated[name].close()

    def _stepped(
        self, run: Iterator[tuple[Step, State]], event: Callable[[int], Event]
    ) -> Generator[Event, None, State]:
        """Yield `event(steps done)` after every step; return the state after the last one."""
        pace = Pace(self.device)
        for step, state in run:  # noqa: B007
            pace()
            yield event(step.index + 1)
        return state


def _network_frame(points: Tensor) -> Tensor:
    """Return points (H, W, 3) in the network's frame, (3, H, W)."""
    return flip_frame(points).permute(2, 0, 1).contiguous()
