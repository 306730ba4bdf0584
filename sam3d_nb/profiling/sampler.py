"""Memory over time, read by a thread beside the work."""

from __future__ import annotations

import threading
from time import perf_counter, thread_time
from types import TracebackType

from sam3d_nb.profiling.probe import Memory, Probe

PERIOD = 0.1
"""Seconds between two readings: often enough for stages, too seldom to cost anything."""


class MemorySampler:
    """Reads the memory every `period` seconds within its `with` block.

    `samples` holds seconds on the clock of `perf_counter`, and what was read. `probe` may be
    replaced at any time. `overhead` is the processor time that it took, once the block is over.
    """

    def __init__(self, probe: Probe, period: float = PERIOD) -> None:
        self.probe = probe
        self.period = period
        self.samples: list[tuple[float, Memory]] = []
        self.overhead = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory sampler", daemon=True)

    def __enter__(self) -> MemorySampler:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._read()

    def since(self, origin: float) -> list[tuple[float, Memory]]:
        """Return the samples with their times counted from `origin`."""
        return [(moment - origin, memory) for moment, memory in self.samples]

    def _read(self) -> None:
        self.samples.append((perf_counter(), self.probe.memory()))

    def _watch(self) -> None:
        while not self._over.wait(self.period):
            self._read()
        self.overhead = thread_time()
