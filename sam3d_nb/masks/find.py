"""All objects of a photo without anybody pointing at them: found, cleaned, ready to be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.examples import Example
from sam3d_nb.masks.disjoint import LIKELY, conflicts, scene_of
from sam3d_nb.masks.filters import Dropped, clean, count_nested
from sam3d_nb.masks.save import save_example
from sam3d_nb.masks.segmenter import SEGMENTERS, Prompt, Segment, Segmenter, load_segmenter

PROMPT = "interior objects"
THRESHOLD = MASK_THRESHOLD = 0.4
PLAIN_NAMES = ("object", PROMPT)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found on a photo. kept, left_out, dropped: the best first. segmenter: its name.

    left_out: proposals that overlap what is kept, or are unlikely.
    """

    segmenter: str
    kept: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]
    note: str = ""
    left_out: tuple[Segment, ...] = ()

    def report(self) -> list[str]:
        """Return sentences: how many were found, and what was dropped and why."""
        count = len(self.kept) + len(self.dropped) + len(self.left_out)
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

    Of what embedded proposes, objects, parts of them and groups, a set without overlaps is kept,
    see `scene_of`; where a threshold is given, unlikely ones beside it as well.

    segmenter: a name of `SEGMENTERS` or one that is loaded; by default sam3 if its weights are
    ready, else embedded. prompt: what to find, for segmenters that know words; by default
    'interior objects'. threshold: of the scores; by default 0.4 for segmenters that know words,
    else 0. mask_threshold: of a pixel's probability, for the former; by default 0.4. Both are
    between 0 and 1. What a segmenter makes no use of is told in the report.

    Raises InputError, and WeightsError where the segmenter's weights are missing.
    """
    check_thresholds(threshold, mask_threshold)
    finder = pick_segmenter(segmenter, device)
    asked = threshold is not None
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
    left_out: list[Segment] = []
    if kept and finder.name in LIKELY:
        chosen, overlapping, unlikely = _of_proposals(kept, finder.name, keep_all=asked)
        left_out = [kept[number] for number in sorted(overlapping + unlikely)]
        kept = [kept[number] for number in chosen]
        notes += _left_out(len(overlapping), len(unlikely))
    elif nested := count_nested(kept):
        notes += [
            f"{nested} of {len(kept)} lie within a larger one, as parts of objects do and objects "
            "of a group: what is wrong can be unticked in a notebook, with MaskFinder"
        ]
    note = "; ".join(notes)
    return Found(finder.name, tuple(kept), tuple(dropped), note, tuple(left_out))


def _of_proposals(
    segments: Sequence[Segment], segmenter: str, *, keep_all: bool
) -> tuple[list[int], list[int], list[int]]:
    """Return the numbers of those that make a scene, overlap it, and are unlikely but apart.

    keep_all: let the last ones, the best first, be part of the scene.
    """
    chosen, clash = scene_of(segments, segmenter), conflicts(segments)
    overlapping, unlikely = [], []
    for number in range(len(segments)):
        if number in chosen:
            continue
        if clash[number, chosen].any():
            overlapping.append(number)
        elif keep_all:
            chosen.append(number)
        else:
            unlikely.append(number)
    return sorted(chosen), overlapping, unlikely


def _left_out(overlapping: int, unlikely: int) -> list[str]:
    notes = []
    if overlapping:
        notes += [f"left out, since they overlap these as parts and groups do: {overlapping}"]
    if unlikely:
        notes += [f"left out as unlikely: {unlikely}, which a threshold of 0 keeps"]
    if notes:
        notes += ["in a notebook, MaskFinder shows all to choose among"]
    return notes


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
