"""The files that objects are made from: hashed, and carried to where there is no such folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sam3d_nb.errors import InputError
from sam3d_nb.work.items import Item

CAMERA = ("pointmap.npz", "example.json")


@dataclass(frozen=True)
class PhotoFiles:
    """A photo, its masks, point map and camera as bytes by file name. image: name of the photo."""

    folder: str
    image: str
    contents: dict[str, bytes]

    def unpack(self, root: Path) -> Path:
        """Write the files into the empty folder `root`; return the photo's path."""
        for name, content in self.contents.items():
            (root / name).write_bytes(content)
        return root / self.image


def read_photo(photo: Path) -> PhotoFiles:
    """Return the files of the photo at `photo`; raises InputError where one cannot be read."""
    folder = photo.parent
    paths = {photo, *_masks(folder), *(folder / name for name in CAMERA)}
    contents = {path.name: _read(path) for path in sorted(paths) if path.is_file()}
    return PhotoFiles(str(folder), photo.name, contents)


class InputHashes:
    """Hashes of what objects are made from; what those of one photo share is read once."""

    def __init__(self) -> None:
        self._photo: Path | None = None
        self._shared = ""

    def of(self, item: Item) -> str:
        """Return a hash of what one object is made from: photo, mask, point map, camera, names.

        Raises InputError where a file cannot be read.
        """
        masks = [path for path in _masks(item.path.parent) if int(path.stem) == item.mask]
        if item.path != self._photo:
            self._shared, self._photo = _hash_shared(item.path), item.path
        digest = hashlib.sha256(self._shared.encode())
        for path in masks:
            digest.update(hashlib.sha256(_read(path)).digest())
        return digest.hexdigest()


def _hash_shared(photo: Path) -> str:
    """Return a hash of the photo and its camera."""
    digest = hashlib.sha256()
    for path in (photo, *(photo.parent / name for name in CAMERA)):
        if path == photo or path.is_file():
            role = "image" if path == photo else path.name
            digest.update(f"{role}\0".encode() + hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()


def _masks(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be looked into: {error.strerror or error}") from error
    return [path for path in paths if path.suffix.lower() == ".png" and path.stem.isdecimal()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
