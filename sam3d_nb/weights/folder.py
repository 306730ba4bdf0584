"""The folder of weights on this machine: where it is, what lies in it, and its SHA-256 manifests.

One folder a model, `sam-3d-objects` and `sam3`, each with its `manifest.json`; `downloads` holds
what is not converted yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam3d_nb.errors import WeightsError
from sam3d_nb.files import write_file

SAM3D = "sam-3d-objects"
SAM3 = "sam3"
DOWNLOADS = "downloads"
MANIFEST = "manifest.json"
FORMAT = 1
MAX_JSON = 2**20  # bytes
FOLDER_VARIABLE = "SAM3D_NB_WEIGHTS"


def weights_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of all weights: `folder`, else $SAM3D_NB_WEIGHTS, else the user's cache."""
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sam3d_nb"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What belongs to a model. files: by path below the model's folder, with forward slashes."""

    model: str
    files: Mapping[str, FileRecord]
    sha256: str  # of the manifest file itself

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(record.bytes for record in self.files.values())


def check_name(name: str) -> str:
    """Return `name` if it is a path that stays below the folder it belongs to.

    Raises WeightsError for an absolute path, `..`, a backslash, a colon or a control character.
    """
    parts = name.split("/")
    bad = not name.isprintable() or any(mark in name for mark in "\\:")
    if bad or any(part in ("", ".", "..") for part in parts):
        raise WeightsError(f"refused: {name[:120]!r} is no plain file name below its folder")
    return name


def shown(text: str, limit: int = 120) -> str:
    """Return a name or message from a file as it may be printed: short, without control codes."""
    whole = text.isprintable() and len(text) <= limit
    return text if whole else ascii(text[:limit])


def read_json(path: Path) -> Any:
    """Return the content of a small JSON file; raises WeightsError."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > MAX_JSON:
            raise WeightsError(
                f"{path} is refused: it is no plain file of at most {MAX_JSON} bytes"
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_file(path, text.encode(), overwrite=True)


def write_manifest(folder: Path, model: str, files: Mapping[str, FileRecord]) -> None:
    """Write the manifest of the files in `folder`."""
    table = {name: {"bytes": r.bytes, "sha256": r.sha256} for name, r in files.items()}
    write_json(folder / MANIFEST, {"format": FORMAT, "model": model, "files": table})


def read_manifest(folder: Path, model: str) -> Manifest:
    """Return the manifest in `folder` after checking that it is one of `model`.

    Raises WeightsError where it is missing, damaged, of another version, or names a file outside.
    """
    path = folder / MANIFEST
    data = read_json(path)
    try:
        version, named, table = data["format"], data["model"], data["files"]
        records = {
            check_name(name): FileRecord(record["bytes"], record["sha256"])
            for name, record in table.items()
        }
        whole = all(
            type(r.bytes) is int and r.bytes >= 0 and len(bytes.fromhex(r.sha256)) == 32
            for r in records.values()
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: it is no manifest") from error
    if not whole or named != model or version != FORMAT:
        raise WeightsError(
            f"{path} is damaged or not for {model} (format {FORMAT}): it says format {version!r}, "
            f"model {named!r}"
        )
    return Manifest(model, records, hashlib.sha256(path.read_bytes()).hexdigest())


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file of the manifest is there, plain and of its size; quick.

    Raises WeightsError.
    """
    for name, record in manifest.files.items():
        path = folder / name
        try:
            status = path.lstat()
        except OSError as error:
            raise WeightsError(f"{path} is missing") from error
        if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(folder.resolve()):
            raise WeightsError(f"{path} is refused: it is a link or no plain file")
        if status.st_size != record.bytes:
            raise WeightsError(f"{path} has {status.st_size} bytes instead of {record.bytes}")


def check_hashes(
    folder: Path, manifest: Manifest, on_bytes: Callable[[int], None] = lambda count: None
) -> None:
    """Check the SHA-256 of every file of the manifest; reads all of it. Raises WeightsError."""
    check_files(folder, manifest)
    for name, record in manifest.files.items():
        found = hash_file(folder / name, on_bytes)
        if found != record.sha256:
            raise WeightsError(
                f"{folder / name} has changed: its SHA-256 is {found[:12]}… instead of "
                f"{record.sha256[:12]}…"
            )


def hash_file(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Return the SHA-256 of a file; `on_bytes` is told of every block read.

    Raises WeightsError where it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(8 * 2**20):
                digest.update(block)
                on_bytes(len(block))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which `folder` lies or would lie."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(place).free


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all plain files below `folder`; links are not followed."""
    if folder.is_symlink() or not folder.is_dir():
        return 0
    return sum(
        Path(place, name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
        if not Path(place, name).is_symlink()
    )


def remove_tree(folder: Path) -> int:
    """Delete a folder of ours and what is in it, never what links in it point to.

    Returns the bytes freed. Raises WeightsError where it is a link or cannot be deleted.
    """
    if not os.path.lexists(folder):
        return 0
    if folder.is_symlink() or not folder.is_dir():
        raise WeightsError(f"{folder} is a link or no folder; delete it yourself if you want to")
    freed = tree_bytes(folder)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise WeightsError(f"cannot delete {folder}: {error.strerror or error}") from error
    return freed
