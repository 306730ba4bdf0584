"""The engine: image and mask to an `Object3D`, reported as a stream of stage events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sam3d_nb import __version__
from sam3d_nb.errors import InputError
from sam3d_nb.events import DoneEvent, Event, OnEvent, StageTimer, tell
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.request import Request, resolve_request
from sam3d_nb.splats import Gaussians

if TYPE_CHECKING:
    from sam3d_nb.scene.reconstruct import Masks
    from sam3d_nb.scene.scene import Scene

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a model made of a request, in the terms of `Object3D`.

    intrinsics: of the camera that the pose belongs to, where it is not the request's.
    settings: what decided the result besides the request, for the provenance.
    """

    mesh: Mesh
    pose: Pose
    gaussians: Gaussians | None = None
    intrinsics: np.ndarray | None = None
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)


Run = Generator[Event, None, Reconstruction]
"""Yields the events of a request and returns what was made; closing it ends the work."""


class Model(ABC):
    """A reconstructor: subclasses turn a checked request into a mesh and a pose.

    name, version: for the provenance. synchronize: waits until the model's device is idle; None
    where there is nothing to wait for.
    """

    name: str
    version: str
    synchronize: Callable[[], None] | None = None

    @abstractmethod
    def run(self, request: Request, **options: Any) -> Run:
        """Yield events while working; return the mesh (object frame) and its pose.

        options: what `deciding` and `shared` name.
        """

    def reconstruct(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int | None = None,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        on_event: OnEvent | None = None,
    ) -> Object3D:
        """Reconstruct one object from a photo and its mask.

        image: an `Example`, or (H, W, 3) uint8 RGB. mask: an index into the example's masks, or
        (H, W) bool; by default the example's only one. pointmap: (H, W, 3) in the camera frame
        (OpenCV), NaN where unknown; intrinsics: K (3, 3) in pixels; both default to the example's.
        on_event: called with every `Event`; an exception that it raises stops the run.

        Raises InputError where image, mask and point map do not fit together or the mask is empty.
        """
        events = self.stream(image, mask, pointmap=pointmap, intrinsics=intrinsics, seed=seed)
        return finish(events, on_event)

    def stream(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int | None = None,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Generator[Event, None, Object3D]:
        """Return the events of `reconstruct` one by one; the last one holds the result.

        options: what else `reconstruct` of this model takes. The work is done while the caller asks
        for the next event. `close()` ends it and frees its memory. Raises what `reconstruct` does,
        bad input at once.
        """
        self.deciding(**options)  # says which of them are wrong
        request = resolve_request(image, mask, pointmap, intrinsics, seed)
        return self.report(request, self.run(request, **options))

    def reconstruct_scene(
        self,
        image: np.ndarray | Example,
        masks: Masks | None = None,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        realign: str = "none",
        on_event: OnEvent | None = None,
        save_dir: str | Path | None = None,
        resume: bool = True,
        **options: Any,
    ) -> Scene:
        """Reconstruct objects of one photo, one after another, into a scene.

        masks: indices into the example's masks, bool arrays (H, W), or arrays by index; by default
        all masks of the example. image, pointmap, intrinsics, seed: as in `reconstruct`, and so is
        every object. realign: see `Scene.realigned`. on_event: called with every `Event`: those of
        scenes hold those of their objects. save_dir: a folder that keeps each object, written while
        the next one is made; a run that was stopped goes on from there with the same arguments,
        unless `resume` is false. All objects that were done are there when this returns or raises;
        of a process that was killed the latest may be missing. options: what else `reconstruct` of
        this model takes.

        An object that fails is in the scene's `failures` with its reason, and the rest go on.
        Raises InputError for what is wrong with the call, OutputError where objects cannot be kept,
        and where no object could be made, what its first one raised.
        """
        from sam3d_nb.scene.reconstruct import stream_scene

        events = stream_scene(
            self,
            image,
            masks,
            pointmap=pointmap,
            intrinsics=intrinsics,
            seed=seed,
            realign=realign,
            save_dir=save_dir,
            resume=resume,
            **options,
        )
        return finish(events, on_event)

    def shared(self) -> dict[str, Any]:
        """Return what `stream` takes for all objects of one photo, such as a cache."""
        return {}

    def deciding(self, **options: Any) -> dict[str, str | int | float | bool]:
        """Return what decides a result besides the request; raises InputError for bad options."""
        if options:
            raise InputError(f"{self.name} takes no options, but got {', '.join(sorted(options))}")
        return {}

    def report(self, request: Request, run: Run) -> Generator[Event, None, Object3D]:
        """Pass the events of `run` on, time them, and end with a `DoneEvent`."""
        timer = StageTimer(self.synchronize)
        with closing(run):
            while True:
                try:
                    event = next(run)
                except StopIteration as stop:
                    made: Reconstruction = stop.value
                    break
                timer(event)
                yield event
        provenance = Provenance(
            model=self.name,
            model_version=self.version,
            package_version=__version__,
            image_sha256=request.image_sha256(),
            mask_sha256=request.mask_sha256(),
            mask_index=request.mask_index,
            seed=request.seed,
            timings=dict(timer.seconds),
            settings=made.settings,
        )
        intrinsics = request.intrinsics if made.intrinsics is None else made.intrinsics
        result = Object3D(
            made.mesh, made.pose, provenance, request.name, made.gaussians, intrinsics
        )
        yield DoneEvent(fraction=1.0, result=result)
        return result


def finish(events: Generator[Event, None, Result], on_event: OnEvent | None = None) -> Result:
    """Drive a stream of events to its end and return what it returns.

    An exception that `on_event` raises closes the stream before it goes on to the caller.
    """
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                return stop.value
            tell(on_event, event)
