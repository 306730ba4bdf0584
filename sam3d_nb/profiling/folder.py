"""The folder of a benchmark: header, journal of the rows, and the published tables."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.files import write_file
from sam3d_nb.profiling.header import differences
from sam3d_nb.profiling.record import Row, SceneRow, as_record, row_of
from sam3d_nb.profiling.tables import elapsed_times
from sam3d_nb.work.journal import Journal, read_records

HEADER = "header.json"
ROWS = "rows.jsonl"
TABLE = "elapsed_time.csv"
PROFILES = "profiles"
BY_STAGE, SUMMARY, SCENES = "by_stage.csv", "summary.csv", "scenes.csv"
Rows = tuple[list[Row], list[SceneRow]]


class BenchmarkFolder:
    """Where rows go as soon as they are known, and those of an earlier run come from.

    Use it in a `with` block. header: of this run; the folder goes on only if its own agrees.
    overwrite: forget what is there. Raises OutputError where the folder cannot be written, holds a
    benchmark of something else, or is in use.
    """

    def __init__(self, folder: str | Path, header: dict[str, Any], *, overwrite: bool) -> None:
        self.path = Path(folder).expanduser()
        self.header = header
        self.overwrite = overwrite
        self.journal = Journal(self.path / ROWS)
        self.rows: list[Row] = []
        self.scenes: list[SceneRow] = []

    def __enter__(self) -> BenchmarkFolder:
        self.journal.__enter__()
        try:
            if self.overwrite:
                self._clear()
            elif (self.path / HEADER).is_file():
                self.header = self._agreeing(read_header(self.path))
            elif self.journal.records:
                raise OutputError(
                    f"{self.path} has rows but no {HEADER}; choose another folder or overwrite"
                )
            self._save_json(HEADER, self.header)
            self.rows, self.scenes = parse(self.journal.records, self.path)
            for image in dict.fromkeys(row.image for row in self.rows):
                self._save_tables(image)  # the last one may have been killed before
        except BaseException:
            self.journal.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self.journal.__exit__(*error)

    def add(self, row: Row | SceneRow) -> None:
        """Put a row on disk, in place of an earlier one of the same object or scene."""
        self.journal.append(as_record(row))
        self.rows, self.scenes = latest([*self.rows, *self.scenes, row])
        if isinstance(row, Row):
            self._save_tables(row.image)

    def _save_tables(self, image: str) -> None:
        own = [row for row in self.rows if row.image == image]
        steps = self.header["identity"]["configuration"]["active"]
        for name, table in (
            (f"{image}_{TABLE}", elapsed_times(own, steps, by_mask=True)),
            (TABLE, elapsed_times(self.rows, steps)),
        ):
            text = table.to_csv(float_format="%.6f", lineterminator="\n")
            write_file(self.path / name, text.encode(), overwrite=True)

    def _save_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"
        write_file(self.path / name, text.encode(), overwrite=True)

    def _agreeing(self, there: dict[str, Any]) -> dict[str, Any]:
        """Return the header that is there if this run may go on with it."""
        ours = json.loads(json.dumps(self.header["identity"], default=str))
        found = differences(there.get("identity"), ours)
        if found:
            raise OutputError(
                f"{self.path} holds a benchmark of something else ({'; '.join(found[:3])}); choose "
                "another folder, or overwrite it"
            )
        return there

    def _clear(self) -> None:
        self.journal.clear()
        names = (HEADER, BY_STAGE, SUMMARY, SCENES)
        for path in [*self.path.glob(f"*{TABLE}"), *(self.path / name for name in names)]:
            path.unlink(missing_ok=True)
        for pattern in ("*_profile.txt", "*_trace.json.gz"):
            for path in (self.path / PROFILES).glob(pattern):
                path.unlink()


def read_header(folder: Path) -> dict[str, Any]:
    """Return the header of a benchmark's folder; raises InputError where it is none."""
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        if not isinstance(header, dict) or not isinstance(header["identity"], dict):
            raise ValueError("it is no header")
        configuration, model = header["identity"]["configuration"], header["identity"]["model"]
        needed = configuration["use_inference_cache"], model["name"], header["identity"]["hardware"]
        if int(configuration["active"]) < 1 or not isinstance(needed[2], dict):
            raise ValueError("its settings are none")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{folder / HEADER} cannot be read as a header ({reason})") from error
    return header


def read_rows(folder: Path) -> Rows:
    """Return the rows of a benchmark's folder, those of objects and those of scenes."""
    return parse(read_records(folder / ROWS), folder)


def parse(records: Any, folder: Path) -> Rows:
    """Return the latest rows of `records`; what cannot be understood is left out with a warning."""
    rows: list[Row | SceneRow] = []
    for record in records:
        try:
            rows.append(row_of(record))
        except (KeyError, TypeError, ValueError) as error:
            warnings.warn(f"{folder}: a row is damaged ({error}) and left out", stacklevel=2)
    return latest(rows)


def latest(rows: list[Row | SceneRow]) -> Rows:
    """Return the last row of each object and of each scene."""
    objects = {(row.image, row.mask): row for row in rows if isinstance(row, Row)}
    scenes = {row.image: row for row in rows if isinstance(row, SceneRow)}
    return list(objects.values()), list(scenes.values())


def hash_scene(hashes: Iterable[str]) -> str:
    """Return a hash of what all objects of a scene are made from, in their order."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()
