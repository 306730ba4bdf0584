"""SAM 3D Objects on one photo and mask: the stages in their order, as a stream of events."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.engine.memory import Pace, Placement, is_out_of_memory, out_of_memory
from sam3d_nb.engine.options import DECODED, Options
from sam3d_nb.engine.results import gaussians_of, mesh_of, no_mesh, pixel_intrinsics, pose_of
from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.events import (
    ConditioningEvent,
    DepthEvent,
    Event,
    GaussiansEvent,
    LayoutEvent,
    MeshEvent,
    OnEvent,
    SparseStructureEvent,
    StructuredLatentEvent,
)
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model import latent_flow, structure_flow
from sam3d_nb.model.accelerate import AcceleratedStructureFlow, accelerate
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.conditioning import condition_tokens
from sam3d_nb.model.coords import Voxels, find_voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import denormalize, sample_latent
from sam3d_nb.model.layout import decode_layout
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.pointmap import estimate_pointmap
from sam3d_nb.model.preprocess import (
    Moments,
    flip_frame,
    image_tensor,
    mask_tensor,
    prepare_inputs,
)
from sam3d_nb.model.sampler import Latents, Step
from sam3d_nb.model.structure_decoder import decode_structure
from sam3d_nb.model.structure_flow import StructureNetwork, sample_structure
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model, Reconstruction, Request, Run, finish, resolve_request
from sam3d_nb.splats import Gaussians
from sam3d_nb.weights.store import ModuleStore

NAME = "sam-3d-objects"
State = TypeVar("State")


class Depth(NamedTuple):
    """A point map, its camera, and where they come from."""

    points: Tensor  # (H, W, 3) float32, OpenCV, NaN where unknown; on the CPU
    intrinsics: np.ndarray  # K (3, 3) in pixels
    source: str  # given, or estimated


class Condition(NamedTuple):
    """What the flows are told about the object."""

    tokens: list[Tensor]  # of stage 1 and stage 2, each (1, L, C)
    moments: Moments  # of the point map


class Sam3dObjects(Model):
    """The network of SAM 3D Objects: mesh, gaussians and pose of one object of a photo.

    store: the networks, with `StandInStore` for tests and timings only. device: cuda, mps or cpu.
    memory: resident, staged or auto, see `Placement`. accelerate: replay the steps of stage 1 from
    CUDA graphs; None does so on CUDA where networks are resident. Raises WeightsError where weights
    are missing or damaged.

    The same seed on the same device gives the same result, bit for bit; the global random numbers
    are neither used nor changed. One object at a time: a model is not to be used from two threads.
    """

    name = NAME

    def __init__(
        self,
        store: ModuleStore,
        device: str = "cpu",
        memory: str = "auto",
        *,
        accelerate: bool | None = None,
    ) -> None:
        self.store = store
        self.config = store.config
        self.device = torch.device(device)
        self.memory = Placement(store, self.device, memory)
        resident_on_cuda = self.device.type == "cuda" and not self.memory.staged
        self.accelerate = resident_on_cuda if accelerate is None else accelerate
        self._accelerated: AcceleratedStructureFlow | None = None
        self.version = store.origin.version
        if store.origin.kind == "stand-in":
            self.name = f"{NAME} with stand-in weights"
        self.synchronize = _synchronizer(self.device)
        if not self.memory.staged:
            self.memory.begin()

    def __repr__(self) -> str:
        precision = str(self.store.dtype).removeprefix("torch.")
        return f"<{self.name} {self.version}: {self.device}, {self.memory.plan}, {precision}>"

    def reconstruct(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        on_event: OnEvent | None = None,
        steps: tuple[int, int] | None = None,
        few_step: bool = False,
        formats: tuple[str, ...] = DECODED,
        cache: SceneCache | None = None,
    ) -> Object3D:
        """Reconstruct one object from a photo and its mask.

        image: an `Example`, or (H, W, 3) uint8 RGB. mask: an index into the example's masks, or
        (H, W) bool. pointmap: (H, W, 3) in the camera frame (OpenCV), NaN where unknown, by
        default the example's, else estimated; intrinsics: K (3, 3) in pixels of a given point map.
        on_event: called with every `Event`; an exception that it raises stops the run within a
        step. steps, few_step, formats: see `Options`. cache: one for all objects of a photo, so
        that its point map and features are computed once.

        Raises InputError where the input does not fit together, ReconstructionError where nothing
        usable comes out, OutOfMemoryError.
        """
        events = self.stream(
            image,
            mask,
            pointmap=pointmap,
            intrinsics=intrinsics,
            seed=seed,
            steps=steps,
            few_step=few_step,
            formats=formats,
            cache=cache,
        )
        return finish(events, on_event)

    def stream(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        steps: tuple[int, int] | None = None,
        few_step: bool = False,
        formats: tuple[str, ...] = DECODED,
        cache: SceneCache | None = None,
    ) -> Generator[Event, None, Object3D]:
        """Return the events of `reconstruct` one by one; the last one holds the result.

        Closing the stream ends the work and frees its memory. Raises what `reconstruct` does, bad
        input at once.
        """
        options = Options(steps, few_step, formats)
        request = resolve_request(image, mask, pointmap, intrinsics, seed)
        return self.report(request, self.run(request, options, cache))

    def run(
        self, request: Request, options: Options | None = None, cache: SceneCache | None = None
    ) -> Run:
        """Yield events while working; return mesh, gaussians and pose."""
        stages = self._stages(request, options or Options(), cache or SceneCache())
        try:
            return (yield from stages)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        self.release()
        raise out_of_memory(self.device, self.memory.plan)

    def release(self) -> None:
        """Free the memory of the device; the next reconstruction takes it again."""
        if self._accelerated is not None:
            self._accelerated.close()
        self.memory.clear()

    # --- The stages, in the order in which data goes through them ---------------------------

    @torch.no_grad()
    def _stages(self, request: Request, options: Options, cache: SceneCache) -> Run:
        self.memory.begin()
        generator = torch.Generator(self.device).manual_seed(request.seed)
        image = image_tensor(torch.tensor(request.image))  # (3, H, W)
        depth = yield from self.estimate_depth(request, image, cache)
        condition = yield from self.embed(request, image, depth, cache)
        latents, voxels = yield from self.sample_voxels(condition.tokens[0], generator, options)
        pose = yield from self.place(latents, condition.moments, voxels)
        latent, grid = yield from self.sample_latent(
            voxels, condition.tokens[1], generator, options
        )
        gaussians = yield from self.decode_gaussians(latent, grid, options)
        mesh = yield from self.decode_mesh(latent, grid, options)
        settings = self.settings(options) | {"point_map": depth.source}
        return Reconstruction(mesh, pose, gaussians, depth.intrinsics, settings)

    def estimate_depth(
        self, request: Request, image: Tensor, cache: SceneCache
    ) -> Generator[Event, None, Depth]:
        """Take the point map of the request, or estimate it from `image` (3, H, W)."""
        yield DepthEvent()
        if request.pointmap is not None:
            depth = Depth(torch.tensor(request.pointmap), request.intrinsics, "given")
        else:
            depth = cache.recall((self.store, "point map"), image, self._estimate)
        known = depth.points.isfinite().all(-1)  # (H, W)
        if not bool((known & torch.tensor(request.mask)).any()):
            warnings.warn(
                "the point map has no point within the mask, so the object's size and place are "
                "only a guess",
                stacklevel=2,
            )
        yield DepthEvent(1.0, depth.points.numpy(), depth.intrinsics)
        return depth

    def _estimate(self, image: Tensor) -> Depth:
        with self.memory.hold("moge"):
            found = estimate_pointmap(self.store.get("moge", self.device), image)
        points = found.points.float().cpu()
        points[~points.isfinite().all(-1)] = torch.nan
        return Depth(points, pixel_intrinsics(found.intrinsics, *points.shape[:2]), "estimated")

    def embed(
        self, request: Request, image: Tensor, depth: Depth, cache: SceneCache
    ) -> Generator[Event, None, Condition]:
        """Turn photo (3, H, W), mask and point map into the condition tokens of both stages."""
        yield ConditioningEvent()
        mask = mask_tensor(torch.tensor(request.mask))
        points = flip_frame(depth.points).permute(2, 0, 1)  # (3, H, W), the network's frame
        inputs = prepare_inputs(image, mask, points, self.config.preprocess, cache)
        with self.memory.hold("condition_stage1", "condition_stage2"):
            first = self.store.get("condition_stage1", self.device)
            second = self.store.get("condition_stage2", self.device)
            tensors = inputs.to(self.device).tensors
            tokens = condition_tokens([first, second], tensors, cache)
        yield ConditioningEvent(1.0)
        return Condition(tokens, inputs.moments)

    def sample_voxels(
        self, tokens: Tensor, generator: torch.Generator, options: Options
    ) -> Generator[Event, None, tuple[Latents, Voxels]]:
        """Stage 1: sample shape and layout, and decode which voxels are occupied."""
        sampler, _ = options.samplers(self.config)
        steps = sampler.steps
        yield SparseStructureEvent(steps=steps)
        config = self.config.structure_flow
        noise = structure_flow.draw_noise(config, generator, device=self.device)
        with self._structure_flow() as flow:
            run = sample_structure(flow, tokens, noise, sampler)
            latents = yield from self._stepped(
                run, lambda done: SparseStructureEvent(done / (steps + 1), done, steps)
            )
        with self.memory.hold("structure_decoder"):
            decoder = self.store.get("structure_decoder", self.device)
            logits = decode_structure(decoder, latents[structure_flow.SHAPE])
        voxels = self.find_voxels(logits, generator)
        preview, side = voxels.coords[:, 1:].cpu().numpy(), logits.shape[-1]
        yield SparseStructureEvent(1.0, steps, steps, preview, side)
        return latents, voxels

    def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Voxels:
        """Return the occupied voxels of logits (1, 1, R, R, R)."""
        try:
            return find_voxels(logits, self.config.coords, generator)
        except InputError as error:
            raise ReconstructionError(str(error)) from error

    def place(
        self, latents: Latents, moments: Moments, voxels: Voxels
    ) -> Generator[Event, None, Pose]:
        """Decode the pose out of the layout latents of stage 1."""
        yield LayoutEvent()
        on_host = {name: latents[name].cpu() for name in structure_flow.LAYOUT_CHANNELS}
        pose = pose_of(decode_layout(on_host, moments, voxels.factor, self.config.layout))
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
        with self.memory.hold("latent_flow"):
            flow = self.store.get("latent_flow", self.device)
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
            gaussians = self.memory.with_room(lambda: gaussians_of(decoder(latent, grid)), name)
        yield GaussiansEvent(1.0)
        return gaussians

    def decode_mesh(
        self, latent: Tensor, grid: Grid, options: Options
    ) -> Generator[Event, None, Mesh]:
        """Decode the mesh, if it was asked for."""
        if "mesh" not in options.formats:
            return no_mesh()
        yield MeshEvent()
        with self.memory.hold("mesh_decoder"):
            decoder = self.store.get("mesh_decoder", self.device)
            mesh = self.memory.with_room(
                lambda: mesh_of(self.extract(decoder, latent, grid)), "mesh_decoder"
            )
        yield MeshEvent(1.0)
        return mesh

    def extract(self, decoder: MeshDecoder, latent: Tensor, grid: Grid) -> Surface:
        """Return the surface that `decoder` sees in latents (N, C)."""
        return decoder.decode(latent, grid)

    @contextmanager
    def _structure_flow(self) -> Iterator[StructureNetwork]:
        """Have the stage-1 flow; what it keeps for the next request stays if there is room."""
        with self.memory.hold("structure_flow"):
            flow = self.store.get("structure_flow", self.device)
            if not self.accelerate:
                yield flow
                return
            if self._accelerated is None:
                self._accelerated = accelerate(flow)
            finished = False
            try:
                yield self._accelerated
                finished = True
            finally:
                if not (finished and self.memory.roomy):
                    self._accelerated.close()

    def _stepped(
        self, run: Iterator[tuple[Step, State]], event: Callable[[int], Event]
    ) -> Generator[Event, None, State]:
        """Yield `event(steps done)` after every step; return the state after the last one."""
        pace = Pace(self.device)
        for step, state in run:  # noqa: B007
            pace()
            yield event(step.index + 1)
        return state

    def settings(self, options: Options) -> dict[str, str | int | float | bool]:
        """Return what decides the result besides photo, mask, point map and seed."""
        first, second = options.samplers(self.config)
        device = self.device.type
        if device == "cuda":
            device = f"cuda ({torch.cuda.get_device_name(self.device)})"
        return {
            "stage1_steps": first.steps,
            "stage2_steps": second.steps,
            "few_step": options.few_step,
            "formats": ", ".join(options.formats),
            "precision": str(self.store.dtype).removeprefix("torch."),
            "device": device,
            "weights": self.store.origin.kind,
            "weights_sha256": self.store.origin.sha256,
        }


def _synchronizer(device: torch.device) -> Callable[[], None] | None:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else None
