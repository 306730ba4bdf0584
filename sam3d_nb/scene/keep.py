"""Finished objects on disk, so that a run that was stopped goes on where it stood.

An object lies in one file whose name is a hash of all that decides it: the pixels of photo and
mask, point map, intrinsics, seed, model, version, weights and options. Arrays and poses come back
bit for bit. Nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np

from sam3d_nb import __version__
from sam3d_nb.errors import OutputError
from sam3d_nb.files import write_file
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.pipeline import Model
from sam3d_nb.request import Request
from sam3d_nb.splats import Gaussians

LAYOUT = 1
"""Version of the files; others are not read."""
Decided = Mapping[str, str | int | float | bool]


class Keys:
    """Names of kept files: hashes of all that decides what they hold; an object's name does not.

    shared: the request of all objects of a photo, but for the mask; it is hashed once.
    """

    def __init__(self, model: Model, decided: Decided, shared: Request) -> None:
        self._photo = {
            "layout": LAYOUT,
            "model": [model.name, model.version, __version__],
            "options": dict(decided),
            "image": shared.image_sha256(),
        }
        self._camera = {
            "pointmap": "none" if shared.pointmap is None else _hash(shared.pointmap),
            "intrinsics": _hash(shared.intrinsics),
            "seed": shared.seed,
        }

    def object(self, request: Request) -> str:
        """Return the name of the object with the mask of `request`."""
        return _key(self._photo | self._camera | {"mask": request.mask_sha256()})

    def pointmap(self) -> str:
        """Return the name of the point map that the model estimates."""
        return _key(self._photo | {"result": "point map"})


def _key(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _hash(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Keep:
    """A folder of finished objects.

    resume: find those of earlier runs; else they are only replaced. Raises OutputError where the
    folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, *, resume: bool = True) -> None:
        self.folder = Path(folder).expanduser()
        self.resume = resume
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OutputError(
                f"cannot keep objects in {self.folder}: {error.strerror or error}; choose another "
                "folder"
            ) from error

    def put_object(self, key: str, made: Object3D) -> None:
        """Write `made` under `key`; raises OutputError where that cannot be written."""
        arrays = {"intrinsics": made.intrinsics}
        for prefix, holder in (("mesh", made.mesh), ("gaussians", made.gaussians)):
            if holder is not None:
                arrays |= {f"{prefix}.{f.name}": getattr(holder, f.name) for f in fields(holder)}
        notes = {"name": made.name, "pose": asdict(made.pose)}
        self._put(key, notes | {"provenance": asdict(made.provenance)}, arrays)

    def get_object(self, key: str) -> Object3D | None:
        """Return what was kept under `key`, None where nothing was.

        A damaged file counts as nothing, and a warning says so.
        """
        return self._get(key, _object)

    def put_pointmap(self, key: str, points: np.ndarray) -> None:
        """Write a point map (H, W, 3) under `key`; raises OutputError."""
        self._put(key, {}, {"points": points})

    def get_pointmap(self, key: str) -> np.ndarray | None:
        """Return the point map (H, W, 3) that was kept under `key`, as `get_object` does."""
        return self._get(key, lambda notes, arrays: arrays["points"])

    def clear(self) -> None:
        """Remove the kept files."""
        for path in self.folder.glob("*.npz"):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _put(
        self, key: str, notes: dict[str, Any], arrays: Mapping[str, np.ndarray | None]
    ) -> None:
        text = json.dumps(notes | {"key": key}).encode()
        known: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
        known["notes"] = np.frombuffer(text, np.uint8)
        write_file(self._path(key), lambda file: _write_arrays(file, known), overwrite=True)

    def _get(self, key: str, build: Any) -> Any:
        path = self._path(key)
        if not self.resume or not path.is_file():
            return None
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            notes = json.loads(arrays.pop("notes").tobytes())
            if notes.pop("key") != key:
                raise ValueError("it holds another object")
            return build(notes, arrays)
        except MemoryError:
            raise
        except Exception as error:  # the readers raise many kinds for damaged files
            warnings.warn(
                f"{path} is damaged ({error}), so that its object is made again", stacklevel=2
            )
            return None


def _write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an archive as `np.savez` does, which leaves it open where the disk is full."""
    with ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _object(notes: dict[str, Any], arrays: dict[str, np.ndarray]) -> Object3D:
    groups: dict[str, dict[str, np.ndarray]] = {"mesh": {}, "gaussians": {}}
    for name, array in arrays.items():
        prefix, _, field = name.partition(".")
        if field:
            groups[prefix][field] = array
    pose = {name: tuple(values) for name, values in notes["pose"].items()}
    return Object3D(
        mesh=Mesh(**groups["mesh"]),
        pose=Pose(**pose),
        provenance=Provenance(**notes["provenance"]),
        name=notes["name"],
        gaussians=Gaussians(**groups["gaussians"]) if groups["gaussians"] else None,
        intrinsics=arrays.get("intrinsics"),
    )
