"""A progress bar over the stages of a reconstruction, in notebooks and terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from sam3d_nb.events import DoneEvent, Event, SceneDoneEvent

PATIENCE = 1.0
"""Seconds before a bar appears; what is quicker needs none."""


class Progress:
    """Shows the stage and how much of it is done: `model.reconstruct(..., on_event=Progress())`.

    Also a context manager, which takes the bar away when the run fails.
    """

    def __init__(self, *, visible: bool = True) -> None:
        self._visible = visible
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        """Show `event`; the bar goes when the object or the scene is done."""
        if isinstance(event, DoneEvent | SceneDoneEvent):
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
    """Return a tqdm bar that appears after `PATIENCE` seconds and leaves nothing behind."""
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
