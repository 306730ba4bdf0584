"""What `torch.profiler` sees of one run: a table of operators, and a trace for Perfetto."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from sam3d_nb.errors import OutputError
from sam3d_nb.events import Event, ObjectEvent
from sam3d_nb.files import write_file

ROWS = 40


def profile_run(run: Callable[[Callable[[Event], None]], Any], folder: Path, name: str) -> None:
    """Profile `run(on_event)` and write `<name>_profile.txt` and `<name>_trace.json.gz`.

    The trace opens in ui.perfetto.dev and chrome://tracing, with the stages as ranges around the
    operators. Profiled runs are slow, so their time counts nowhere. Raises OutputError.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    ranges = StageRanges()
    with profile(activities=activities, record_shapes=False) as profiler:
        try:
            run(ranges)
        finally:
            ranges.close()
    averages = profiler.key_averages()
    order = ["self_cpu_time_total"]
    if ProfilerActivity.CUDA in activities:
        order.insert(0, "self_device_time_total")
    tables = [
        f"sorted by {key}\n{averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=80)}"
        for key in order
    ]
    write_file(folder / f"{name}_profile.txt", "\n\n".join(tables).encode(), overwrite=True)
    _write_trace(profiler, folder, f"{name}_trace.json.gz")


def _write_trace(profiler: profile, folder: Path, name: str) -> None:
    """Write the trace, by way of a folder beside it: the system's own may be small."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
            plain, packed = Path(place) / "trace.json", Path(place) / "trace.json.gz"
            profiler.export_chrome_trace(str(plain))
            with open(plain, "rb") as source, gzip.open(packed, "wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(packed, folder / name)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot write {name} into {folder}: {reason}; choose another folder"
        ) from error


class StageRanges:
    """Marks the stages of a run for the profiler."""

    def __init__(self) -> None:
        self._stage = ""
        self._range: Any = nullcontext()

    def __call__(self, event: Event) -> None:
        """Begin or end the range of a stage."""
        inner = event.inner if isinstance(event, ObjectEvent) else event
        if inner.fraction >= 1:
            self.close()
        elif inner.stage != self._stage:
            self.close()
            self._stage, self._range = inner.stage, record_function(inner.stage)
            self._range.__enter__()

    def close(self) -> None:
        """End the range that is open, if any."""
        if self._stage:
            self._range.__exit__(None, None, None)
            self._stage = ""
