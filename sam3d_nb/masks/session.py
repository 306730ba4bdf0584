"""Picking objects, without a window: what clicks and strokes do, with undo and redo."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.masks.brush import make_stroke, paint
from sam3d_nb.masks.runs import decode_runs, encode_runs
from sam3d_nb.masks.segmenter import Box, Prompt, Segment, Segmenter
from sam3d_nb.masks.target import (
    Candidate,
    Point,
    Target,
    as_mask,
    empty_target,
    read_candidates,
)
from sam3d_nb.whole import is_whole

MAX_STEPS = 200
"""Steps that can be undone; earlier ones are forgotten."""
MAX_OBJECTS = 500
State = tuple[tuple[Target, ...], int]
"""All objects, and which of them is active."""


class Session:
    """The objects that are being picked on one photo; every method is what one gesture does.

    image: (H, W, 3) uint8. candidates: masks to choose among. segmenter: makes or returns the
    segmenter when it is first needed, None without one. pointmap: (H, W, 3) of the photo, which
    helps some segmenters to find everything. Each method returns a sentence that says
    what happened, and raises InputError, with nothing changed, where it cannot be done.
    """

    def __init__(
        self,
        image: np.ndarray,
        candidates: Sequence[Candidate] = (),
        segmenter: Callable[[], Segmenter] | None = None,
        pointmap: np.ndarray | None = None,
    ) -> None:
        self.image = image
        self.pointmap = pointmap
        self.shape = (image.shape[0], image.shape[1])
        self.candidates = tuple(candidates)
        self.given = len(self.candidates)
        self._segmenter = segmenter
        self._state: State = ((empty_target(self.shape),), 0)
        self._past: list[State] = []
        self._future: list[State] = []
        self._decoded: tuple[Target | Candidate | None, np.ndarray] = (None, np.empty((0, 0)))

    @property
    def targets(self) -> tuple[Target, ...]:
        """The objects by number."""
        return self._state[0]

    @property
    def active(self) -> int:
        """Number of the object that gestures change."""
        return self._state[1]

    @property
    def target(self) -> Target:
        """The object that gestures change."""
        return self.targets[self.active]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to do again."""
        return bool(self._future)

    def name(self, number: int) -> str:
        """Return the object's name, `object N` where it has none."""
        return self.targets[number].name or f"object {number}"

    def mask(self, item: Target | Candidate | None = None) -> np.ndarray:
        """Return the mask (H, W) bool of the active object, or of `item`; do not change it."""
        item = item or self.target
        if self._decoded[0] is not item:
            self._decoded = (item, decode_runs(item.runs, self.shape))
        return self._decoded[1]

    def take(self, candidate: int, new: bool = False) -> str:
        """Make a candidate, by its place among them, the mask of the active object or of a new one.

        A candidate that another object has, unchanged, makes that object active instead.
        """
        count = len(self.candidates)
        if not _is_index(candidate, count):
            raise InputError(
                f"there is no candidate {candidate}, counted from 0; there are {count}"
            )
        chosen = self.candidates[candidate]
        for number, target in enumerate(self.targets):
            if target.candidate is chosen and not target.strokes:
                self._state = (self.targets, number)
                return self._said("selected")
        if new and self.target.pixels:
            target = Target(chosen.runs, chosen.name, chosen)
            self._push((*self.targets, target), len(self.targets))
        else:
            name = chosen.name if self._has_borrowed_name() else self.target.name
            self._replace(Target(chosen.runs, name, chosen))
        return self._taken(chosen)

    def point(self, x: float, y: float, positive: bool = True) -> str:
        """Add a point on the object, or one beside it, and find the mask anew."""
        height, width = self.shape
        if not (0 <= x <= width and 0 <= y <= height):
            raise InputError(f"the point {x:.0f}, {y:.0f} lies outside the photo")
        points = (*self.target.points, (float(x), float(y), bool(positive)))
        self._find(points, self.target.box)
        return self._said(f"{len(points)} point{'s' * (len(points) > 1)}")

    def box(self, x0: float, y0: float, x1: float, y1: float) -> str:
        """Find the mask in a box; without a segmenter the box itself becomes the mask."""
        checked = Prompt(box=(x0, y0, x1, y1)).checked(self.shape).box
        self._find(self.target.points, checked)
        return self._said("box")

    def stroke(self, points: Sequence[Sequence[float]], radius: float, erase: bool = False) -> str:
        """Paint pixels into the active object, or erase them."""
        stroke = make_stroke(points, radius, erase)
        mask = self.mask().copy()
        paint(mask, stroke)
        strokes = (*self.target.strokes, stroke)
        self._replace(replace(self.target, runs=encode_runs(mask), strokes=strokes), mask)
        return self._said("erased" if erase else "painted")

    def clear(self) -> str:
        """Empty the active object; its name stays."""
        self._replace(empty_target(self.shape, self.target.name))
        return f"{self.name(self.active)} is empty now"

    def add(self, name: str = "") -> str:
        """Begin another object."""
        target = empty_target(self.shape).renamed(name)
        self._push((*self.targets, target), len(self.targets))
        return f"{self.name(self.active)} is new and empty"

    def select(self, number: int) -> str:
        """Make another object the active one."""
        self._check(number)
        self._state = (self.targets, number)
        return self._said("selected")

    def rename(self, number: int, name: str) -> str:
        """Give an object a name; an empty one takes its name away."""
        self._check(number)
        targets = list(self.targets)
        targets[number] = targets[number].renamed(name)
        self._push(tuple(targets), self.active)
        return f"object {number} is called {self.name(number)}"

    def remove(self, number: int) -> str:
        """Remove an object; those after it move up by one number."""
        self._check(number)
        name = self.name(number)
        rest = self.targets[:number] + self.targets[number + 1 :] or (empty_target(self.shape),)
        active = self.active - (self.active > number)
        self._push(rest, min(active, len(rest) - 1))
        return f"{name} is removed"

    def undo(self) -> str:
        """Take the last step back."""
        if not self._past:
            raise InputError("there is nothing to undo")
        self._future.append(self._state)
        self._state = self._past.pop()
        return self._said("undone")

    def redo(self) -> str:
        """Do again what was taken back."""
        if not self._future:
            raise InputError("there is nothing to redo")
        self._past.append(self._state)
        self._state = self._future.pop()
        return self._said("done again")

    def prepare(self) -> str:
        """Let the segmenter do now what the first point or box would wait for."""
        prepare = getattr(self._need_segmenter(), "prepare", None)
        if prepare is not None:
            prepare(self.image)
        return "ready for points and boxes"

    def suggest(self, text: str = "") -> str:
        """Let the segmenter find masks to choose among: of all objects, or of what `text` says.

        They stand after the given masks and replace earlier suggestions.
        """
        segmenter = self._need_segmenter()
        if text.strip():
            found = segmenter.masks(self.image, Prompt(text=text))
        else:
            found = segmenter.everything(self.image, self.pointmap)
        if not found:
            raise InputError("no object was found in the photo; use points, a box or the brush")
        given = [candidate.index for candidate in self.candidates[: self.given]]
        suggested = read_candidates(found, self.shape, first=1 + max(given, default=-1))
        self.candidates = (*self.candidates[: self.given], *suggested)
        return f"{len(suggested)} mask{'s' * (len(suggested) > 1)} found to choose among"

    def _find(self, points: tuple[Point, ...], box: Box | None) -> None:
        """Replace the mask by what points and box mean, with the strokes painted on it again."""
        if box is None and not any(positive for _, _, positive in points):
            raise InputError("begin with a point on the object, then add points beside it")
        mask = self._segmented(points, box).copy()
        for stroke in self.target.strokes:
            paint(mask, stroke)
        name = "" if self._has_borrowed_name() else self.target.name
        runs = encode_runs(mask)
        self._replace(Target(runs, name, None, points, box, self.target.strokes), mask)

    def _segmented(self, points: tuple[Point, ...], box: Box | None) -> np.ndarray:
        if self._segmenter is None:
            return self._without_segmenter(points, box)
        places = np.array([(x, y) for x, y, _ in points]).reshape(-1, 2)  # (N, 2)
        labels = np.array([positive for _, _, positive in points], dtype=bool)  # (N,)
        found: list[Segment] = self._need_segmenter().masks(
            self.image, Prompt(points=places, labels=labels, box=box)
        )
        if not found:
            raise InputError("nothing was found there; try another point, or a box")
        return as_mask(found[0].mask, self.shape, "the mask that the segmenter found")

    def _without_segmenter(self, points: tuple[Point, ...], box: Box | None) -> np.ndarray:
        if not points and box is not None:
            mask = np.zeros(self.shape, dtype=bool)
            x0, y0, x1, y1 = (math.ceil(side - 0.5) for side in box)  # centers inside
            mask[y0:y1, x0:x1] = True
            return mask
        for candidate in sorted(self.candidates, key=lambda c: c.pixels):
            mask = self.mask(candidate)
            if all(self._value(mask, x, y) == positive for x, y, positive in points):
                return mask
        raise InputError(
            "no given mask has these points, and there is no segmenter to find another; use the "
            "brush, or give the picker a segmenter"
        )

    def _value(self, mask: np.ndarray, x: float, y: float) -> bool:
        height, width = self.shape
        return bool(mask[min(int(y), height - 1), min(int(x), width - 1)])

    def _need_segmenter(self) -> Segmenter:
        if self._segmenter is None:
            raise InputError("this picker has no segmenter; make it with segmenter='embedded'")
        return self._segmenter()

    def _has_borrowed_name(self) -> bool:
        """Whether the active object's name is none, or that of the candidate it was taken from."""
        target = self.target
        return not target.name or (
            target.candidate is not None and target.name == target.candidate.name
        )

    def _replace(self, target: Target, mask: np.ndarray | None = None) -> None:
        targets = list(self.targets)
        targets[self.active] = target
        self._push(tuple(targets), self.active)
        if mask is not None:
            self._decoded = (target, mask)

    def _push(self, targets: tuple[Target, ...], active: int) -> None:
        if len(targets) > MAX_OBJECTS:
            raise InputError(f"there are {MAX_OBJECTS} objects already; remove one first")
        self._past = [*self._past[-MAX_STEPS + 1 :], self._state]
        self._future.clear()
        self._state = (targets, active)

    def _check(self, number: int) -> None:
        if not _is_index(number, len(self.targets)):
            raise InputError(f"there is no object {number}; there are {len(self.targets)}")

    def _taken(self, chosen: Candidate) -> str:
        """Say which mask the active object is now: objects have numbers of their own."""
        name, mask = self.name(self.active), f"mask {chosen.index}"
        which = "" if name == mask else f" ({mask})"
        return f"object {self.active} is {name}{which}"

    def _said(self, what: str) -> str:
        return f"{self.name(self.active)}: {what}"


def _is_index(number: int, count: int) -> bool:
    """Say whether a number counts one of `count` things."""
    return is_whole(number) and 0 <= number < count
