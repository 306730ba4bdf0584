"""The folder of a batch: the files of every object, and the manifest that says what they are.

```
manifest.jsonl              one record a line, see docs/batches.md
coffee/coffee_0.glb         mask 0 of the photo in the folder `coffee`
coffee/coffee_0_gaussians.ply
```
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sam3d_nb.errors import OutputError
from sam3d_nb.files import write_files
from sam3d_nb.runs import plain_name
from sam3d_nb.work.items import Item
from sam3d_nb.work.journal import Journal

MANIFEST = "manifest.jsonl"
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""Names of what `write_files` leaves when it is killed."""
Record = dict[str, Any]


class BatchFolder:
    """Where objects go as soon as they are made, and where those of earlier runs are found.

    Use it in a `with` block. Raises OutputError where the folder cannot be written, or another
    process is working in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder).expanduser()
        self.journal = Journal(self.path / MANIFEST)
        self.is_new = not self.journal.path.exists()
        self._made: dict[tuple[str, int], Record] = {}

    def __enter__(self) -> BatchFolder:
        self.journal.__enter__()
        for record in self.journal.records:
            self._note(record)
        if not self.is_new:
            for path in self.path.glob("*/.*.tmp"):
                if TEMPORARY.fullmatch(path.name):  # of a run that was killed
                    path.unlink(missing_ok=True)
        return self

    def __exit__(self, *error: Any) -> None:
        self.journal.__exit__(*error)

    def append(self, record: Mapping[str, Any]) -> None:
        """Put a record into the manifest; raises OutputError."""
        self.journal.append(record)
        self._note(dict(record))

    def made(self, item: Item) -> Record | None:
        """Return the record of an earlier run whose files of `item` are all there."""
        record = self._made.get((item.image, item.mask))
        if record is None or not record["files"]:
            return None
        places = [(self._place(item, file["path"]), file["bytes"]) for file in record["files"]]
        whole = all(path.is_file() and path.stat().st_size == size for path, size in places)
        return record if whole else None

    def stranger(self, item: Item, formats: Iterable[str]) -> Path | None:
        """Return a file that `item` would replace and that no batch has made."""
        if not self.is_new:
            return None
        paths = [self._place(item, f"{stem(item)}.{kind}") for kind in formats]
        return next((path for path in paths if path.exists()), None)

    def put(self, item: Item, contents: Mapping[str, bytes]) -> list[Record]:
        """Write the files of an object, in place of earlier ones; return what the manifest says.

        From its first renamed file on, the record of what is replaced does not count any more.
        """
        targets = {self._place(item, name): content for name, content in contents.items()}
        before = self._made.get((item.image, item.mask))
        if before is not None:
            self.append({"kind": "replacing", "image": item.image, "mask": item.mask})
        write_files(targets, overwrite=True)
        for file in before["files"] if before else []:
            old = self._place(item, file["path"])
            if old not in targets:
                with suppress(OSError):
                    old.unlink(missing_ok=True)
        return [
            {
                "path": path.relative_to(self.path).as_posix(),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in targets.items()
        ]

    def _place(self, item: Item, name: str) -> Path:
        """Return where a file of `item` lies, whatever folder a damaged record names."""
        folder = item.image if item.image.strip(".") else plain_name(item.image)
        return self.path / folder / Path(name).name

    def _note(self, record: Record) -> None:
        """Remember the latest files of each object; raises OutputError for a strange manifest."""
        try:
            kind, status = record["kind"], record.get("status")
            if kind == "object" and status == "done":
                key = (str(record["image"]), int(record["mask"]))
                str(record["key"])
                for file in record["files"]:
                    Path(file["path"]), int(file["bytes"])
                self._made[key] = record
            elif kind == "replacing":
                self._made.pop((str(record["image"]), int(record["mask"])), None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(
                f"{self.journal.path} is no manifest of a batch ({type(error).__name__}: {error}); "
                "choose another folder"
            ) from error


def stem(item: Item) -> str:
    """Return what the files of `item` are named after."""
    return f"{plain_name(item.image)}_{item.mask}"
