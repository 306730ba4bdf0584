"""Segmenters: points, a box, a scribble or words to masks with scores, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from sam3d_nb.devices import check_device_name, choose_device
from sam3d_nb.errors import InputError, WeightsError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; pixel (u, v) covers u to u + 1 and v to v + 1."""


def _no_points() -> np.ndarray:
    return np.zeros((0, 2))


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a person shows or says about one object; what is left out says nothing.

    points: (N, 2) x, y in pixels, where pixel (u, v) has its center at (u + 0.5, v + 0.5). labels:
    (N,) bool, true for points on the object and false for points beside it; by default all are on
    it. box: x0, y0, x1, y1 in pixels around the object. text: what it is, in words. scribble:
    (H, W) bool, pixels that a brush marked as the object.
    """

    points: Any = field(default_factory=_no_points)
    labels: Any = None
    box: Box | None = None
    text: str | None = None
    scribble: np.ndarray | None = None

    def checked(self, shape: tuple[int, int]) -> Prompt:
        """Return this prompt as float64, bool and inside a photo of `shape` (H, W).

        Points beside the photo are moved to its edge and the box is cut at it. Raises InputError
        for what has another shape, is not finite, or leaves no box.
        """
        points = _numbers(self.points, "points", (-1, 2))  # (N, 2)
        given = np.ones(len(points), bool) if self.labels is None else np.asarray(self.labels)
        if given.shape != (len(points),):
            raise InputError(f"{len(points)} points need as many labels but got {given.shape}")
        height, width = shape
        points = np.clip(points, 0, (np.nextafter(width, 0), np.nextafter(height, 0)))
        box = None if self.box is None else _checked_box(self.box, shape)
        scribble = self.scribble
        if scribble is not None:
            scribble = np.asarray(scribble, dtype=bool)
            if scribble.shape != shape:
                raise InputError(f"the scribble is {scribble.shape} but the photo is {shape}")
            scribble = scribble if scribble.any() else None
        text = (self.text or "").strip() or None
        return Prompt(points, given.astype(bool), box, text, scribble)

    def wordless(self, shape: tuple[int, int], segmenter: str) -> Prompt:
        """Return this prompt as `checked` does, for a segmenter of that name that knows no words.

        Raises InputError for words and for an empty prompt, too.
        """
        asked = self.checked(shape)
        if asked.text:
            raise InputError(
                f"the segmenter {segmenter!r} knows no words, but was asked for {asked.text!r}; "
                "give points, a box or a scribble, or use the segmenter 'sam3'"
            )
        if asked.is_empty:
            raise InputError("the prompt is empty; give a point on the object, a box or a scribble")
        return asked

    @property
    def is_empty(self) -> bool:
        """Whether a checked prompt says nothing about where or what the object is."""
        shown = self.box is not None or self.scribble is not None or bool(np.any(self.labels))
        return not shown and not self.text


@dataclass(frozen=True, eq=False)
class Segment:
    """One object that was found. mask: (H, W) bool. score: 0 to 1, how sure. name: in words."""

    mask: np.ndarray
    score: float
    name: str = "object"


class Segmenter(ABC):
    """Finds the pixels of objects in a photo.

    What depends on the photo alone is computed once and kept for the photo that was used last. A
    photo is known by its array: one that is changed in place has to be given as a copy.
    """

    name: str

    @abstractmethod
    def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
        """Return what the prompt means, the best first; an empty list where nothing is found.

        image: (H, W, 3) uint8 RGB. Every mask has the photo's size. Raises InputError for a photo
        or a prompt that is not what is needed, or which this segmenter does not understand.
        """

    def prepare(self, image: np.ndarray) -> None:
        """Do now what depends on the photo alone and the first prompt would wait for."""
        check_photo(image)

    @abstractmethod
    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        """Return the objects of the photo, those with the highest scores first.

        image: (H, W, 3) uint8 RGB. pointmap: (H, W, 3) in the camera frame, NaN where unknown, for
        segmenters that make use of depth. Raises InputError as `masks` does.
        """


def _embedded(device: str) -> Segmenter:
    from sam3d_nb.masks.embedded import Embedded

    return Embedded()  # on the CPU, whatever the device


def _sam2(name: str, device: str) -> Segmenter:
    from sam3d_nb.masks.sam2 import load_sam2

    return load_sam2(choose_device(device), name)


def _sam3(device: str) -> Segmenter:
    from sam3d_nb.masks.sam3 import load_sam3

    return load_sam3(choose_device(device))


def _always_ready() -> str:
    return ""


def _weights_missing(name: str) -> str:
    from sam3d_nb.masks.sam_weights import weights_missing

    return weights_missing(name)


@dataclass(frozen=True)
class SegmenterSpec:
    """One segmenter of the list.

    build: makes it on a device. missing: what to do before it can be made, as a sentence; empty
    where it is ready. words: whether it is asked by words instead of points and boxes.
    """

    description: str
    build: Callable[[str], Segmenter]
    missing: Callable[[], str] = _always_ready
    words: bool = False


def _sam2_spec(name: str, size: str) -> SegmenterSpec:
    text = f"SAM 2.1, {size} network, open weights; points, boxes, scribbles"
    return SegmenterSpec(text, partial(_sam2, name), partial(_weights_missing, name))


SEGMENTERS: dict[str, SegmenterSpec] = {
    "embedded": SegmenterSpec(
        "colors and edges, by points, boxes and scribbles; no weights, any machine", _embedded
    ),
    "sam3": SegmenterSpec(
        "SAM 3 by words, gated weights", _sam3, partial(_weights_missing, "sam3"), words=True
    ),
    "sam2": _sam2_spec("sam2", "small"),
    "sam2-tiny": _sam2_spec("sam2-tiny", "tiny"),
    "sam2-base": _sam2_spec("sam2-base", "base-plus"),
    "sam2-large": _sam2_spec("sam2-large", "large"),
}
"""All segmenters by name."""


def load_segmenter(name: str = "embedded", device: str = "auto") -> Segmenter:
    """Return the segmenter called `name`, one of `SEGMENTERS`, with its network on `device`.

    device: auto, cuda, mps or cpu. Raises InputError for an unknown name or device, WeightsError
    where the segmenter's weights are missing.
    """
    check_device_name(device)
    if device not in ("auto", "cpu"):
        choose_device(device)
    return _spec(name).build(device)


def check_segmenter(name: str) -> None:
    """Raise what `load_segmenter` does for a name or for weights, without loading anything."""
    if missing := _spec(name).missing():
        raise WeightsError(missing)


def check_segmenter_name(name: str) -> None:
    """Raise InputError unless there is a segmenter called `name`, whether it is ready or not."""
    _spec(name)


def _spec(name: str) -> SegmenterSpec:
    if name not in SEGMENTERS:
        raise InputError(f"there is no segmenter {name!r}; choose from {', '.join(SEGMENTERS)}")
    return SEGMENTERS[name]


def check_photo(image: np.ndarray) -> None:
    """Raise InputError unless `image` is (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        shape = getattr(image, "shape", type(image).__name__)
        raise InputError(f"a photo is a uint8 array (H, W, 3) but got {shape}")
    if image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"a photo is uint8 (H, W, 3) but got {image.dtype} {image.shape}")


def _numbers(values: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
        array = array.reshape(shape) if array.size == 0 else array
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are numbers {shape} but got {values!r}") from error
    if array.ndim != len(shape) or array.shape[-1] != shape[-1] or not np.isfinite(array).all():
        raise InputError(f"{what} are finite numbers {shape} but got {array.tolist()}")
    return array


def _checked_box(box: Box, shape: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = _numbers(box, "the sides of a box", (4,)).tolist()
    left, right = max(0.0, min(x0, x1)), min(float(shape[1]), max(x0, x1))
    top, bottom = max(0.0, min(y0, y1)), min(float(shape[0]), max(y0, y1))
    if right - left < 1 or bottom - top < 1:
        raise InputError(
            f"the box {[x0, y0, x1, y1]} covers no pixel of a photo of {shape[1]} x {shape[0]}"
        )
    return left, top, right, bottom
