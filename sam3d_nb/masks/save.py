"""Picked masks as an example folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.examples import IMAGE_SUFFIXES, Example, load_example
from sam3d_nb.files import write_files
from sam3d_nb.images import check_mask

KEPT = ("title", "source", "license")
"""What is true of the photo whatever is picked on it."""


def save_example(
    folder: str | Path,
    image: np.ndarray,
    masks: Mapping[int, np.ndarray],
    names: Mapping[int, str],
    source: Example | None = None,
    *,
    overwrite: bool = False,
) -> Example:
    """Write photo and masks as an example folder and return it, loaded again.

    image: (H, W, 3) uint8. masks: index to (H, W) bool, grey in the files. source: the example
    that the photo is from, whose point map, camera, source and license are kept. overwrite:
    replace the photo and all masks of an example that is there.

    Raises InputError where there is no mask or one is too small, OutputError where an example is
    there already, where it has true meshes, which would belong to other masks, and where the
    folder cannot be written.
    """
    target = Path(folder).expanduser()
    if not masks:
        raise InputError("nothing is picked yet, so there is nothing to save")
    for index, mask in masks.items():
        check_mask(mask, (image.shape[0], image.shape[1]), f"{names[index]} (mask {index})")
    stale = _files_of_example(target)
    if stale and not overwrite:
        raise OutputError(
            f"{target} holds an example; choose another folder or pass overwrite=True"
        )
    if (target / "meshes").exists():
        raise OutputError(
            f"{target} has true meshes, which belong to its own masks; choose another folder"
        )
    contents = {target / "image.png": _png(image)}
    contents |= {target / f"{i}.png": _png(mask) for i, mask in masks.items()}
    info = _info(masks, names, source)
    if source is not None and source.pointmap is not None:
        contents[target / "pointmap.npz"] = _arrays(source.pointmap, source.intrinsics)
    contents[target / "example.json"] = json.dumps(info, indent=2, ensure_ascii=False).encode()
    write_files(contents, overwrite=True)
    for path in stale - set(contents):
        path.unlink(missing_ok=True)
    return load_example(target)


def holds_example(folder: str | Path) -> bool:
    """Say whether saving to `folder` would replace an example."""
    return bool(_files_of_example(Path(folder).expanduser()))


def _files_of_example(folder: Path) -> set[Path]:
    """Return the files in `folder` that a new example replaces."""
    if not folder.is_dir():
        return set()
    names = {f"image{suffix}" for suffix in IMAGE_SUFFIXES} | {"pointmap.npz", "example.json"}
    return {
        path
        for path in folder.iterdir()
        if path.name in names or (path.suffix.lower() == ".png" and path.stem.isdecimal())
    }


def _info(
    masks: Mapping[int, np.ndarray], names: Mapping[int, str], source: Example | None
) -> dict[str, Any]:
    objects = [
        {"index": index, "name": names[index], "pixels": int(mask.sum())}
        for index, mask in masks.items()
    ]
    known = {} if source is None else {k: source.info[k] for k in KEPT if k in source.info}
    camera = {}
    if source is not None and source.intrinsics is not None:
        camera = {"camera": {"K": source.intrinsics.tolist()}}
    return {**known, "objects": objects, **camera, "frame": "opencv"}


def _png(pixels: np.ndarray) -> bytes:
    """Return `pixels`, uint8 RGB or a bool mask, as PNG: quick, since photos may be large."""
    buffer = BytesIO()
    values = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    Image.fromarray(values).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _arrays(points: np.ndarray, intrinsics: np.ndarray | None) -> bytes:
    buffer = BytesIO()
    if intrinsics is None:
        np.savez_compressed(buffer, points=points)
    else:
        np.savez_compressed(buffer, points=points, K=intrinsics)
    return buffer.getvalue()
