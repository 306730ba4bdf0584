"""SAM 3D Objects as a model: a photo and a mask to an object, as a stream of events."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.devices import synchronizer
from sam3d_nb.engine.memory import is_out_of_memory, out_of_memory
from sam3d_nb.engine.options import DECODED, Options
from sam3d_nb.engine.stages import Depth, Stages
from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, LayoutEvent, OnEvent
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.preprocess import Moments, image_tensor
from sam3d_nb.model.sampler import Latents
from sam3d_nb.model.surface import Sculpt
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model, Reconstruction, Run, finish
from sam3d_nb.request import Request
from sam3d_nb.splats import Gaussians
from sam3d_nb.weights.store import ModuleStore

NAME = "sam-3d-objects"

Decoded = tuple[Mesh, Gaussians | None]


class Sam3dObjects(Stages, Model):
    """The network of SAM 3D Objects: mesh, gaussians and pose of one object of a photo.

    store: the networks, with `StandInStore` for tests and timings only. device: cuda, mps or cpu.
    memory: resident, staged or auto, see `Placement`. accelerate: see `Stages`. Raises WeightsError
    where weights are missing or damaged, OutOfMemoryError where resident ones do not fit.

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
        super().__init__(store, torch.device(device), memory, accelerate=accelerate)
        self.version = store.origin.version
        if store.origin.kind == "stand-in":
            self.name = f"{NAME} with stand-in weights"
        self.synchronize = synchronizer(self.device)
        if not self.memory.staged:
            self.memory.begin()

    def __repr__(self) -> str:
        precision = str(self.store.dtype).removeprefix("torch.")
        return f"<{self.name} {self.version}: {self.device}, {self.memory.plan}, {precision}>"

    def reconstruct(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int | None = None,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        on_event: OnEvent | None = None,
        steps: tuple[int, int] | None = None,
        few_step: bool = False,
        formats: tuple[str, ...] = DECODED,
        refine_layout: bool = False,
        cache: SceneCache | None = None,
    ) -> Object3D:
        """Reconstruct one object from a photo and its mask.

        image: an `Example`, or (H, W, 3) uint8 RGB. mask: an index into the example's masks, or
        (H, W) bool; by default the example's only one. pointmap: (H, W, 3) in the camera frame
        (OpenCV), NaN where unknown, by default the example's, else estimated; intrinsics: K (3, 3)
        in pixels of a given point map.
        on_event: called with every `Event`; an exception that it raises stops the run within a
        step. steps, few_step, formats, refine_layout: see `Options`. cache: one for all objects of
        a photo, so that its point map and features are computed once.

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
            refine_layout=refine_layout,
            cache=cache,
        )
        return finish(events, on_event)

    def run(self, request: Request, *, cache: SceneCache | None = None, **options: Any) -> Run:
        """Yield events while working; return mesh, gaussians and pose. options: see `Options`."""
        return self._told(self._stages(request, self.chosen(**options), cache or SceneCache()))

    def _told(self, stages: Run) -> Run:
        """Pass on what `stages` does; where memory runs out, free it and say so."""
        try:
            return (yield from stages)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        self.release()
        raise out_of_memory(self.device, self.memory.plan)

    @torch.no_grad()
    def _stages(self, request: Request, options: Options, cache: SceneCache) -> Run:
        self.memory.begin()
        generator = torch.Generator(self.device).manual_seed(request.seed)
        image = image_tensor(torch.tensor(request.image))  # (3, H, W)
        depth = yield from self.estimate_depth(request, image, cache)
        condition = yield from self.embed(request, image, depth, cache)
        latents, logits = yield from self.sample_structure(condition.tokens[0], generator, options)
        voxels, pose = yield from self.settle(
            request, depth, condition.moments, latents, logits, generator, options
        )
        latent, grid = yield from self.sample_latent(
            voxels, condition.tokens[1], generator, options
        )
        gaussians = yield from self.decode_gaussians(latent, grid, options)
        sculpt = self.sculpting(request, depth, pose)
        mesh = yield from self.decode_mesh(latent, grid, options, sculpt)
        mesh, gaussians = self.framed(mesh, gaussians, pose)
        settings = self.settings(options) | {"point_map": depth.source}
        if options.refine_layout:
            from sam3d_nb.refine import about, refine_pose  # slow to import

            yield LayoutEvent()
            points = depth.points.numpy()
            pose, report = refine_pose(mesh, pose, depth.intrinsics, request.mask, points)
            settings |= about(report)
            yield LayoutEvent(1.0, pose)
        mesh, gaussians = yield from self.colored(mesh, gaussians, pose, request, depth)
        return Reconstruction(mesh, pose, gaussians, depth.intrinsics, settings)

    # What a model of the same stages may do otherwise

    def chosen(self, **options: Any) -> Options:
        """Return the options of a reconstruction; raises InputError for what cannot be had."""
        return Options(**options)

    def settle(
        self,
        request: Request,
        depth: Depth,
        moments: Moments,
        latents: Latents,
        logits: Tensor,  # (1, 1, R, R, R)
        generator: torch.Generator,
        options: Options,
    ) -> Generator[Event, None, tuple[Voxels, Pose]]:
        """Read voxels and pose out of what stage 1 sampled."""
        voxels = yield from self.occupied(logits, generator, options)
        return voxels, (yield from self.place(latents, moments, voxels.factor))

    def sculpting(self, request: Request, depth: Depth, pose: Pose) -> Sculpt | None:
        """Return what is to become of the decoded distances; None: they stay as they are."""
        return None

    def framed(self, mesh: Mesh, gaussians: Gaussians | None, pose: Pose) -> Decoded:
        """Bring what was decoded into the object frame, where it is already."""
        return mesh, gaussians

    def colored(
        self,
        mesh: Mesh,
        gaussians: Gaussians | None,
        pose: Pose,
        request: Request,
        depth: Depth,
    ) -> Generator[Event, None, Decoded]:
        """Give mesh and gaussians their final colors, which they have already."""
        yield from ()
        return mesh, gaussians

    def shared(self) -> dict[str, Any]:
        """Return a cache for the objects of one photo: its point map and features once."""
        return {"cache": SceneCache()}

    def deciding(
        self, *, cache: SceneCache | None = None, **options: Any
    ) -> dict[str, str | int | float | bool]:
        """Return what decides a result besides the request, which a `cache` does not.

        Raises InputError, see `Options`.
        """
        known = [field.name for field in fields(Options)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InputError(
                f"{self.name} has no option {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return self.settings(self.chosen(**options))

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
            "refine_layout": options.refine_layout,
            "precision": str(self.store.dtype).removeprefix("torch."),
            "device": device,
            "accelerated": self.accelerate,
            "weights": self.store.origin.kind,
            "weights_sha256": self.store.origin.sha256,
        }
