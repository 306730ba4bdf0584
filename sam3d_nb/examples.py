"""Example folders: a photo, its masks and, where known, point map and ground truth.

```
coffee/
  image.png        the photo (or .jpg, .webp, .tif ...)
  0.png 1.png ...  masks: object in the alpha channel, or grey, white on black
  pointmap.npz     optional: points (H, W, 3) in the camera frame, K (3, 3) in pixels
  example.json     optional: names, licenses, camera
  meshes/0.glb     optional: ground truth of object 0 in the camera frame
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.images import check_mask, read_image, read_mask
from sam3d_nb.mesh import Mesh

PACKAGE = Path(__file__).resolve().parent
IMAGE_STEM = "image"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")
MAX_JSON_BYTES = 10_000_000


@dataclass(frozen=True, eq=False)
class Example:
    """One photo with masks, read from a folder.

    image: (H, W, 3) uint8 RGB. masks: index to (H, W) bool. pointmap: (H, W, 3) float32 in the
    camera frame (OpenCV), NaN where unknown, or None. intrinsics: K (3, 3) in pixels, or None.
    info: what `example.json` says. photo: name of the photo's file, without its suffix.
    """

    folder: Path
    image: np.ndarray
    masks: Mapping[int, np.ndarray]
    pointmap: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)
    photo: str = IMAGE_STEM

    @property
    def name(self) -> str:
        """Name of the folder, or of the photo where no mask makes an example of the folder."""
        return self.folder.name if self.masks or self.photo == IMAGE_STEM else self.photo

    @cached_property
    def names(self) -> dict[int, str]:
        """Name of every masked object, `object N` where the example gives none."""
        given = {int(o["index"]): str(o.get("name", "")) for o in self.info.get("objects", [])}
        return {i: given.get(i) or f"object {i}" for i in self.masks}

    def mask(self, index: int) -> np.ndarray:
        """Return mask `index` (H, W) bool; raises InputError that says which exist.

        A mask that is empty, tiny or of another size than the photo raises InputError too.
        """
        if index not in self.masks:
            raise InputError(f"there is no mask {index} {self._place}; {_exist(self.masks)}")
        mask = self.masks[index]
        check_mask(mask, (self.image.shape[0], self.image.shape[1]), f"mask {index}")
        return mask

    def readable_masks(
        self, indices: Iterable[int] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield index and mask (H, W) bool, by default of all, but those that are damaged.

        A damaged mask cannot be read, or has another size than the photo.
        """
        for index in self.masks if indices is None else indices:
            with suppress(InputError):
                mask = self.masks[index]
                if mask.shape == self.image.shape[:2]:
                    yield index, mask

    @property
    def _place(self) -> str:
        return f"in {self.folder}"

    def true_mesh(self, index: int) -> Mesh | None:
        """Return the ground-truth mesh of object `index` in the camera frame, None without one."""
        path = self.folder / "meshes" / f"{index}.glb"
        if not path.is_file():
            return None
        from sam3d_nb.mesh.load import load_mesh

        return load_mesh(path)

    def with_masks(
        self,
        masks: Mapping[int, np.ndarray] | Sequence[np.ndarray] | np.ndarray,
        names: Mapping[int, str] | None = None,
    ) -> Example:
        """Return the photo with these masks (H, W) bool in place of its own.

        masks: by index, or several, numbered from 0. names: of the objects, by index. True meshes
        belong to the example's own masks, so the new one has none. Masks are checked when they are
        asked for.
        """
        masks = masks if isinstance(masks, Mapping) else dict(enumerate(masks))
        objects = [{"index": index, "name": name} for index, name in (names or {}).items()]
        same = {one.name: getattr(self, one.name) for one in fields(Example)}
        info = self.info | {"objects": objects}
        return MaskedExample(**(same | {"masks": dict(masks), "info": info}))

    def without_pointmap(self) -> Example:
        """Return the photo and its masks alone, without point map and camera."""
        return replace(self, pointmap=None, intrinsics=None)

    def __repr__(self) -> str:
        """Say what is there instead of printing pixels."""
        height, width = self.image.shape[:2]
        extras = ["point map"] * (self.pointmap is not None) + ["camera"] * (
            self.intrinsics is not None
        )
        masks = "1 mask" if len(self.masks) == 1 else f"{len(self.masks)} masks"
        parts = [f"{width} x {height} pixels", masks, *extras]
        return f"Example({self.name!r}: {', '.join(parts)})"


@dataclass(frozen=True, eq=False, repr=False)
class MaskedExample(Example):
    """A photo with other masks than its own, for which no true meshes are known."""

    @property
    def name(self) -> str:
        """Name of the photo, or of the folder whose photo is called `image`."""
        return self.folder.name if self.photo == IMAGE_STEM else self.photo

    @property
    def _place(self) -> str:
        return f"among those picked or found on {self.name}"

    def true_mesh(self, index: int) -> None:
        """Return None: the meshes in the folder belong to the masks there."""


class MaskFiles(Mapping[int, np.ndarray]):
    """Masks of a folder by index, each read when it is first asked for and then kept."""

    def __init__(self, paths: Mapping[int, Path]) -> None:
        self.paths = dict(sorted(paths.items()))
        self._read: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._read:
            self._read[index] = read_mask(self.paths[index])
        return self._read[index]

    def __contains__(self, index: object) -> bool:
        return index in self.paths

    def __iter__(self) -> Iterator[int]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def data_folder() -> Path:
    """Return the folder of the examples that come with the package."""
    installed = PACKAGE / "data"
    return installed if installed.is_dir() else PACKAGE.parent / "data"


def list_examples(folder: str | Path | None = None) -> list[str]:
    """Return what can be given to `load_example`, in alphabetical order.

    Without `folder` these are the names of the examples that come with the package, otherwise the
    paths of the example folders in `folder`; names that start with `_` or `.` are left out.
    Raises InputError where `folder` is missing.
    """
    root = data_folder() if folder is None else Path(folder)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; check the path")
    found = sorted(p for p in root.iterdir() if p.name[0] not in "_." and _find_image(p))
    return [p.name if folder is None else str(p) for p in found]


def load_example(path: str | Path) -> Example:
    """Read an example: a folder, the photo in a folder, or the name of one in `list_examples()`.

    Masks are read when they are asked for, ground truth is read by `Example.true_mesh`. Raises
    InputError where something is missing, damaged, or does not fit the photo.
    """
    from sam3d_nb.pointmaps import read_pointmap

    image_path = photo_path(path)
    folder = image_path.parent
    image = read_image(image_path)
    info = _read_info(folder / "example.json")
    pointmap, intrinsics = None, info.get("camera", {}).get("K")
    if (folder / "pointmap.npz").is_file():
        size = (image.shape[0], image.shape[1])
        pointmap, stored = read_pointmap(folder / "pointmap.npz", size)
        intrinsics = intrinsics if stored is None else stored
    if intrinsics is not None:
        intrinsics = check_intrinsics(intrinsics, folder)
    masks = MaskFiles(_mask_paths(folder, exclude=image_path))
    return Example(folder, image, masks, pointmap, intrinsics, info, image_path.stem)


def photo_path(path: str | Path) -> Path:
    """Return the absolute path of the photo that `load_example` reads for `path`.

    Raises InputError where there is none.
    """
    try:
        return _resolve(path)
    except OSError as error:
        raise InputError(f"{path} cannot be looked into: {error.strerror or error}") from error


def list_masks(path: str | Path) -> list[int]:
    """Return the numbers of the masks beside a photo, without reading any; raises InputError."""
    photo = photo_path(path)
    return sorted(_mask_paths(photo.parent, exclude=photo))


def check_intrinsics(values: Any, source: Path) -> np.ndarray:
    """Return pixel intrinsics K (3, 3) float64; raises InputError where they are no such thing."""
    try:
        matrix = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the camera's K in {source} is no matrix of numbers") from error
    valid = matrix.shape == (3, 3) and bool(np.isfinite(matrix).all())
    if not valid or min(matrix[0, 0], matrix[1, 1]) <= 0 or not np.allclose(matrix[2], (0, 0, 1)):
        raise InputError(
            f"the camera's K in {source} needs the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]], in "
            f"pixels and with positive focal lengths, but is {matrix.tolist()}"
        )
    return matrix


def _resolve(path: str | Path) -> Path:
    """Return the path of the photo that `path` means."""
    given = Path(path).expanduser()
    if given.is_file():
        return given.absolute()
    packaged = data_folder() / given
    by_name = not given.exists() and len(given.parts) == 1 and packaged.is_dir()
    folder = packaged if by_name else given
    if not folder.is_dir():
        if len(given.parts) > 1 or given.suffix.lower() in IMAGE_SUFFIXES:
            raise InputError(f"there is no file or folder {given}; check the path")
        names = ", ".join(list_examples()) if data_folder().is_dir() else "none"
        raise InputError(
            f"there is no example {given}: give a folder, a photo, or a name that comes with the "
            f"package ({names})"
        )
    image = _find_image(folder)
    if image is None:
        raise InputError(f"{folder} holds no photo; name it image.png or image.jpg")
    return image.absolute()


def _find_image(folder: Path) -> Path | None:
    candidates = (folder / f"{IMAGE_STEM}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _mask_paths(folder: Path, exclude: Path) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        is_mask = path.suffix.lower() == ".png" and path.stem.isdecimal() and path.is_file()
        if not is_mask or path.name == exclude.name:
            continue
        if int(path.stem) in paths:
            other = paths[int(path.stem)].name
            raise InputError(f"{other} and {path.name} in {folder} are both mask {int(path.stem)}")
        paths[int(path.stem)] = path
    return paths


def _exist(masks: Mapping[int, np.ndarray]) -> str:
    if not masks:
        return "none exist: save one as 0.png beside the photo, or have them found (mask -2)"
    indices = sorted(masks)
    if indices == list(range(indices[0], indices[-1] + 1)) and len(indices) > 2:
        return f"masks {indices[0]} to {indices[-1]} exist"
    return f"these exist: {', '.join(map(str, indices))}"


def _read_info(path: Path) -> dict[str, Any]:
    """Return what `example.json` says; unknown fields stay, missing ones are no error."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} has more than {MAX_JSON_BYTES // 1_000_000} MB")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read: {error}") from error
    if not isinstance(info, dict):
        raise InputError(f"{path} needs an object {{...}} at the top, not {type(info).__name__}")
    objects, camera = info.get("objects", []), info.get("camera", {})
    if not isinstance(objects, list) or not isinstance(camera, dict):
        raise InputError(f"{path}: 'objects' must be a list and 'camera' an object")
    for entry in objects:
        index = entry.get("index") if isinstance(entry, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise InputError(f"{path}: every entry of 'objects' needs a whole number 'index'")
    if info.get("frame", "opencv") != "opencv":
        raise InputError(f"{path}: frame {info['frame']!r} is unknown; only 'opencv' can be read")
    return info
