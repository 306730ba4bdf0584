"""Writing files so that a reader sees the old content or the new one, never a half."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sam3d_nb.errors import OutputError

Content = bytes | Callable[[BinaryIO], None]
"""What a file is to hold, or what writes that into the open file, which saves copies in memory."""


def write_file(path: str | Path, content: Content, *, overwrite: bool = False) -> Path:
    """Write `content` to `path` atomically, making missing folders; returns the path.

    Raises OutputError where the file exists and `overwrite` is false, or cannot be written.
    """
    write_files({Path(path): content}, overwrite=overwrite)
    return Path(path)


def write_files(contents: Mapping[Path, Content], *, overwrite: bool = False) -> None:
    """Write files that belong together: all are on disk before the first gets its name.

    They are renamed in the order given, so name last the one that refers to the others. On any
    failure or interruption the temporary files are removed, and so are files that did not exist
    before.

    Raises OutputError where a file exists and `overwrite` is false, or one cannot be written.
    """
    targets = list(contents)
    _refuse_existing(targets, overwrite)
    temporary: dict[Path, Path] = {}
    created: list[Path] = []
    try:
        for target, content in contents.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary[target] = target.with_name(f".{secrets.token_hex(8)}.tmp")
            _write_flushed(temporary[target], content)
        _refuse_existing(targets, overwrite)
        for target in targets:
            if not target.exists():
                created.append(target)
            os.replace(temporary[target], target)
    except BaseException as error:
        for leftover in [*temporary.values(), *created]:
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            folder = targets[0].parent
            reason = error.strerror or str(error)
            raise OutputError(
                f"cannot write {targets[0].name} into {folder}: {reason}; choose another folder"
            ) from error
        raise
    for folder in {target.parent for target in targets}:
        _flush_folder(folder)


def _refuse_existing(targets: list[Path], overwrite: bool) -> None:
    for target in targets:
        if target.is_dir():
            raise OutputError(f"{target} is a folder; give the name of a file in it")
        if not overwrite and os.path.lexists(target):
            raise OutputError(f"{target} exists; choose another name or pass overwrite=True")


def _write_flushed(path: Path, content: Content) -> None:
    with open(path, "xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut, where the system can do that."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
