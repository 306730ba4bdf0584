"""The engine: image and mask to an `Object3D`, reported as a stream of stage events."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sam3d_nb import __version__
from sam3d_nb.errors import InputError
from sam3d_nb.events import DoneEvent, Event, OnEvent, StageTimer
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose, default_intrinsics, intrinsics_from_pointmap
from sam3d_nb.images import check_mask
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance


@dataclass(frozen=True, eq=False)
class Request:
    """One object to reconstruct, checked.

    image: (H, W, 3) uint8 RGB. mask: (H, W) bool, not empty. pointmap: (H, W, 3) float32 in the
    camera frame, NaN where unknown, or None. intrinsics: K (3, 3) in pixels, always given here:
    the caller's, else fitted to the point map, else a 50 degree field of view.
    """

    image: np.ndarray
    mask: np.ndarray
    pointmap: np.ndarray | None
    intrinsics: np.ndarray
    seed: int

    def image_sha256(self) -> str:
        """Hash of height, width and RGB bytes."""
        digest = hashlib.sha256(repr(self.image.shape).encode())
        digest.update(np.ascontiguousarray(self.image).tobytes())
        return digest.hexdigest()


class Model(ABC):
    """A reconstructor: subclasses turn a checked request into a mesh and a pose."""

    name: ClassVar[str]
    version: ClassVar[str]

    @abstractmethod
    def run(self, request: Request, emit: OnEvent) -> tuple[Mesh, Pose]:
        """Return the mesh (object frame) and its pose (into the camera frame)."""

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
        name, index = "object", None
        if isinstance(image, Example):
            pointmap = image.pointmap if pointmap is None else pointmap
            intrinsics = image.intrinsics if intrinsics is None else intrinsics
            if isinstance(mask, int | np.integer):
                index = int(mask)
                mask = image.mask(index)
                name = image.names[index]
            image = image.image
        if not isinstance(mask, np.ndarray):
            raise InputError(f"a mask index needs an example, but the image is an array: {mask!r}")
        request = make_request(image, mask, pointmap, intrinsics, seed)

        timer = StageTimer()

        def emit(event: Event) -> None:
            timer(event)
            if on_event is not None:
                on_event(event)

        mesh, pose = self.run(request, emit)
        provenance = Provenance(
            model=self.name,
            model_version=self.version,
            package_version=__version__,
            image_sha256=request.image_sha256(),
            mask_index=index,
            seed=seed,
            timings=dict(timer.seconds),
        )
        result = Object3D(mesh, pose, provenance, name=name)
        emit(DoneEvent(fraction=1.0, result=result))
        return result


def make_request(
    image: np.ndarray,
    mask: np.ndarray,
    pointmap: np.ndarray | None,
    intrinsics: np.ndarray | None,
    seed: int,
) -> Request:
    """Check what belongs together and fill in the intrinsics; raises InputError."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 (H, W, 3) but got {image.dtype} {image.shape}")
    mask = mask.astype(bool)
    check_mask(mask, (image.shape[0], image.shape[1]))
    if pointmap is not None and pointmap.shape != image.shape:
        raise InputError(f"the point map is {pointmap.shape} but the image is {image.shape}")
    if intrinsics is not None and np.shape(intrinsics) != (3, 3):
        raise InputError(f"intrinsics are (3, 3) but got {np.shape(intrinsics)}")
    if pointmap is not None:
        pointmap = np.array(pointmap, dtype=np.float32)
        pointmap[~np.isfinite(pointmap).all(-1)] = np.nan
    if intrinsics is None and pointmap is not None:
        intrinsics = intrinsics_from_pointmap(pointmap)
    if intrinsics is None:
        intrinsics = default_intrinsics(*image.shape[:2])
    return Request(image, mask, pointmap, np.asarray(intrinsics, dtype=np.float64), seed)


def _silhouette(device: str) -> Model:
    from sam3d_nb.silhouette import Silhouette

    return Silhouette()


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the zoo. build: makes the model on a device."""

    description: str
    build: Callable[[str], Model]


MODELS: dict[str, ModelSpec] = {
    "silhouette": ModelSpec("inflated outline, no weights needed, any machine", _silhouette),
}
DEFAULT_MODEL = "silhouette"


def load_model(name: str | None = None, device: str = "auto") -> Model:
    """Return the model called `name`, or the best one that is ready.

    device: auto, cuda, mps or cpu. Raises InputError for an unknown name.
    """
    chosen = name or DEFAULT_MODEL
    if chosen not in MODELS:
        raise InputError(f"there is no model {chosen!r}; choose from {', '.join(sorted(MODELS))}")
    return MODELS[chosen].build(device)
