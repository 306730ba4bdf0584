"""A scene as a file: GLB with a named node an object, or one mesh of all in OBJ, PLY and STL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.files import write_files
from sam3d_nb.frames import CAMERA, OPENGL_CAMERA, pose_between
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.export import describe
from sam3d_nb.mesh.formats import encode_obj, encode_ply, encode_stl, vertex_colors
from sam3d_nb.mesh.glb import Node, Viewpoint, encode_glb
from sam3d_nb.scene.scene import Scene

FRAME = "x right, y up, z towards the viewer; meters where known"
COMMENT = f"sam3d_nb; {FRAME}"
WHITE = (1.0, 1.0, 1.0)


def save_scene(scene: Scene, path: Path, *, overwrite: bool = False) -> Path:
    """Write `scene` in the format that the suffix of `path` names; see `Scene.save`."""
    encode = _ENCODERS.get(path.suffix.lower())
    if encode is None:
        known = ", ".join(sorted(_ENCODERS))
        raise InputError(f"{path.name!r} names no format that can be written; use {known}")
    if not any(len(thing.mesh.faces) for thing in scene.objects):
        raise InputError(
            f"none of the {len(scene)} objects has triangles; there is nothing to save"
        )
    write_files(encode(scene, path), overwrite=overwrite)
    return path


def unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return `names` with _2, _3 ... behind those that came before or are in `taken`."""
    used, result = set(taken), []
    for name in names:
        unique, number = name, 1
        while unique in used:
            number += 1
            unique = f"{name}_{number}"
        used.add(unique)
        result.append(unique)
    return result


def merged_mesh(scene: Scene) -> Mesh:
    """Return all objects as one mesh in the world; linear vertex colors, white where unknown."""
    meshes = [mesh for mesh in scene.meshes() if len(mesh.faces)]
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)]
    known = [vertex_colors(mesh) for mesh in meshes]
    colors = [
        np.broadcast_to(WHITE, mesh.vertices.shape) if color is None else color
        for mesh, color in zip(meshes, known, strict=True)
    ]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate(faces),
        colors=None if all(color is None for color in known) else np.concatenate(colors),
    )


def _glb(scene: Scene, path: Path) -> dict[Path, bytes]:
    viewpoint = _viewpoint(scene)
    taken = [] if viewpoint is None else [viewpoint.name]
    names = unique_names([thing.name for thing in scene.objects], taken)
    nodes = [
        Node(thing.mesh, name, pose, describe(thing))
        for thing, name, pose in zip(scene.objects, names, scene.poses, strict=True)
        if len(thing.mesh.faces)
    ]
    return {path: encode_glb(nodes, viewpoint, _about(scene))}


def _viewpoint(scene: Scene) -> Viewpoint | None:
    """Return the photo's camera, without what GLB cannot hold: a principal point off center."""
    if scene.intrinsics is None or scene.size is None:
        return None
    height, width = scene.size
    focal_x, focal_y = scene.intrinsics[0, 0], scene.intrinsics[1, 1]
    return Viewpoint(
        scene.world @ pose_between(OPENGL_CAMERA, CAMERA),
        float(2 * np.arctan(height / 2 / focal_y)),
        float(width / focal_x * focal_y / height),
    )


def _about(scene: Scene) -> dict[str, Any]:
    """Return how the world was found, as plain data; what is unknown is left out."""
    about: dict[str, Any] = {
        "frame": FRAME,
        "realign": scene.realign,
        "world": asdict(scene.world) | {"from": "camera (OpenCV): x right, y down, z forward"},
    }
    if scene.intrinsics is not None:
        about["K"] = scene.intrinsics.tolist()
    if scene.size is not None:
        about["image_height"], about["image_width"] = scene.size
    if scene.failures:
        about["failures"] = [
            {k: v for k, v in asdict(failure).items() if v is not None and k != "trace"}
            for failure in scene.failures
        ]
    return about


def _obj(scene: Scene, path: Path) -> dict[Path, bytes]:
    return encode_obj(merged_mesh(scene), "scene", COMMENT, path)


def _ply(scene: Scene, path: Path) -> dict[Path, bytes]:
    return {path: encode_ply(merged_mesh(scene), COMMENT)}


def _stl(scene: Scene, path: Path) -> dict[Path, bytes]:
    return {path: encode_stl(merged_mesh(scene), COMMENT)}


_ENCODERS: dict[str, Callable[[Scene, Path], dict[Path, bytes]]] = {
    ".glb": _glb,
    ".obj": _obj,
    ".ply": _ply,
    ".stl": _stl,
}
