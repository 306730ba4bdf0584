"""Reading a GLB file into a `Mesh`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.mesh.glb import pack_glb, unpack_glb
from sam3d_nb.mesh.mesh import Mesh

if TYPE_CHECKING:
    import trimesh

EXACT_COLORS = "_EXACT_COLORS"
MAX_BYTES = 500_000_000


def load_mesh(path: str | Path) -> Mesh:
    """Return all triangles of the GLB file at `path`, node transforms applied.

    One textured part stays textured; several parts become one mesh whose vertex colors are
    sampled from their colors, materials and textures. Raises InputError where the file is
    missing, damaged, larger than MAX_BYTES or without triangles.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no mesh file {path}; check the path")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES // 1_000_000} MB; simplify it first")
    try:
        # From memory and without a resolver, so that a file cannot name other files.
        content = _with_float_colors(path.read_bytes())
        scene = trimesh.load_scene(BytesIO(content), file_type="glb", process=False)
        parts = [p for p in scene.dump() if isinstance(p, trimesh.Trimesh) and len(p.faces)]
    except MemoryError:
        raise
    except Exception as error:  # the reader raises many kinds for damaged files
        raise InputError(f"{path} is no GLB file that can be read ({error})") from error
    if not parts:
        raise InputError(f"{path} holds no triangles")
    if len(parts) == 1:
        textured = _textured(parts[0])
        if textured is not None:
            return textured
    offsets = np.cumsum([0, *(len(p.vertices) for p in parts[:-1])])
    faces = [p.faces + offset for p, offset in zip(parts, offsets, strict=True)]
    colors = [_linear_colors(p) for p in parts]
    return Mesh(
        np.concatenate([p.vertices for p in parts]),
        np.concatenate(faces),
        colors=None if all(c is None for c in colors) else _fill_white(colors, parts),
    )


def _with_float_colors(content: bytes) -> bytes:
    """Return the GLB with its vertex colors twice: the reader keeps `COLOR_0` in 8 bits only."""
    document, binary = unpack_glb(content)
    for mesh in document.get("meshes", []):
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            if "COLOR_0" in attributes:
                attributes[EXACT_COLORS] = attributes["COLOR_0"]
    return pack_glb(document, binary)


def _textured(part: trimesh.Trimesh) -> Mesh | None:
    texture, uv, tint = _texture(part), getattr(part.visual, "uv", None), _vertex_factor(part)
    if texture is None or uv is None or (tint is not None and (tint != 1).any()):
        return None
    upper_left = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)  # the reader flips v
    return Mesh(part.vertices, part.faces, uv=upper_left, texture=texture)


def _texture(part: trimesh.Trimesh) -> np.ndarray | None:
    """Return the base color texture (h, w, 3) uint8 sRGB, times the base color factor."""
    picture = _material(part, "baseColorTexture")
    if picture is None:
        return None
    texture = np.asarray(picture.convert("RGB"))
    factor = _factor(part)
    if factor is None or (factor == 1).all():
        return texture
    return np.round(to_srgb(to_linear(texture / 255) * factor) * 255).astype(np.uint8)


def _material(part: trimesh.Trimesh, key: str) -> Any:
    return getattr(getattr(part.visual, "material", None), key, None)


def _factor(part: trimesh.Trimesh) -> np.ndarray | None:
    """Return the base color factor (3,), linear in [0, 1], None without one."""
    factor = _material(part, "baseColorFactor")
    if factor is None:
        return None
    values = np.asarray(factor)
    return values[:3] / (255 if values.dtype.kind in "iu" else 1)


def _linear_colors(part: trimesh.Trimesh) -> np.ndarray | None:
    """Return linear vertex colors (V, 3) in [0, 1], None where the part has no color at all.

    As glTF has it: vertex color times base color factor times texture.
    """
    factors: list[np.ndarray | None] = [_vertex_factor(part)]
    texture, uv = _texture(part), getattr(part.visual, "uv", None)
    if texture is not None and uv is not None:
        height, width = texture.shape[:2]
        u = np.floor(uv[:, 0] % 1 * width).astype(int).clip(0, width - 1)
        v = np.floor((1 - uv[:, 1]) % 1 * height).astype(int).clip(0, height - 1)
        factors.append(to_linear(texture[v, u] / 255))
    else:
        factors.append(_factor(part))
    known = [f for f in factors if f is not None]
    if not known:
        return None
    return np.broadcast_to(np.prod(np.broadcast_arrays(*known), axis=0), (len(part.vertices), 3))


def _vertex_factor(part: trimesh.Trimesh) -> np.ndarray | None:
    """Return what `COLOR_0` says (V, 3), linear in [0, 1], None without it."""
    if EXACT_COLORS not in part.vertex_attributes:
        return None
    values = np.asarray(part.vertex_attributes[EXACT_COLORS])[:, :3]
    return values if values.dtype.kind == "f" else values / np.iinfo(values.dtype).max


def _fill_white(colors: list[np.ndarray | None], parts: list[trimesh.Trimesh]) -> np.ndarray:
    filled = [
        np.ones((len(p.vertices), 3)) if c is None else c
        for c, p in zip(colors, parts, strict=True)
    ]
    return np.concatenate(filled)
