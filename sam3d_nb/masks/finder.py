"""`MaskFinder`: find all objects of a photo, look at them, untick what is wrong."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from sam3d_nb.examples import Example
from sam3d_nb.masks.disjoint import scene_of
from sam3d_nb.masks.filters import clean
from sam3d_nb.masks.find import (
    MASK_THRESHOLD,
    PROMPT,
    ask,
    check_thresholds,
    knows_words,
    pick_segmenter,
    save_masks,
    usual_threshold,
    with_masks,
)
from sam3d_nb.masks.segmenter import Segment, Segmenter
from sam3d_nb.mesh.glb import encode_png
from sam3d_nb.view.masks import draw_masks

LEAST = 0.1
"""Masks by words with a lower score are asked for only where the threshold begins lower."""
WIDE = {"description_width": "9rem"}


class MaskFinder(widgets.VBox):
    """Finds the objects of `example`; `MaskFinder.example` is the photo with the ticked ones.

    segmenter: a name, or one that is loaded; by default sam3 if its weights are ready, else
    embedded. The words count for segmenters that know words, and so does the mask threshold. The
    threshold of the scores is 0.4 for these, else 0. The counts follow the sliders; what was
    unticked stays so until the segmenter is asked again. Segmenters without words propose objects,
    their parts and groups of them: of these a set without overlaps is ticked at first, see
    `scene_of`; the others are there to be ticked instead.

    Raises InputError for a threshold that is not from 0 to 1, and what `load_segmenter` and
    `Segmenter.masks` do.
    """

    def __init__(
        self,
        example: Example,
        segmenter: str | Segmenter | None = None,
        *,
        prompt: str = PROMPT,
        threshold: float | None = None,
        mask_threshold: float = MASK_THRESHOLD,
        device: str = "auto",
        size: int = 800,
    ) -> None:
        check_thresholds(threshold, mask_threshold)
        self.source = example
        self.segmenter = pick_segmenter(segmenter, device)
        self.segments: tuple[Segment, ...] = ()
        self._found: list[Segment] = []
        self._unticked: set[int] = set()  # by identity, as long as `_found` holds them
        self._overlapping: set[int] = set()  # of these, what was unticked by itself
        self._size = size
        words = knows_words(self.segmenter)
        self.prompt = widgets.Text(prompt, description="find", disabled=not words, style=WIDE)
        score = usual_threshold(self.segmenter) if threshold is None else threshold
        self._least = min(LEAST, score) if words else 0.0
        self.threshold = _slider("least score", score, self._least, disabled=False)
        self.mask_threshold = _slider("pixel threshold", mask_threshold, 0.0, disabled=not words)
        self.button = widgets.Button(description="Find", button_style="primary")
        self.counts = widgets.HTML()
        self.picture = widgets.HTML()
        self.boxes = widgets.VBox()
        controls = [self.prompt, self.button, self.threshold, self.mask_threshold, self.counts]
        super().__init__([*controls, widgets.HBox([self.picture, self.boxes])])
        self.button.on_click(lambda _: self.find())
        self.mask_threshold.observe(lambda _: self.find(), "value")
        self.threshold.observe(lambda _: self._filter(), "value")
        self.find()

    def find(self) -> None:
        """Ask the segmenter again, with the words and the pixel threshold that are set."""
        image, text = self.source.image, self.prompt.value.strip() or PROMPT
        self._unticked, self._overlapping = set(), set()
        if knows_words(self.segmenter):
            pixel = self.mask_threshold.value
            self._found = ask(self.segmenter, image, text, self._least, pixel)
        else:
            self._found = self.segmenter.everything(image, self.source.pointmap)
            self._untick_overlaps()
        self._filter()

    def _untick_overlaps(self) -> None:
        kept, _ = clean(self._found)
        ticked = set(scene_of(kept, self.segmenter.name))
        self._overlapping = {id(one) for number, one in enumerate(kept) if number not in ticked}
        self._unticked = set(self._overlapping)

    @property
    def chosen(self) -> list[int]:
        """Numbers of the segments that are ticked."""
        return [number for number, box in enumerate(self.boxes.children) if box.value]

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """Masks (H, W) bool of the ticked segments by their numbers, the best first."""
        return {number: self.segments[number].mask for number in self.chosen}

    @property
    def example(self) -> Example:
        """The photo with the ticked masks; raises ReconstructionError where none is ticked.

        Their indices are the numbers in the picture.
        """
        return with_masks(self.source, {number: self.segments[number] for number in self.chosen})

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the photo and the ticked masks as an example folder; raises OutputError."""
        return save_masks(self.example, folder, overwrite=overwrite)

    def _filter(self) -> None:
        """Show what has the score that is asked for, and count what is left out."""
        good = [s for s in self._found if s.score >= self.threshold.value]
        kept, dropped = clean(good)
        self.segments = tuple(kept)
        reasons = [one.reason.split(" ")[0].strip(":,") for one in dropped]
        parts = [f"{reasons.count(kind)} {kind}" for kind in dict.fromkeys(reasons)]
        low = len(self._found) - len(good)
        parts += [f"{low} with a lower score"] * bool(low)
        left_out = f"; left out: {', '.join(parts)}" if parts else ""
        self.counts.value = (
            f"<b>{len(kept)}</b> of {len(self._found)} masks by "
            f"{escape(self.segmenter.name)}{escape(left_out)}"
        )
        if self._overlapping & {id(segment) for segment in kept}:
            self.counts.value += "; ticked at first are those that make a scene without overlaps"
        self.boxes.children = [
            widgets.Checkbox(
                id(segment) not in self._unticked, description=self._label(number), indent=False
            )
            for number, segment in enumerate(kept)
        ]
        for box, segment in zip(self.boxes.children, kept, strict=True):
            box.observe(lambda change, one=segment: self._tick(one, change["new"]), "value")
        self._draw()

    def _tick(self, segment: Segment, ticked: bool) -> None:
        """Remember it, so that what was unticked stays so when the threshold changes."""
        (self._unticked.discard if ticked else self._unticked.add)(id(segment))
        self._draw()

    def _label(self, number: int) -> str:
        segment = self.segments[number]
        return f"{number}: {segment.name}, score {segment.score:.2f}, {segment.mask.mean():.1%}"

    def _draw(self) -> None:
        shown = {number: self.segments[number].mask for number in self.chosen}
        picture = np.asarray(draw_masks(self.source.image, shown, size=self._size))
        code = b64encode(encode_png(picture)).decode()
        text = f"The photo with {len(shown)} numbered masks"
        self.picture.value = f'<img alt="{text}" src="data:image/png;base64,{code}">'


def _slider(text: str, value: float, least: float, *, disabled: bool) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value,
        min=least,
        max=1.0,
        step=0.01,
        description=text,
        continuous_update=False,
        disabled=disabled,
        style=WIDE,
    )
