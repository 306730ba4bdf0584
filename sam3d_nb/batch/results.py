"""What a batch did, as a table, and the manifest of a folder read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam3d_nb.batch.folder import MANIFEST
from sam3d_nb.errors import InputError
from sam3d_nb.work.journal import read_records

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "image",
    "mask",
    "name",
    "status",
    "reason",
    "attempts",
    "seconds",
    "worker",
    "files",
    "warnings",
)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one run did. header: of the run; objects: a record each; both as in the manifest."""

    folder: Path
    header: dict[str, Any]
    objects: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def manifest(self) -> Path:
        """The file of all records, those of earlier runs too."""
        return self.folder / MANIFEST

    def count(self, status: str) -> int:
        """Return how many objects are `done`, `failed` or `skipped`."""
        return sum(record["status"] == status for record in self.objects)

    def failures(self) -> dict[str, str]:
        """Return why objects failed, by their names such as `0_kid_box`."""
        return {
            f"{record['mask']}_{record['image']}": record["reason"]
            for record in self.objects
            if record["status"] == "failed"
        }

    def table(self) -> pd.DataFrame:
        """Return one row for each object, `files` with paths in `folder`."""
        return _table(self.objects)

    def summary(self) -> str:
        """Return in one line how many objects were made, in what time."""
        photos = len({record["image"] for record in self.objects})
        made = self.count("done")
        parts = [f"{made} made", f"{self.count('skipped')} made earlier"]
        parts += [f"{self.count('failed')} failed"]
        rate = f", {3600 * made / self.seconds:.0f} an hour" if made else ""
        many = f"{_plural(len(self.objects), 'object')} of {_plural(photos, 'photo')}"
        return f"{many}: {', '.join(parts)}; {self.seconds:.1f} s{rate}"


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """Return the latest state of every object in the folder of a batch, as `Batch.table` does.

    An object that a later run skipped counts as done. Raises InputError where there is no manifest.
    """
    path = Path(folder).expanduser() / MANIFEST
    if not path.is_file():
        raise InputError(f"there is no {MANIFEST} in {folder}; give the folder of a batch")
    latest: dict[tuple[Any, Any], dict[str, Any]] = {}
    for record in read_records(path):
        key = record.get("image"), record.get("mask")
        if record.get("kind") == "object" and not (
            record.get("status") == "skipped" and key in latest
        ):
            latest[key] = record
    return _table(latest.values())


def _plural(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _table(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    rows = [{name: record.get(name) for name in COLUMNS} for record in records]
    for row in rows:
        row["files"] = [file["path"] for file in row["files"] or []]
    return pd.DataFrame(rows, columns=list(COLUMNS))
