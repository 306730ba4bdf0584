"""The files that objects are made from, and hashes that tell whether they have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sam3d_nb.errors import InputError
from sam3d_nb.work.items import Item

CAMERA = ("pointmap.npz", "example.json")


class InputHashes:
    """Hashes of what objects are made from; what those of one photo share is read once."""

    def __init__(self) -> None:
        self._photo: Path | None = None
        self._shared = ""

    def of(self, item: Item) -> str:
        """Return a hash of what one object is made from: photo, mask, point map, camera, names.

        Raises InputError where a file cannot be read.
        """
        masks = [path for path in mask_files(item.path.parent) if int(path.stem) == item.mask]
        if item.path != self._photo:
            self._shared, self._photo = _hash_shared(item.path), item.path
        digest = hashlib.sha256(self._shared.encode())
        for path in masks:
            digest.update(hashlib.sha256(read_input(path)).digest())
        return digest.hexdigest()


def _hash_shared(photo: Path) -> str:
    """Return a hash of the photo and its camera."""
    digest = hashlib.sha256()
    for path in (photo, *(photo.parent / name for name in CAMERA)):
        if path == photo or path.is_file():
            role = "image" if path == photo else path.name
            digest.update(f"{role}\0".encode() + hashlib.sha256(read_input(path)).digest())
    return digest.hexdigest()


def mask_files(folder: Path) -> list[Path]:
    """Return the files of the masks in a folder; raises InputError where it cannot be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be looked into: {error.strerror or error}") from error
    return [path for path in paths if path.suffix.lower() == ".png" and path.stem.isdecimal()]


def read_input(path: Path) -> bytes:
    """Return the bytes of a file; raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
