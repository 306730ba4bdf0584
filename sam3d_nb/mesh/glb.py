"""Binary glTF 2.0: meshes with names, poses and notes into one file, and the notes back out.

Written by ourselves because vertex colors must stay linear floats and notes must lie in the
nodes' `extras`: three.js hands those over as `userData`, Blender as custom properties.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from sam3d_nb import __version__
from sam3d_nb.errors import InputError
from sam3d_nb.frames import Pose
from sam3d_nb.mesh.mesh import Mesh

MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
FLOAT, UINT16, UINT32 = 5126, 5123, 5125
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP, CLAMP = 9729, 9987, 33071
MAX_JSON_BYTES = 64_000_000


@dataclass(frozen=True, eq=False)
class Node:
    """One named mesh of a file. pose: carries it into the file's frame, None where it lies there.

    extras: plain data that is kept with the node.
    """

    mesh: Mesh
    name: str
    pose: Pose | None = None
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Viewpoint:
    """A perspective camera of a file, which looks along its -z axis with y up.

    pose: carries its frame into the file's. field_of_view: vertical, in radians. aspect: width
    over height of the picture.
    """

    pose: Pose
    field_of_view: float
    aspect: float
    name: str = "camera"


def encode_glb(
    nodes: Sequence[Node],
    viewpoint: Viewpoint | None = None,
    extras: dict[str, Any] | None = None,
) -> bytes:
    """Return the bytes of a GLB file that shows `nodes`.

    extras: plain data about the whole. Textures are embedded as PNG; a texture takes the place of
    vertex colors. Raises InputError where a mesh has no triangles.
    """
    writer = _Writer()
    for node in nodes:
        writer.add(node)
    if viewpoint is not None:
        writer.look_from(viewpoint)
    return writer.finish(extras or {})


class _Writer:
    """Collects the lists of a glTF document and the binary data that they point into."""

    def __init__(self) -> None:
        self.binary: list[bytes | memoryview] = []
        self.length = 0
        self.lists: dict[str, list[dict[str, Any]]] = {}

    def put(self, name: str, entry: dict[str, Any]) -> int:
        """Append to one of the document's lists; returns the index."""
        entries = self.lists.setdefault(name, [])
        entries.append(entry)
        return len(entries) - 1

    def view(self, data: bytes | np.ndarray, target: int | None = None) -> int:
        """Append binary data at a multiple of 4 bytes; returns the buffer view's index."""
        flat = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        entry = {"buffer": 0, "byteOffset": self.length, "byteLength": len(flat)}
        end = b"\0" * (-len(flat) % 4)
        self.binary += [flat, end]
        self.length += len(flat) + len(end)
        return self.put("bufferViews", entry if target is None else entry | {"target": target})

    def attribute(self, values: np.ndarray, bounds: bool = False) -> int:
        """Append a float vector a vertex (V, 2) or (V, 3); returns the accessor's index."""
        values = np.ascontiguousarray(values, dtype="<f4")
        entry = {
            "bufferView": self.view(values, VERTEX_BUFFER),
            "componentType": FLOAT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            columns = values.T  # one by one: NumPy is slow along the first axis of narrow arrays
            entry |= {name: [float(getattr(c, name)()) for c in columns] for name in ("min", "max")}
        return self.put("accessors", entry)

    def indices(self, faces: np.ndarray, vertex_count: int) -> int:
        """Append the faces (F, 3); returns the accessor's index."""
        small = vertex_count < 65_535  # the largest index of a type has a meaning of its own
        values = np.ascontiguousarray(faces, dtype="<u2" if small else "<u4")
        entry = {
            "bufferView": self.view(values, INDEX_BUFFER),
            "componentType": UINT16 if small else UINT32,
            "count": values.size,
            "type": "SCALAR",
        }
        return self.put("accessors", entry)

    def material(self, mesh: Mesh, name: str) -> int:
        """Append a rough, non-metallic material; returns its index."""
        surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
        if mesh.texture is not None:
            image = {"bufferView": self.view(encode_png(mesh.texture)), "mimeType": "image/png"}
            filters = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP}
            sampler = filters | {"wrapS": CLAMP, "wrapT": CLAMP}
            texture = {
                "source": self.put("images", image),
                "sampler": self.put("samplers", sampler),
            }
            surface["baseColorTexture"] = {"index": self.put("textures", texture)}
        return self.put("materials", {"name": name, "pbrMetallicRoughness": surface})

    def add(self, node: Node) -> None:
        """Append a node with its mesh."""
        mesh = node.mesh
        a, b, c = mesh.faces.T
        whole = (a != b) & (b != c) & (c != a)
        faces = mesh.faces if whole.all() else mesh.faces.compress(whole, axis=0)
        if not len(faces):
            raise InputError(
                f"the mesh of {node.name!r} has no triangles; there is nothing to save"
            )
        attributes = {
            "POSITION": self.attribute(mesh.vertices, bounds=True),
            "NORMAL": self.attribute(mesh.normals),
        }
        if mesh.texture is not None and mesh.uv is not None:
            attributes["TEXCOORD_0"] = self.attribute(mesh.uv)
        elif mesh.colors is not None:
            attributes["COLOR_0"] = self.attribute(mesh.colors.clip(0, 1))
        primitive = {
            "attributes": attributes,
            "indices": self.indices(faces, len(mesh.vertices)),
            "material": self.material(mesh, node.name),
        }
        entry: dict[str, Any] = {
            "name": node.name,
            "mesh": self.put("meshes", {"name": node.name, "primitives": [primitive]}),
        }
        if node.pose is not None:
            entry |= _transform(node.pose)
        if node.extras:
            entry["extras"] = node.extras
        self.put("nodes", entry)

    def look_from(self, viewpoint: Viewpoint) -> None:
        """Append a node with a camera."""
        lens = {"yfov": viewpoint.field_of_view, "aspectRatio": viewpoint.aspect, "znear": 0.01}
        camera = {"name": viewpoint.name, "type": "perspective", "perspective": lens}
        number = self.put("cameras", camera)
        place = _transform(viewpoint.pose)
        self.put("nodes", {"name": viewpoint.name, "camera": number} | place)

    def finish(self, extras: dict[str, Any]) -> bytes:
        """Return the file."""
        scene = {"nodes": list(range(len(self.lists["nodes"])))}
        document = {
            "asset": {"version": "2.0", "generator": f"sam3d_nb {__version__}"},
            "scene": 0,
            "scenes": [scene | ({"extras": extras} if extras else {})],
            **self.lists,
            "buffers": [{"byteLength": self.length}],
        }
        return pack_glb(document, *self.binary)


def _transform(pose: Pose) -> dict[str, list[float]]:
    """Return a pose as the transform of a node."""
    w, x, y, z = pose.rotation
    return {
        "rotation": [x, y, z, w],
        "translation": list(pose.translation),
        "scale": list(pose.scale),
    }


def encode_png(texture: np.ndarray) -> bytes:
    """Return a texture (h, w, 3) uint8 as the bytes of a PNG file."""
    buffer = BytesIO()
    Image.fromarray(texture).save(buffer, "PNG")
    return buffer.getvalue()


def pack_glb(document: dict[str, Any], *binary: bytes | memoryview) -> bytes:
    """Return the GLB file of a glTF document and its binary buffer, which may come in parts."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    length = sum(map(len, binary))
    end = b"\0" * (-length % 4)
    count = length + len(end)
    header = struct.pack("<III", MAGIC, 2, 12 + 8 + len(text) + 8 + count)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text
    return b"".join((header, chunks, struct.pack("<II", count, BINARY_CHUNK), *binary, end))


def unpack_glb(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the glTF document and the binary buffer of a GLB file's bytes.

    Raises InputError where they are not GLB 2.0 or are damaged.
    """
    if len(content) < 20:
        raise InputError(f"a GLB file has at least 20 bytes but this one has {len(content)}")
    magic, version, length, text_length, kind = struct.unpack_from("<IIIII", content)
    if magic != MAGIC or version != 2 or kind != JSON_CHUNK:
        raise InputError("this is no GLB file of version 2")
    if length > len(content) or 20 + text_length > length or text_length > MAX_JSON_BYTES:
        raise InputError(f"the GLB file is cut off or damaged: it has {len(content)} bytes")
    try:
        document = json.loads(content[20 : 20 + text_length])
    except (ValueError, RecursionError) as error:
        raise InputError(f"the GLB file's description cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise InputError("the GLB file's description is no object {...}")
    return document, content[20 + text_length + 8 : length]
