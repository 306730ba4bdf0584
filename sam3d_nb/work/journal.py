"""A file of JSON lines that survives being killed: one record a line, on disk when it is known."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from sam3d_nb.errors import OutputError


class Journal:
    """Records of finished work, one JSON object a line, open for one process at a time.

    Use it in a `with` block. `records` are those of earlier runs; `append` puts another one on
    disk before it returns. A line that a killed process left unfinished is cut off, and a damaged
    one is left out with a warning, so that its work is done again.

    Raises OutputError where the file cannot be written or another process has it open.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        self._file: FileIO | None = None

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                f"another process is working in {self.path.parent}; wait for it, or choose another "
                "folder"
            ) from None
        except OSError as error:
            raise self._refused(error) from error
        try:
            self.records = list(read_records(self.path))
            self._file = open(self.path, "ab", buffering=0)  # what failed is not written later
            self._cut_unfinished_line()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise self._refused(error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
                self._file = None
        finally:
            self._lock.release()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write `record`, and return when it is on disk; raises OutputError."""
        if self._file is None:
            raise ValueError("a journal is written within its `with` block")
        left = (json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n").encode()
        size = os.fstat(self._file.fileno()).st_size
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(size)
            raise self._refused(error) from error
        self.records.append(dict(record))

    def clear(self) -> None:
        """Forget all records, on disk too."""
        if self._file is None:
            raise ValueError("a journal is cleared within its `with` block")
        self._file.truncate(0)
        self.records.clear()

    def _cut_unfinished_line(self) -> None:
        if self._file is not None:
            content = self.path.read_bytes()
            self._file.truncate(content.rfind(b"\n") + 1)

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path.name} into {self.path.parent}: {error.strerror or error}; "
            "choose another folder"
        )


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, those of a missing file too: none.

    The unfinished line of a process that was killed is passed over, a damaged line with a warning.
    """
    path = Path(path)
    if not path.is_file():
        return
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no JSON object")
        except (ValueError, RecursionError) as error:
            warnings.warn(
                f"line {number} of {path} is damaged ({error}) and left out", stacklevel=2
            )
            continue
        yield record
