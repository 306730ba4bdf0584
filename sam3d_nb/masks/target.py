"""What a picker knows: masks to choose among, and the objects that were picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.images import fits_hint
from sam3d_nb.masks.brush import Stroke
from sam3d_nb.masks.runs import count_pixels, encode_runs
from sam3d_nb.masks.segmenter import Box, Segment
from sam3d_nb.whole import is_whole

Point = tuple[float, float, bool]
"""x, y in pixels, and whether it lies on the object."""
MAX_NAME = 80
UNNAMED = Segment.name
"""What segmenters call an object that they know no word for."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask that can be chosen.

    index: what its mask is called by, as in an example. runs: of the full size. score: 0 to 1, 1
    for given ones.
    """

    index: int
    name: str
    runs: np.ndarray
    score: float = 1.0

    @cached_property
    def pixels(self) -> int:
        """Number of pixels inside."""
        return count_pixels(self.runs)


@dataclass(frozen=True, eq=False)
class Target:
    """One picked object: its mask as run lengths, and how it was made.

    candidate: the mask that it was taken from. points, box: what the segmenter was asked.
    strokes: painted on top, and painted again when the segmenter finds another mask. name: empty
    where nobody gave one.
    """

    runs: np.ndarray
    name: str = ""
    candidate: Candidate | None = None
    points: tuple[Point, ...] = ()
    box: Box | None = None
    strokes: tuple[Stroke, ...] = ()

    @cached_property
    def pixels(self) -> int:
        """Number of pixels inside."""
        return count_pixels(self.runs)

    def renamed(self, name: str) -> Target:
        """Return this object with another name, shortened where it is very long."""
        return replace(self, name=" ".join(str(name).split())[:MAX_NAME])


def empty_target(shape: tuple[int, int], name: str = "") -> Target:
    """Return an object without pixels on a photo of `shape` (H, W)."""
    return Target(np.array([shape[0] * shape[1]], dtype=np.uint32), name)


def read_candidates(
    masks: Mapping[int, Any] | Sequence[Any] | np.ndarray,
    shape: tuple[int, int],
    names: Mapping[int, str] | None = None,
    first: int = 0,
) -> list[Candidate]:
    """Return candidates of masks (H, W), or of segments with a mask, a score and a name.

    Their indices are those of the mapping, or count from `first`; those without a name are called
    `mask N` by it.
    Raises InputError where an index is no whole number, and where one is no mask or has another
    size than the photo's `shape` (H, W).
    """
    if isinstance(masks, np.ndarray) and masks.ndim == 2:
        masks = [masks]
    pairs = masks.items() if isinstance(masks, Mapping) else enumerate(masks, first)
    return [_candidate(index, item, shape, names or {}) for index, item in pairs]


def _candidate(
    index: int, item: Any, shape: tuple[int, int], names: Mapping[int, str]
) -> Candidate:
    if not is_whole(index):
        raise InputError(f"masks go by whole numbers, not by {index!r}; names are for `names`")
    name = getattr(item, "name", UNNAMED)
    name = names.get(index, f"mask {index}") if name in ("", UNNAMED) else name
    score = float(getattr(item, "score", 1.0))
    mask = as_mask(getattr(item, "mask", item), shape, f"mask {index}")
    return Candidate(index, str(name), encode_runs(mask), score)


def as_mask(values: Any, shape: tuple[int, int], label: str) -> np.ndarray:
    """Return `values` as bool (H, W): numbers are inside above half of their largest value."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        raise InputError(f"{label} is no mask (H, W) but {array.dtype} {array.shape}")
    if array.shape != shape:
        raise InputError(
            f"{label} is {array.shape[1]} x {array.shape[0]} pixels but the photo is "
            f"{shape[1]} x {shape[0]}; {fits_hint(array.shape, shape)}"
        )
    return array if array.dtype == np.bool_ else array > max(array.max(initial=0) / 2, 0)
