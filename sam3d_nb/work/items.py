"""The list of work: every mask of every photo, found without reading a single picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sam3d_nb.errors import InputError
from sam3d_nb.examples import list_examples, list_masks, photo_path

Images = str | Path | Iterable[str | Path] | None


@dataclass(frozen=True)
class Item:
    """One object to work on. path: what `load_example` takes; image: the name of its folder."""

    path: Path
    image: str
    mask: int

    @property
    def name(self) -> str:
        """The object's name in tables, such as `0_kid_box`."""
        return f"{self.mask}_{self.image}"


def list_work(images: Images = None, masks_per_photo: int | None = None) -> list[Item]:
    """Return one item for every mask of every photo, by folder and mask number.

    images: a folder of example folders, of which names that begin with `_` or `.` are left out; or
    an example, or several, each by its path or the name of one that comes with the package; None
    means all of those. masks_per_photo: take only the first so many masks of each.

    Raises InputError where a path leads nowhere, two folders have the same name, two photos share
    one, or there is no mask at all.
    """
    if masks_per_photo is not None and masks_per_photo < 1:
        raise InputError(f"masks_per_photo is a number from 1 on, but got {masks_per_photo!r}")
    photos: dict[str, Path] = {}
    for given in _paths(images):
        photo = photo_path(given)
        name = photo.parent.name
        other = photos.setdefault(name, photo)
        if other.resolve() == photo.resolve():
            continue
        if other.parent.resolve() == photo.parent.resolve():
            raise InputError(f"{other} and {photo} have the same masks beside them; give one")
        raise InputError(
            f"{other.parent} and {photo.parent} have the same name, which results are named after; "
            "rename one"
        )
    items = [
        Item(photo, name, mask)
        for name, photo in photos.items()
        for mask in list_masks(photo)[:masks_per_photo]
    ]
    if not items:
        raise InputError(
            f"there is nothing to do: {len(photos)} examples and no mask; an example is a folder "
            "with image.png and masks 0.png, 1.png ..."
        )
    return items


def _paths(images: Images) -> list[str | Path]:
    if images is None:
        return list(list_examples())
    if not isinstance(images, str | Path):
        return list(images)
    inside = list_examples(images) if Path(images).expanduser().is_dir() else []
    return list(inside) or [images]  # an example itself, or `photo_path` says what is missing
