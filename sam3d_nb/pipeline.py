"""The engine: image and mask to an `Object3D`, reported as a stream of stage events."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sam3d_nb import __version__
from sam3d_nb.devices import check_device_name
from sam3d_nb.errors import InputError
from sam3d_nb.events import DoneEvent, Event, OnEvent, StageTimer
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose, default_intrinsics, intrinsics_from_pointmap
from sam3d_nb.images import check_mask
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.splats import Gaussians

if TYPE_CHECKING:
    from sam3d_nb.scene.reconstruct import Masks
    from sam3d_nb.scene.scene import Scene

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Request:
    """One object to reconstruct, checked.

    image: (H, W, 3) uint8 RGB. mask: (H, W) bool, not empty. pointmap: (H, W, 3) float32 in the
    camera frame, NaN where unknown, or None. intrinsics: K (3, 3) in pixels, always given here:
    the caller's, else fitted to the point map, else a 50 degree field of view. mask_index: of the
    example that the mask comes from, if it does.
    """

    image: np.ndarray
    mask: np.ndarray
    pointmap: np.ndarray | None
    intrinsics: np.ndarray
    seed: int
    name: str = "object"
    mask_index: int | None = None

    def image_sha256(self) -> str:
        """Hash of height, width and RGB bytes."""
        return _sha256(self.image)

    def mask_sha256(self) -> str:
        """Hash of height, width and one byte a pixel."""
        return _sha256(self.mask)


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
    def run(self, request: Request) -> Run:
        """Yield events while working; return the mesh (object frame) and its pose."""

    def reconstruct(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
        on_event: OnEvent | None = None,
    ) -> Object3D:
        """Reconstruct one object from a photo and its mask.

        image: an `Example`, or (H, W, 3) uint8 RGB. mask: an index into the example's masks, or
        (H, W) bool. pointmap: (H, W, 3) in the camera frame (OpenCV), NaN where unknown;
        intrinsics: K (3, 3) in pixels; both default to the example's. on_event: called with every
        `Event`; an exception that it raises stops the run.

        Raises InputError where image, mask and point map do not fit together or the mask is empty.
        """
        events = self.stream(image, mask, pointmap=pointmap, intrinsics=intrinsics, seed=seed)
        return finish(events, on_event)

    def stream(
        self,
        image: np.ndarray | Example,
        mask: np.ndarray | int,
        *,
        pointmap: np.ndarray | None = None,
        intrinsics: np.ndarray | None = None,
        seed: int = 0,
    ) -> Generator[Event, None, Object3D]:
        """Return the events of `reconstruct` one by one; the last one holds the result.

        The work is done while the caller asks for the next event. `close()` ends it and frees its
        memory. Raises what `reconstruct` does, bad input at once.
        """
        request = resolve_request(image, mask, pointmap, intrinsics, seed)
        return self.report(request, self.run(request))

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
        scenes hold those of their objects. save_dir: a folder that keeps each object as soon as it
        is done; a run that was stopped goes on from there with the same arguments, unless `resume`
        is false. options: what else `reconstruct` of this model takes.

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
            if on_event is not None:
                on_event(event)


def resolve_request(
    image: np.ndarray | Example,
    mask: np.ndarray | int,
    pointmap: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    seed: int = 0,
) -> Request:
    """Return the checked request of a photo or an example, and a mask or the index of one.

    Point map and intrinsics default to the example's. Raises InputError.
    """
    name, index = "object", None
    if isinstance(mask, bool):
        raise InputError(f"a mask is an index or a bool array (H, W) but got {mask}")
    if isinstance(image, Example):
        pointmap = image.pointmap if pointmap is None else pointmap
        intrinsics = image.intrinsics if intrinsics is None else intrinsics
        if isinstance(mask, int | np.integer):
            index = int(mask)
            mask = image.mask(index)
            name = image.names[index]
        image = image.image
    if isinstance(mask, int | np.integer):
        raise InputError(f"a mask index needs an example, but the image is an array: {mask!r}")
    request = make_request(image, mask, pointmap, intrinsics, seed)
    return replace(request, name=name, mask_index=index)


def make_request(
    image: np.ndarray,
    mask: np.ndarray,
    pointmap: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    seed: int = 0,
) -> Request:
    """Check what belongs together and fill in the intrinsics; raises InputError.

    A mask of numbers is true above half of its largest value. Points that are not finite or not
    in front of the camera count as unknown.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is a uint8 array (H, W, 3) but got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 (H, W, 3) but got {image.dtype} {image.shape}")
    inside = _boolean(mask)
    check_mask(inside, (image.shape[0], image.shape[1]))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"a seed is a whole number from 0 to 2^63 - 1 but got {seed!r}")
    points = None if pointmap is None else _known_points(pointmap, image.shape)
    if intrinsics is not None:
        camera = _checked_intrinsics(intrinsics)
    else:
        fitted = None if points is None else intrinsics_from_pointmap(points)
        camera = default_intrinsics(*image.shape[:2]) if fitted is None else fitted
    return Request(image, inside, points, camera, int(seed))


def _boolean(mask: np.ndarray) -> np.ndarray:
    """Return a mask of any number type as bool."""
    if not isinstance(mask, np.ndarray):
        raise InputError(f"a mask is a bool array (H, W) but got {type(mask).__name__}")
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iuf" or not np.isfinite(mask).all():
        raise InputError(f"a mask is bool (H, W) or finite numbers but got {mask.dtype}")
    return mask > max(mask.max(initial=0) / 2, 0)


def _known_points(pointmap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the point map (H, W, 3) float32 with NaN at every pixel whose point is unknown."""
    if np.shape(pointmap) != shape:
        raise InputError(f"the point map is {np.shape(pointmap)} but the image is {shape}")
    points = np.array(pointmap, dtype=np.float32)
    finite = np.isfinite(points).all(-1)
    known = finite & (points[..., 2] > 0)
    if not known.any():
        state = "lies behind the camera" if finite.any() else "has no finite point"
        raise InputError(
            f"the point map {state}; it needs x right, y down and z forward (OpenCV), or leave it "
            "out"
        )
    points[~known] = np.nan
    return points


def _checked_intrinsics(intrinsics: np.ndarray) -> np.ndarray:
    """Return K (3, 3) float64 if it is one of a pinhole camera in pixels."""
    if np.shape(intrinsics) != (3, 3):
        raise InputError(f"intrinsics are (3, 3) but got {np.shape(intrinsics)}")
    camera = np.array(intrinsics, dtype=np.float64)
    if not (np.isfinite(camera).all() and min(camera[0, 0], camera[1, 1]) > 0) or not np.allclose(
        camera[2], (0, 0, 1)
    ):
        raise InputError(
            "intrinsics are [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels with positive focal "
            f"lengths but got {camera.tolist()}"
        )
    return camera


MEMORY_PLANS = ("auto", "resident", "staged")


def _silhouette(device: str, memory: str) -> Model:
    from sam3d_nb.silhouette import Silhouette

    return Silhouette()


def _sam3d(device: str, memory: str) -> Model:
    from sam3d_nb.engine.load import load_sam3d

    return load_sam3d(device, memory)


def _always_ready() -> str:
    return ""


def _sam3d_missing() -> str:
    from sam3d_nb.weights.status import model_status

    return model_status("sam-3d-objects").advice


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the zoo.

    build: makes the model on a device under a memory plan. missing: what to do before it can be
    made, as a sentence; empty where it is ready.
    """

    description: str
    build: Callable[[str, str], Model]
    missing: Callable[[], str] = _always_ready


MODELS: dict[str, ModelSpec] = {
    "sam-3d-objects": ModelSpec(
        "mesh, gaussians and pose by the official network and its gated weights",
        _sam3d,
        _sam3d_missing,
    ),
    "silhouette": ModelSpec("inflated outline, no weights needed, any machine", _silhouette),
}
"""All models, the best first."""


def load_model(name: str | None = None, device: str = "auto", memory: str = "auto") -> Model:
    """Return the model called `name`, or the best one that is ready.

    device: auto, cuda, mps or cpu. memory: how a model with large networks uses the device's
    memory: resident keeps all networks there, staged brings each one in for its stage only, auto
    takes resident where 16 GB are free for it. Loading a model again is free.

    Raises InputError for an unknown name, device or plan, WeightsError where the model called
    `name` has no weights.
    """
    check_device_name(device)
    if memory not in MEMORY_PLANS:
        raise InputError(
            f"there is no memory plan {memory!r}; choose from {', '.join(MEMORY_PLANS)}"
        )
    if name is None:
        name = next(model for model, spec in MODELS.items() if not spec.missing())
    if name not in MODELS:
        raise InputError(f"there is no model {name!r}; choose from {', '.join(sorted(MODELS))}")
    return MODELS[name].build(device, memory)
