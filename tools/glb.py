"""Writes one mesh as a plain binary glTF file: one node, one primitive, one material."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FLOAT, USHORT, UINT = 5126, 5123, 5125
VERTEX_DATA, INDEX_DATA = 34962, 34963


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles with normals, and either vertex colors or a texture.

    vertices, normals: (V, 3); faces: (F, 3); colors: (V, 3) linear in [0, 1];
    uv: (V, 2), origin at the texture's upper left corner; jpeg: the texture file, sRGB.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    uv: np.ndarray | None = None
    jpeg: bytes | None = None


class _Buffer:
    """The binary chunk and the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        entry: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self.data),
            "byteLength": len(content),
        }
        if target is not None:
            entry["target"] = target
        self.data += content + b"\0" * (-len(content) % 4)
        self.views.append(entry)
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, component: int, kind: str, **extra: Any) -> int:
        target = INDEX_DATA if kind == "SCALAR" else VERTEX_DATA
        entry = {
            "bufferView": self.view(np.ascontiguousarray(array).tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        self.accessors.append(entry | extra)
        return len(self.accessors) - 1


def write_glb(path: Path, name: str, surface: Surface) -> None:
    """Write `surface` to `path`. Colors go to COLOR_0 (linear), a texture to the base color."""
    buffer = _Buffer()
    positions = surface.vertices.astype("<f4")
    normals = surface.normals / np.linalg.norm(surface.normals, axis=1, keepdims=True)
    low, high = positions.min(0).tolist(), positions.max(0).tolist()
    attributes = {
        "POSITION": buffer.accessor(positions, FLOAT, "VEC3", min=low, max=high),
        "NORMAL": buffer.accessor(normals.astype("<f4"), FLOAT, "VEC3"),
    }
    material: dict[str, Any] = {"name": name, "doubleSided": True}
    shading: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
    document: dict[str, Any] = {}
    if surface.uv is not None and surface.jpeg is not None:
        attributes["TEXCOORD_0"] = buffer.accessor(surface.uv.astype("<f4"), FLOAT, "VEC2")
        document["images"] = [{"bufferView": buffer.view(surface.jpeg), "mimeType": "image/jpeg"}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987}]
        document["textures"] = [{"source": 0, "sampler": 0}]
        shading["baseColorTexture"] = {"index": 0}
    elif surface.colors is not None:
        rgba = np.concatenate([surface.colors, np.ones((len(positions), 1))], axis=1)
        whole = np.rint(np.clip(rgba, 0, 1) * 65535).astype("<u2")
        attributes["COLOR_0"] = buffer.accessor(whole, USHORT, "VEC4", normalized=True)
    short = len(positions) < 65535
    corners = surface.faces.reshape(-1).astype("<u2" if short else "<u4")
    indices = buffer.accessor(corners, USHORT if short else UINT, "SCALAR")
    document |= {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [
            {
                "name": name,
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0}],
            }
        ],
        "materials": [material | {"pbrMetallicRoughness": shading}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    _write_chunks(path, document, bytes(buffer.data))


def _write_chunks(path: Path, document: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    path.write_bytes(
        struct.pack("<4sII", b"glTF", 2, total)
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )
