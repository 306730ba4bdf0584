"""Objects to files and back: GLB with everything, OBJ, PLY and STL for other tools.

Every format holds the mesh in the object frame: x right, y up, z towards the viewer, inside the
unit cube around the origin. A GLB file also keeps name, pose and provenance without timings, in the
`extras` of its node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from sam3d_nb.errors import InputError
from sam3d_nb.files import write_files
from sam3d_nb.frames import Pose
from sam3d_nb.mesh.formats import encode_obj, encode_ply, encode_stl
from sam3d_nb.mesh.glb import Node, encode_glb, unpack_glb
from sam3d_nb.mesh.load import load_mesh
from sam3d_nb.object3d import Object3D, Provenance

FRAME = "x right, y up, z towards the viewer; inside the unit cube around the origin"
COMMENT = f"sam3d_nb; {FRAME}"
POSE_FRAME = "camera (OpenCV): x right, y down, z forward, metres where known"
POSE_RULE = "p_camera = R(rotation w x y z) (scale * p) + translation"


def save_object(result: Object3D, path: Path, *, overwrite: bool = False) -> Path:
    """Write `result` in the format that the suffix of `path` names; returns the path.

    Missing folders are made. Raises InputError for another suffix or a mesh without triangles,
    OutputError where a file exists and `overwrite` is false, or cannot be written.
    """
    path = Path(path)
    encode = _ENCODERS.get(path.suffix.lower())
    if encode is None:
        known = ", ".join(sorted(_ENCODERS))
        raise InputError(f"{path.name!r} names no format that can be written; use {known}")
    if not len(result.mesh.faces):
        raise InputError(f"the mesh of {result.name!r} has no triangles; there is nothing to save")
    write_files(encode(result, path), overwrite=overwrite)
    return path


def load_object(path: str | Path) -> Object3D:
    """Return the object in a GLB file that `Object3D.save` wrote; gaussians are not in it.

    Raises InputError where the file is missing, damaged, or without pose and provenance.
    """
    extras = read_extras(path)
    missing = {"name", "pose", "provenance"} - set(extras)
    if missing:
        raise InputError(
            f"{path} says nothing about {', '.join(sorted(missing))}, so it was not saved from an "
            "Object3D; load_mesh reads its mesh"
        )
    try:
        pose = Pose(**_known(Pose, extras["pose"]))
        provenance = Provenance(**_known(Provenance, extras["provenance"]))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} has a damaged pose or provenance: {error}") from error
    return Object3D(load_mesh(path), pose, provenance, name=str(extras["name"]))


def read_extras(path: str | Path) -> dict[str, Any]:
    """Return the notes of the first node that has any in the GLB file at `path`, else {}.

    Raises InputError where the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path")
    document, _ = unpack_glb(path.read_bytes())
    nodes = document.get("nodes", [])
    notes = [node.get("extras") for node in nodes if isinstance(node, dict)]
    return next((n for n in notes if n and isinstance(n, dict)), {})


def describe(result: Object3D) -> dict[str, Any]:
    """Return name, pose, provenance and frames as plain data, for JSON and a GLB's `extras`.

    What is unknown is left out, since Blender refuses a property that is null, and so are timings:
    equal objects give equal files.
    """
    known = asdict(replace(result.provenance, timings={})).items()
    provenance = {k: v for k, v in known if v is not None and k != "timings"}
    pose = asdict(result.pose) | {"rule": POSE_RULE, "into": POSE_FRAME}
    return {"name": result.name, "frame": FRAME, "pose": pose, "provenance": provenance}


def _known(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of a dataclass; later versions may add some."""
    names = {f.name for f in fields(cls)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in names}


def _glb(result: Object3D, path: Path) -> dict[Path, bytes]:
    return {path: encode_glb([Node(result.mesh, result.name, extras=describe(result))])}


def _obj(result: Object3D, path: Path) -> dict[Path, bytes]:
    return encode_obj(result.mesh, result.name, COMMENT, path)


def _ply(result: Object3D, path: Path) -> dict[Path, bytes]:
    return {path: encode_ply(result.mesh, COMMENT)}


def _stl(result: Object3D, path: Path) -> dict[Path, bytes]:
    return {path: encode_stl(result.mesh, COMMENT)}


_ENCODERS: dict[str, Callable[[Object3D, Path], dict[Path, bytes]]] = {
    ".glb": _glb,
    ".obj": _obj,
    ".ply": _ply,
    ".stl": _stl,
}
