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


def hash_inputs(item: Item) -> str:
    """Return a hash of what one object is made from: photo, mask, point map, camera, names.

    Raises InputError where a file cannot be read.
    """
    folder = item.path.parent
    masks = [path for path in _masks(folder) if int(path.stem) == item.mask]
    digest = hashlib.sha256()
    for role, path in [("image", item.path), *(("mask", mask) for mask in masks)]:
        digest.update(f"{role}\0".encode() + hashlib.sha256(_read(path)).digest())
    for path in (folder / name for name in CAMERA):
        if path.is_file():
            digest.update(f"{path.name}\0".encode() + hashlib.sha256(_read(path)).digest())
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
