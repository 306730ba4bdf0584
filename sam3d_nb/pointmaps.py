"""Reading a point map from an .npz file that may come from anywhere."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.images import fits_hint


def read_pointmap(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `points` (H, W, 3) float32, camera frame, NaN where unknown, and `K` (3, 3) or None.

    size: (H, W) of the photo. Infinite values become NaN. Shapes and types are checked from the
    headers before anything is decompressed, and pickled objects are refused. Raises InputError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
            if "points" not in members:
                raise InputError(f"{path} needs an array 'points' but has {sorted(members)}")
            _check_header(archive, "points", (*size, 3), path)
            if "K" in members:
                _check_header(archive, "K", (3, 3), path)
        with np.load(path, allow_pickle=False) as arrays:
            points = arrays["points"].astype(np.float32)
            intrinsics = arrays["K"].astype(np.float64) if "K" in members else None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for damaged files
        raise InputError(
            f"{path} is no .npz file that can be read ({error}); write it with numpy.savez"
        ) from error
    known = np.isfinite(points).all(-1)
    if not known.any():
        raise InputError(f"{path} has no finite point; remove the file to do without a point map")
    points[~known] = np.nan
    return points, intrinsics


def _check_header(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], path: Path) -> None:
    with archive.open(f"{name}.npy") as stream:
        found, dtype = _read_header(stream)
    if dtype.hasobject:
        raise InputError(f"{path} holds pickled objects, which could run a program; refused")
    if dtype.kind not in "fiu":
        raise InputError(f"'{name}' in {path} needs numbers but holds {dtype}")
    if found != shape:
        hint = f"; {fits_hint(found, shape)}" if name == "points" else ""
        raise InputError(f"'{name}' in {path} needs shape {shape} but has {found}{hint}")


def _read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, _, dtype = read(stream)
    return shape, dtype
