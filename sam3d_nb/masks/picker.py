"""`MaskPicker`: say with the mouse or the keyboard which objects of a photo are meant."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from sam3d_nb.errors import InputError, OutputError, Sam3dError
from sam3d_nb.examples import Example, load_example
from sam3d_nb.masks.picture import compressed, drawn_mask, scaled
from sam3d_nb.masks.runs import sample
from sam3d_nb.masks.save import holds_example, save_example
from sam3d_nb.masks.segmenter import Segmenter, check_photo, load_segmenter
from sam3d_nb.masks.session import Session
from sam3d_nb.masks.target import Candidate, Target, read_candidates
from sam3d_nb.view.masks import color_of, draw_masks

FOLDER = Path(__file__).parent / "browser"
PARTS = ("shapes", "stage", "panel", "gestures")
"""Files that make one ES module, in this order."""
TOOLS = ("select", "point", "avoid", "box", "brush", "eraser", "move")
GESTURES = (
    *("take", "point", "box", "stroke", "clear", "undo", "redo"),
    *("add", "select", "rename", "remove", "suggest", "prepare"),
)
"""Methods of the session that the browser may call."""


class MaskPicker(anywidget.AnyWidget):
    """A photo in a notebook on which objects are picked, one mask each.

    image: an example, uint8 RGB (H, W, 3), or what `load_example` takes. masks: to choose among by
    a click, (H, W) each; by default the example's. segmenter: finds masks by points and boxes; its
    name, a `Segmenter`, or None. When a tool that asks it is chosen it takes its first look at the
    photo (about 1.5 s for embedded on two cores), for which the first click may have to wait; later
    ones do not. folder: where the button Save writes; no button without one.

    tool: one of select, point, avoid (a point beside the object), box, brush, eraser, move.
    opacity: of the colors, 0 to 1. brush: radius in pixels of the photo. session: what the
    gestures do; call `refresh` after using it from Python. Raises InputError for a photo or a mask
    that is not what is needed.
    """

    _esm = "\n".join((FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in PARTS)
    _css = FOLDER / "picker.css"
    _photo = traitlets.Bytes().tag(sync=True)  # JPEG, scaled
    _size: Any = traitlets.List().tag(sync=True)  # W, H of the photo, w, h of the scaled one
    _choices: Any = traitlets.List().tag(sync=True)
    _view = traitlets.Dict().tag(sync=True)
    _can = traitlets.Dict().tag(sync=True)
    tool = traitlets.Enum(TOOLS, "select").tag(sync=True)
    opacity = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    brush = traitlets.Float(10, min=0.5).tag(sync=True)

    def __init__(
        self,
        image: Example | np.ndarray | str | Path,
        masks: Mapping[int, Any] | Sequence[Any] | np.ndarray | None = None,
        segmenter: str | Segmenter | None = "embedded",
        folder: str | Path | None = None,
    ) -> None:
        source = load_example(image) if isinstance(image, str | Path) else image
        self.example = source if isinstance(source, Example) else None
        self.image = source.image if isinstance(source, Example) else source
        self.folder = folder
        check_photo(self.image)
        names = {} if self.example is None else self.example.names
        if masks is None:
            masks = {} if self.example is None else self.example.masks
        shape = (self.image.shape[0], self.image.shape[1])
        pointmap = None if self.example is None else self.example.pointmap
        candidates = read_candidates(masks, shape, names)
        self.session = Session(self.image, candidates, _lazily(segmenter), pointmap)
        self._scaled = scaled(self.image)
        self._drawn: dict[Target | Candidate, dict[str, Any]] = {}
        super().__init__(
            _photo=compressed(self._scaled),
            _size=[*shape[::-1], *self._scaled.shape[1::-1]],
            _can={"segment": segmenter is not None, "save": folder is not None},
            tool="select" if self.session.candidates else "point" if segmenter else "brush",
            brush=max(2.0, round(max(shape) / 60)),
        )
        self._may_replace: Path | None = None
        self._seen: tuple[Candidate, ...] | None = None
        self.refresh("Nothing is picked yet")
        self.on_msg(self._on_message)

    @property
    def mask(self) -> np.ndarray:
        """Mask (H, W) bool of the active object; empty as long as nothing is picked."""
        return self.session.mask().copy()

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """Masks (H, W) bool of all objects that are not empty, by number.

        Numbers count what was picked, from 0: they are those that the picker shows and that `save`
        gives to the files, not the indices of masks to choose among.
        """
        picked = {i: t for i, t in enumerate(self.session.targets) if t.pixels}
        return {i: self.session.mask(target).copy() for i, target in picked.items()}

    @property
    def names(self) -> dict[int, str]:
        """Names of the objects in `masks`."""
        targets = self.session.targets
        return {i: self.session.name(i) for i, target in enumerate(targets) if target.pixels}

    @property
    def picked(self) -> Example:
        """The photo with `masks` and `names`, an example like any other.

        Raises InputError where nothing is picked yet.
        """
        masks = self.masks
        if not masks:
            raise InputError("nothing is picked yet, so there is no mask")
        source = self.example or Example(Path(), self.image, {}, photo="photo")
        return source.with_masks(masks, self.names)

    def take(self, index: int, new: bool = False) -> None:
        """Take mask `index` of those to choose among, as a click does; new: as another object.

        index: as in the example or the mapping that the masks came from. Masks that are suggested
        count on from the largest of these. Raises InputError where there is none.
        """
        places = {c.index: place for place, c in enumerate(self.session.candidates)}
        if index not in places:
            there = ", ".join(map(str, places)) or "none"
            raise InputError(f"there is no mask {index} to choose; there are {there}")
        self.refresh(self.session.take(places[index], new))

    def suggest(self, text: str = "") -> None:
        """Let the segmenter find masks to choose among, of all objects or of what `text` says.

        Raises InputError where nothing is found, or there is no segmenter.
        """
        self.refresh(self.session.suggest(text))

    def save(self, folder: str | Path | None = None, *, overwrite: bool = False) -> Example:
        """Write photo and masks to `folder` as an example, and return that example.

        Numbers and names are those that the picker shows; empty objects are left out. folder: by
        default the one the picker was made with. Raises InputError where nothing is picked, and
        OutputError where an example is there already and `overwrite` is false.
        """
        target = self.folder if folder is None else folder
        if target is None:
            raise InputError("say where to save: picker.save('my_example')")
        return save_example(
            target, self.image, self.masks, self.names, self.example, overwrite=overwrite
        )

    def refresh(self, status: str = "", *, failed: bool = False, done: int = 0) -> None:
        """Show the session as it is now, after its methods were called, with a line of text."""
        session = self.session
        if session.candidates is not self._seen:
            self._seen = session.candidates
            self._choices = [
                {"name": c.name, "pixels": c.pixels, **self._draw(c)} for c in session.candidates
            ]
        self._view = {
            "done": done,
            "status": status,
            "failed": failed,
            "active": session.active,
            "undo": session.can_undo,
            "redo": session.can_redo,
            "objects": [self._object(i, t) for i, t in enumerate(session.targets)],
        }
        kept = {*session.targets, *session.candidates}
        self._drawn = {item: drawn for item, drawn in self._drawn.items() if item in kept}

    def _object(self, number: int, target: Target) -> dict[str, Any]:
        chosen = target.candidate if not target.strokes else None
        candidates = self.session.candidates
        return {
            "name": self.session.name(number),
            "named": bool(target.name),
            "color": "#" + bytes(color_of(number)).hex(),
            "pixels": target.pixels,
            "points": [list(point) for point in target.points],
            "box": None if target.box is None else list(target.box),
            "choice": candidates.index(chosen) if chosen in candidates else None,
            **self._draw(target),
        }

    def _draw(self, item: Target | Candidate) -> dict[str, Any]:
        if item not in self._drawn:
            self._drawn[item] = drawn_mask(self.session.mask(item))
        return self._drawn[item]

    def _on_message(self, widget: Any, content: Any, buffers: Any) -> None:
        """Do what the browser asks for, and answer with the new view whatever comes of it."""
        content = content if isinstance(content, dict) else {}
        done = content.get("id", 0)
        try:
            self.refresh(self._obey(content.get("do"), content.get("with") or {}), done=done)
        except Sam3dError as error:
            self.refresh(str(error), failed=True, done=done)
        except Exception as error:
            self.refresh(f"that failed: {error!r}", failed=True, done=done)
            raise

    def _obey(self, gesture: Any, values: Any) -> str:
        if gesture == "save":
            return self._save_button()
        if gesture not in GESTURES or not isinstance(values, dict):
            raise InputError(f"the picker knows no gesture {gesture!r}")
        method = getattr(self.session, gesture)
        try:
            signature(method).bind(**values)
        except TypeError as error:
            raise InputError(f"the gesture {gesture} cannot be made of {values}") from error
        return str(method(**values))

    def _save_button(self) -> str:
        """Save; an example that was there before is replaced when the button is pressed again."""
        folder = Path(str(self.folder))
        asked, self._may_replace = self._may_replace == folder, folder
        if not asked and holds_example(folder):
            raise OutputError(f"{folder} holds an example; press Save again to replace it")
        count = len(self.save(overwrite=True).masks)
        return f"saved {count} object{'s' * (count > 1)} in {folder}"

    def __repr__(self) -> str:
        """Say what is picked instead of printing pixels."""
        height, width = self.session.shape
        picked = ", ".join(f"{i} {name}" for i, name in self.names.items()) or "nothing yet"
        return f"MaskPicker({width} x {height} pixels, picked: {picked})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Offer widget, picture and text; a notebook takes the first that it can display."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(data or {}), "image/png": base64.b64encode(self._still()).decode()}, metadata

    def _still(self) -> bytes:
        """Return the photo with what is picked now, as PNG."""
        shape = (self._scaled.shape[0], self._scaled.shape[1])
        masks = {i: sample(mask, shape) for i, mask in self.masks.items()}
        buffer = BytesIO()
        draw_masks(self._scaled, masks).save(buffer, "PNG")
        return buffer.getvalue()


def _lazily(segmenter: str | Segmenter | None) -> Callable[[], Segmenter] | None:
    """Return a function that loads the segmenter when it is first called."""
    if segmenter is None:
        return None
    if isinstance(segmenter, str):
        return cache(lambda: load_segmenter(segmenter))
    return lambda: segmenter
