"""A picker on the screen: places of the photo, gestures, and what Python holds afterwards."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from lab import Notebook
from PIL import Image
from playwright.sync_api import expect

from sam3d_nb.examples import Example, load_example


class PickerPage:
    """The first picker of a notebook; places are x, y in pixels of the photo."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.canvas = notebook.find(".s3-stage canvas")
        self.root = notebook.find(".s3-picker")
        self.status = self.root.locator(".s3-status")
        self.page.wait_for_function("() => document.querySelector('.s3-picker')?.dataset.done > 0")
        self.width, self.height = self.size()

    def size(self) -> tuple[int, int]:
        """Return width and height of the photo as the picker tells a screen reader."""
        label = self.canvas.get_attribute("aria-label") or ""
        words = label.replace(",", " ").split()
        return int(words[1]), int(words[3])

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the photo is on the page, with the whole photo in view."""
        box = self.canvas.bounding_box()
        assert box is not None
        scale = min(box["width"] / self.width, box["height"] / self.height)
        left = box["x"] + (box["width"] - self.width * scale) / 2
        return left + x * scale, box["y"] + y * scale

    def click(self, x: float, y: float, **options: Any) -> float:
        """Click, wait for Python's answer to be on the screen, and return the milliseconds."""
        return self.answered(lambda: self.page.mouse.click(*self.at(x, y), **options))

    def drag(self, *places: tuple[float, float]) -> float:
        """Drag the mouse along places; returns the milliseconds that the answer took."""
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place), steps=8)
        return self.answered(self.page.mouse.up)

    def pixels(self) -> np.ndarray:
        """Return what the canvas shows, (h, w, 3) as float."""
        picture = Image.open(BytesIO(self.canvas.screenshot())).convert("RGB")
        return np.asarray(picture).astype(np.float32)

    def swatches(self) -> list[np.ndarray]:
        """Return the pattern of each object in the list, true where it is dark."""
        script = """(canvases) => canvases.map((canvas) => [...canvas.getContext('2d')
            .getImageData(2, 2, canvas.width - 4, canvas.height - 4).data])"""
        found = self.root.locator(".s3-objects canvas").evaluate_all(script)
        colors = [np.array(values).reshape(-1, 4)[:, :3].max(-1) for values in found]
        return [values < 0.6 * values.max() for values in colors]

    def choose(self, tool: str) -> None:
        """Press the button of a tool."""
        button = self.root.get_by_role("button", name=tool, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")

    def press(self, *keys: str) -> None:
        """Press keys for which Python is not asked."""
        for key in keys:
            self.page.keyboard.press(key)

    def ask(self, key: str) -> float:
        """Press a key and wait for Python's answer."""
        return self.answered(lambda: self.page.keyboard.press(key))

    def button(self, name: str) -> float:
        """Press a button and wait for Python's answer."""
        found = self.root.get_by_role("button", name=name, exact=True)
        return self.answered(found.click)

    def answered(self, action: Callable[[], Any]) -> float:
        """Do something and wait until what Python answered is on the screen."""
        expect(self.root).to_have_attribute("aria-busy", "false", timeout=30_000)
        before = self.root.get_attribute("data-done")
        self.root.evaluate("(picker) => { delete picker.dataset.preview; }")
        action()
        self.page.wait_for_function(
            "(before) => document.querySelector('.s3-picker').dataset.done !== before", arg=before
        )
        return float(self.root.get_attribute("data-milliseconds") or "nan")

    @property
    def preview(self) -> float:
        """Milliseconds from the last gesture until something of it was on the screen."""
        return float(self.root.get_attribute("data-preview") or "nan")

    def saved(self, folder: str) -> Example:
        """Let Python save what it holds, and return it."""
        self.notebook.execute(f"picker.save({folder!r}, overwrite=True)")
        return load_example(self.notebook.lab.folder / folder)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two masks over their union."""
    return float((one & other).sum() / (one | other).sum())
