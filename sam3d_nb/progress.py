"""How far a reconstruction is: a bar in notebooks and terminals, lines in files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from time import monotonic
from types import TracebackType
from typing import Any

from sam3d_nb.events import DoneEvent, Event, SceneDoneEvent, WritingEvent

PATIENCE = 1.0
"""Seconds before a bar or a line appears; what is quicker needs none."""


class Progress:
    """Shows the stage and how much of it is done: `model.reconstruct(..., on_event=Progress())`.

    Where standard error is a file or a pipe, stages are lines there instead. Also a context
    manager: then one bar is for all that happens in it, also where that fails.
    """

    def __init__(self, *, visible: bool = True) -> None:
        self._visible = visible
        self._bar: Any = None
        self._entered = False

    def __call__(self, event: Event) -> None:
        """Show `event`; the bar goes when the object or the scene is done, or written."""
        written = isinstance(event, WritingEvent) and event.fraction >= 1
        if written or isinstance(event, DoneEvent | SceneDoneEvent):
            if not self._entered:
                self.close()
            return
        if self._bar is None:
            self._bar = progress_bar(total=1.0, visible=self._visible)
        self._bar.set_description_str(event.label, refresh=False)
        self._bar.update(event.share - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        self.close()


@contextmanager
def counting() -> Iterator[Callable[[int, int, str], None]]:
    """Give a function that shows how many of how many are done, and what comes next."""
    bar = progress_bar(total=1.0)

    def show(done: int, total: int, name: str) -> None:
        bar.set_description_str(name, refresh=False)
        bar.n = done / max(total, 1)  # may go back, where something new begins
        bar.update(0)

    try:
        yield show
    finally:
        bar.close()


def progress_bar(total: float, *, visible: bool = True) -> Any:
    """Return a tqdm bar that appears after `PATIENCE` seconds and leaves nothing behind.

    Where nothing can be drawn over, it is one that writes lines.
    """
    if visible and not has_screen():
        return Lines()
    from tqdm.auto import tqdm

    shown = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    return tqdm(
        total=total,
        miniters=0,  # draw for any share of a stage
        delay=PATIENCE,
        leave=False,
        disable=not visible,
        bar_format=shown,
    )


def has_screen() -> bool:
    """Return whether a bar can be drawn: on a terminal, or in a notebook."""
    return getattr(sys.stderr, "isatty", bool)() or _in_notebook()  # None without a console


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


class Lines:
    """Stands in for a bar: writes the newest description in a line of its own, after the seconds.

    Lines are `PATIENCE` seconds apart at least, and the first comes no sooner, as a bar would. What
    lasts that long is told while it lasts.
    """

    def __init__(self) -> None:
        self.n = 0.0
        self._started = self._latest = monotonic()
        self._text = self._written = ""
        self._lock = Lock()
        self._later: Timer | None = None

    def set_description_str(self, text: str, refresh: bool = True) -> None:
        """Take note of what goes on now."""
        self._text = text

    def update(self, step: float) -> None:
        """Write what goes on, now or when it is time, unless that is written already."""
        self.n += step
        with self._lock:
            if self._text == self._written:
                return
            now = monotonic()
            left = self._latest + PATIENCE - now
            if left <= 0:
                self._write(now)
            elif self._later is None:
                self._later = Timer(left, self._write_later)
                self._later.daemon = True
                self._later.start()

    def close(self) -> None:
        """Leave the lines as they are."""
        with self._lock:
            self._written = self._text
            if self._later is not None:
                self._later.cancel()

    def _write(self, now: float) -> None:
        if self._text != self._written:
            print(f"{now - self._started:5.0f} s  {self._text}", file=sys.stderr, flush=True)
            self._written, self._latest = self._text, now

    def _write_later(self) -> None:
        with self._lock:
            self._later = None
            self._write(monotonic())
