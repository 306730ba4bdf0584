"""A mesh as the bytes of OBJ, PLY and STL files. None of them can hold pose or provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl

from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.mesh.glb import encode_png
from sam3d_nb.mesh.mesh import Mesh


def encode_obj(mesh: Mesh, name: str, comment: str, path: Path) -> dict[Path, bytes]:
    """Return the OBJ file for `path`, after the texture and the material that it refers to, if any.

    Without a texture, sRGB vertex colors follow the positions, as most programs read them.
    """
    name = "_".join(name.split()) or "object"  # a blank ends a name
    vertices, pattern = mesh.vertices, "v %.7g %.7g %.7g\n"
    if mesh.texture is None and mesh.colors is not None:
        vertices = np.concatenate([vertices, to_srgb(mesh.colors.clip(0, 1))], axis=1)
        pattern = "v %.7g %.7g %.7g %.4f %.4f %.4f\n"
    head, corner = f"# {comment}\n", "%d//%d"
    body = [_lines(pattern, vertices), _lines("vn %.4f %.4f %.4f\n", mesh.normals)]
    files: dict[Path, bytes] = {}
    if mesh.texture is not None and mesh.uv is not None:
        stem = "_".join(path.stem.split())
        picture, material = (path.with_name(stem + end) for end in ("_texture.png", ".mtl"))
        files[picture] = encode_png(mesh.texture)
        files[material] = (
            f"newmtl {name}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n"
        ).encode()
        head += f"mtllib {material.name}\n"
        corner = "%d/%d/%d"
        lower_left = mesh.uv * (1, -1) + (0, 1)  # OBJ counts v upwards
        body += [_lines("vt %.7g %.7g\n", lower_left), f"usemtl {name}\n"]
    indices = np.repeat(mesh.faces + 1, corner.count("%d"), axis=1)
    body.append(_lines(f"f {corner} {corner} {corner}\n", indices))
    files[path] = (head + f"o {name}\n" + "".join(body)).encode()
    return files


def _lines(pattern: str, rows: np.ndarray) -> str:
    """Return one formatted line a row."""
    return (pattern * len(rows)) % tuple(rows.reshape(-1).tolist())


def encode_ply(mesh: Mesh, comment: str) -> bytes:
    """Return a binary PLY file with normals and, where there are any, sRGB vertex colors."""
    shape = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, process=False, validate=False
    )
    colors = vertex_colors(mesh)
    if colors is not None:
        levels = np.round(to_srgb(colors) * 255).astype(np.uint8)
        shape.visual = trimesh.visual.ColorVisuals(shape, vertex_colors=levels)
    content = export_ply(shape, vertex_normal=True)
    line = f"comment {comment}\nelement vertex".encode()
    return content.replace(b"element vertex", line, 1)


def encode_stl(mesh: Mesh, comment: str) -> bytes:
    """Return a binary STL file; `comment` stands in its header of 80 bytes."""
    content = export_stl(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False))
    return comment.encode()[:80].ljust(80, b"\0") + content[80:]


def vertex_colors(mesh: Mesh) -> np.ndarray | None:
    """Return linear vertex colors (V, 3) in [0, 1]: the texture's at each vertex, else its own."""
    if mesh.texture is None or mesh.uv is None:
        return None if mesh.colors is None else mesh.colors.clip(0, 1)
    size = np.array(mesh.texture.shape[1::-1])
    column, row = np.floor(mesh.uv * size).astype(int).clip(0, size - 1).T
    return to_linear(mesh.texture[row, column] / 255)
