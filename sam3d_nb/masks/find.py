"""All objects of a photo without anybody pointing at them: found, cleaned, ready to be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.examples import Example
from sam3d_nb.masks.disjoint import scene_of
from sam3d_nb.masks.filters import Dropped, clean, count_nested
from sam3d_nb.masks.save import save_example
from sam3d_nb.masks.segmenter import SEGMENTERS, Prompt, Segment, Segmenter, load_segmenter

PROMPT = "interior objects"
THRESHOLD = MASK_THRESHOLD = 0.4
PLAIN_NAMES = ("object", PROMPT)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found on a photo. kept, overlapping, dropped: the best first. segmenter: its name.

    overlapping: of proposals those that are parts of what is kept, or groups of it.
    """

    segmenter: str
    kept: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]
    note: str = ""
    overlapping: tuple[Segment, ...] = ()

    def report(self) -> list[str]:
        """Return sentences: how many were found, and what was dropped and why."""
        count = len(self.kept) + len(self.dropped) + len(self.overlapping)
        objects = "1 object" if len(self.kept) == 1 else f"{len(self.kept)} objects"
        lines = [f"{self.segmenter} found {count} masks, {objects} kept"]
        lines += [f"dropped: {one.reason} (score {one.segment.score:.2f})" for one in self.dropped]
        return [*lines, self.note] if self.note else lines


def best_segmenter() -> str:
    """Return the name of the segmenter for whole scenes: sam3 if its weights are ready."""
    return "embedded" if SEGMENTERS["sam3"].missing() else "sam3"


def pick_segmenter(segmenter: str | Segmenter | None, device: str = "auto") -> Segmenter:
    """Return the segmenter called so, or itself, or the best one; raises as `load_segmenter`."""
    if isinstance(segmenter, Segmenter):
        return segmenter
    return load_segmenter(segmenter or best_segmenter(), device)


def knows_words(segmenter: Segmenter) -> bool:
    """Say whether the segmenter is asked by words."""
    return segmenter.name in SEGMENTERS and SEGMENTERS[segmenter.name].words


def usual_threshold(segmenter: Segmenter) -> float:
    """Return the score from which on this segmenter's masks are taken, unless somebody says."""
    return THRESHOLD if knows_words(segmenter) else 0.0


def check_thresholds(threshold: float | None, mask_threshold: float | None) -> None:
    """Raise InputError unless both are numbers from 0 to 1, or None."""
    for name, value in (("threshold", threshold), ("mask_threshold", mask_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"{name} is a number from 0 to 1 but got {value}")


def ask(
    segmenter: Any, image: np.ndarray, text: str, threshold: float, mask_threshold: float
) -> list[Segment]:
    """Return what a segmenter that knows words finds; its own thresholds stay as they are."""
    prompt = Prompt(text=text)
    found: list[Segment] = segmenter.masks(
        image, prompt, threshold=threshold, mask_threshold=mask_threshold
    )
    return found


def find_objects(
    example: Example,
    segmenter: str | Segmenter | None = None,
    *,
    prompt: str | None = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    device: str = "auto",
) -> Found:
    """Return the objects of a photo, without near-duplicates, slivers and background.

    Of what segmenters propose that know no words, objects, parts and groups, a set without overlaps
    is kept, see `scene_of`.

    segmenter: a name of `SEGMENTERS` or one that is loaded; by default sam3 if its weights are
    ready, else embedded. prompt: what to find, for segmenters that know words; by default
    'interior objects'. threshold: of the scores; by default 0.4 for segmenters that know words,
    else 0. mask_threshold: of a pixel's probability, for the former; by default 0.4. Both are
    between 0 and 1. What a segmenter makes no use of is told in the report.

    Raises InputError, and WeightsError where the segmenter's weights are missing.
    """
    check_thresholds(threshold, mask_threshold)
    finder = pick_segmenter(segmenter, device)
    threshold = usual_threshold(finder) if threshold is None else threshold
    notes = []
    if knows_words(finder):
        pixel = MASK_THRESHOLD if mask_threshold is None else mask_threshold
        segments = ask(finder, example.image, prompt or PROMPT, threshold, pixel)
    else:
        if prompt:
            notes += [
                f"{finder.name} knows no words, so {prompt!r} was not looked for in particular"
            ]
        if mask_threshold is not None:
            notes += [f"{finder.name} makes no use of a threshold of pixels"]
        segments = finder.everything(example.image, example.pointmap)
    kept, dropped = clean([segment for segment in segments if segment.score >= threshold])
    overlapping: list[Segment] = []
    if kept and not knows_words(finder):
        chosen = scene_of(kept, finder.name)
        overlapping = [one for number, one in enumerate(kept) if number not in chosen]
        kept = [kept[number] for number in chosen]
    if overlapping:
        notes += [
            f"left out, since they overlap these as parts and groups do: {len(overlapping)}; in a "
            "notebook, MaskFinder shows all to choose among"
        ]
    if nested := count_nested(kept):
        notes += [
            f"{nested} of {len(kept)} lie within a larger one, as parts of objects do and objects "
            "of a group: what is wrong can be unticked in a notebook, with MaskFinder"
        ]
    note = "; ".join(notes)
    return Found(finder.name, tuple(kept), tuple(dropped), note, tuple(overlapping))


def with_masks(example: Example, segments: Mapping[int, Segment] | Sequence[Segment]) -> Example:
    """Return the example with these masks, by index or numbered from 0, see `Example.with_masks`.

    Raises ReconstructionError where none is given.
    """
    if not segments:
        raise ReconstructionError(
            f"no object was found on {example.name}; lower the threshold, try other words or "
            "another segmenter, or pick masks by hand"
        )
    numbered = segments if isinstance(segments, Mapping) else dict(enumerate(segments))
    masks = {index: segment.mask for index, segment in numbered.items()}
    return example.with_masks(masks, {i: _name(segment, i) for i, segment in numbered.items()})


def _name(segment: Segment, index: int) -> str:
    return f"{'object' if segment.name in PLAIN_NAMES else segment.name} {index}"


def save_masks(example: Example, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write the photo and its masks as an example folder; returns it. Raises OutputError."""
    saved = save_example(
        folder, example.image, example.masks, example.names, example, overwrite=overwrite
    )
    return saved.folder
