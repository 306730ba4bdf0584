"""The files that objects are made from, carried to where there is no such folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam3d_nb.work.inputs import CAMERA, mask_files, read_input


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
    paths = {photo, *mask_files(folder), *(folder / name for name in CAMERA)}
    contents = {path.name: read_input(path) for path in sorted(paths) if path.is_file()}
    return PhotoFiles(str(folder), photo.name, contents)
