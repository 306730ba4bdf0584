"""Stopping long work at a safe point when a person or the system asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CleanStop:
    """Within its `with` block, SIGINT and SIGTERM wait for the next `check`.

    `check` raises KeyboardInterrupt once one has come; call it where nothing is half done. A second
    SIGINT or SIGTERM raises it at once, and so does the first one while `waits` is set to false:
    for long work without a check that leaves nothing half done. Off the main thread signals stay as
    they are, and so does one whose handler was not set by Python and could not be put back.
    """

    def __init__(self) -> None:
        self.asked = False
        self.waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> CleanStop:
        if threading.current_thread() is threading.main_thread():
            ours = [number for number in SIGNALS if signal.getsignal(number) is not None]
            self._before = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.waits:
            raise KeyboardInterrupt
        self.asked = True
