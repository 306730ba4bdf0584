"""Photos and models for the tests of batches; models are made by functions that can be sent."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam3d_nb.errors import OutOfMemoryError, WeightsError
from sam3d_nb.events import MeshEvent
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.request import Request
from sam3d_nb.silhouette import Silhouette


def write_photo(folder: Path, masks: int = 1, shade: int = 90) -> Path:
    """A photo whose object m lies in columns 10 m to 10 m + 8."""
    folder.mkdir(parents=True)
    image = np.full((40, 60, 3), shade, np.uint8)
    image[::3, ::2] = 200
    Image.fromarray(image).save(folder / "image.png")
    for index in range(masks):
        write_mask(folder / f"{index}.png", 10 * index)
    return folder


def write_mask(path: Path, left: int, width: int = 8) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:35, left : left + width] = 255
    Image.fromarray(mask).save(path)


class Toy(Model):
    """A tetrahedron that depends on seed, photo and mask; `misbehave` comes first."""

    name = "toy"

    def __init__(self, folder: Path | None = None, version: str = "1") -> None:
        self.folder = folder
        self.version = version
        self.released = 0

    def deciding(self, **options: Any) -> dict[str, Any]:
        return {"size": 1.0} | options

    def misbehave(self, request: Request) -> None:
        """For subclasses."""

    def release(self) -> None:
        self.released += 1

    def run(self, request: Request, *, size: float = 1.0, **options: Any) -> Run:
        yield MeshEvent(fraction=0.0)
        self.misbehave(request)
        yield MeshEvent(fraction=1.0)
        corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) / 2
        scale = request.image.mean() * request.mask.sum() + request.seed
        vertices = corners * np.float32(size / (1 + scale % 7))
        faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        return Reconstruction(Mesh(vertices, faces), Pose((1, 0, 0, 0), (0, 0, 2), (1, 1, 1)))

    def first_time(self, request: Request) -> bool:
        """Whether no model of any process has seen this mask before."""
        assert self.folder is not None
        try:
            (self.folder / f"seen {request.mask_index}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Slow(Silhouette):
    """Takes its time, so that a test can come in between."""

    def run(self, request: Request, **options: Any) -> Run:
        time.sleep(0.3)
        return (yield from super().run(request, **options))


class Hungry(Toy):
    """Runs out of memory the first time that it sees a mask."""

    def misbehave(self, request: Request) -> None:
        if self.first_time(request):
            raise OutOfMemoryError("the memory of the toy ran out")


class Deadly(Hungry):
    """Mask 1 ends the process, mask 2 runs out of memory once."""

    def misbehave(self, request: Request) -> None:
        if request.mask_index == 1:
            os._exit(1)
        if request.mask_index == 2:
            super().misbehave(request)


def raise_weights_error() -> Model:
    raise WeightsError("the toy has no weights")


def loads(kind: type[Toy], folder: Path | None = None) -> Any:
    return partial(kind, folder)
