"""Reads the CC0 furniture library: catalog, OBJ geometry and MTL materials.

The library is `BlendSwap-CC-0.sh3f` of Debian's package `sweethome3d-furniture`: a zip of OBJ
models with MTL files and textures, and a catalog with every model's real size.

Model frame: x right, y up, z towards the viewer when the model is seen from the front; metres;
the origin is in the middle of the footprint, on the floor.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from stage import Color

CREASE = np.cos(np.radians(40.0))
"""Neighboring faces that meet at less than 40 degrees are shaded as one smooth surface."""


@dataclass(frozen=True)
class Material:
    """One MTL material. color: linear RGB in [0, 1]; texture: path inside the library."""

    name: str
    color: Color = (0.5, 0.5, 0.5)
    specular: float = 0.0
    opacity: float = 1.0
    texture: str | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """Triangles of one model in the model frame.

    vertices, normals: (V, 3) float64; uv: (V, 2) float64, origin at the texture's lower left;
    faces: (F, 3) int; face_material: (F,) index into `materials`.
    """

    key: str
    title: str
    creator: str
    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    face_material: np.ndarray
    materials: tuple[Material, ...]


def linear(srgb: np.ndarray) -> np.ndarray:
    """Return linear light for sRGB values in [0, 1]."""
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


class Library:
    """The furniture library; `library["teddyBear"]` is a `Model` of real size."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.entries = self._catalog()

    def _catalog(self) -> dict[str, dict[str, str]]:
        text = self._zip.read("PluginFurnitureCatalog.properties").decode("latin-1")
        by_number: dict[str, dict[str, str]] = {}
        for name, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\r?$", text, re.MULTILINE):
            by_number.setdefault(number, {})[name] = value
        return {posixpath.basename(e["model"])[:-4]: e for e in by_number.values()}

    def image(self, path: str) -> Image.Image:
        """Return a texture as RGB; transparent texels lie on white."""
        picture = Image.open(io.BytesIO(self._zip.read(path))).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert(
            "RGB"
        )

    def __getitem__(self, key: str) -> Model:
        entry = self.entries[key]
        path = entry["model"].lstrip("/")
        points, texcoords, corners, face_material, names = parse_obj(self._text(path))
        materials = self._materials(path, names)
        points = self._to_size(points, np.unique(corners[:, :, 0]), entry)
        faces = corners[:, :, 0]  # (F, 3)
        keep = clean_faces(points, faces)
        corners, face_material = corners[keep], face_material[keep]
        normals = corner_normals(points, corners[:, :, 0])  # (F, 3, 3)
        return _indexed(key, entry, points, texcoords, corners, normals, face_material, materials)

    def _text(self, path: str) -> str:
        return self._zip.read(path).decode("latin-1")

    def _to_size(self, points: np.ndarray, used: np.ndarray, entry: dict[str, str]) -> np.ndarray:
        turn = np.array([float(x) for x in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()])
        points = points @ turn.reshape(3, 3).T
        low, high = points[used].min(0), points[used].max(0)
        size = np.array([float(entry[k]) for k in ("width", "height", "depth")]) / 100
        points = (points - (low + high) / 2) * (size / np.maximum(high - low, 1e-9))
        return points + np.array([0, size[1] / 2, 0])

    def _materials(self, path: str, names: list[str]) -> tuple[Material, ...]:
        folder = posixpath.dirname(path)
        found: dict[str, Material] = {}
        for library in re.findall(r"^mtllib\s+(.*?)\s*$", self._text(path), re.MULTILINE):
            found |= parse_mtl(self._text(posixpath.join(folder, library)), folder)
        files = set(self._zip.namelist())  # a few models name textures that are not there
        return tuple(
            replace(m, texture=m.texture if m.texture in files else None)
            for m in (found.get(name, Material(name)) for name in names)
        )


def parse_obj(
    text: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return points (P, 3), texture coordinates (T, 2), triangle corners (F, 3, 2) as indices
    into both (-1 where there is no texture coordinate), material numbers (F,) and names."""
    points: list[list[float]] = []
    texcoords: list[list[float]] = []
    corners: list[tuple[tuple[int, int], ...]] = []
    face_material: list[int] = []
    names: list[str] = []
    current = -1
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "v":
            points.append([float(x) for x in rest.split()[:3]])
        elif word == "vt":
            texcoords.append([float(x) for x in rest.split()[:2]])
        elif word == "usemtl":
            if rest.strip() not in names:
                names.append(rest.strip())
            current = names.index(rest.strip())
        elif word == "f":
            polygon = [_corner(c, len(points), len(texcoords)) for c in rest.split()]
            for second, third in pairwise(polygon[1:]):
                corners.append((polygon[0], second, third))
                face_material.append(current)
    if -1 in face_material:
        names.append("")
    material = np.array(face_material)
    material[material < 0] = len(names) - 1
    uv = np.array(texcoords).reshape(-1, 2)
    return np.array(points), uv, np.array(corners), material, names


def _corner(text: str, points: int, texcoords: int) -> tuple[int, int]:
    parts = text.split("/")
    position = int(parts[0])
    position += points if position < 0 else -1
    if len(parts) < 2 or not parts[1]:
        return position, -1
    uv = int(parts[1])
    return position, uv + texcoords if uv < 0 else uv - 1


def parse_mtl(text: str, folder: str) -> dict[str, Material]:
    """Return materials by name. MTL colors are display sRGB here and are made linear."""
    result: dict[str, Material] = {}
    for block in re.split(r"^newmtl\s+", text, flags=re.MULTILINE)[1:]:
        lines = [line.strip() for line in block.splitlines()]
        fields = dict(line.split(maxsplit=1) for line in lines[1:] if len(line.split()) > 1)
        color = linear(np.array([float(x) for x in fields.get("Kd", "0.5 0.5 0.5").split()[:3]]))
        specular = np.mean([float(x) for x in fields.get("Ks", "0").split()[:3]])
        texture = fields.get("map_Kd")
        result[lines[0]] = Material(
            lines[0],
            (float(color[0]), float(color[1]), float(color[2])),
            float(specular),
            float(fields.get("d", "1")),
            posixpath.join(folder, texture) if texture else None,
        )
    return result


def clean_faces(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return a mask (F,) of the faces that are neither degenerate nor doubles of an earlier one."""
    _, welded = np.unique(np.round(points, 6), axis=0, return_inverse=True)
    sorted_faces = np.sort(welded.reshape(-1)[faces], axis=1)
    a, b, c = points[faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    first = np.zeros(len(faces), bool)
    first[np.unique(sorted_faces, axis=0, return_index=True)[1]] = True
    return first & (area > 1e-10)


def corner_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (F, 3, 3) of every face's corners, smooth except over creases."""
    _, welded = np.unique(np.round(points, 5), axis=0, return_inverse=True)
    a, b, c = points[faces].transpose(1, 0, 2)
    weighted = np.cross(b - a, c - a)  # (F, 3), length is twice the area
    unit = weighted / np.linalg.norm(weighted, axis=1, keepdims=True)
    vertex = welded.reshape(-1)[faces].reshape(-1)  # (3F,)
    order = np.argsort(vertex, kind="stable")
    face_of = np.repeat(np.arange(len(faces)), 3)[order]
    start = np.searchsorted(vertex[order], vertex[order], side="left")
    stop = np.searchsorted(vertex[order], vertex[order], side="right")
    total = np.zeros((len(order), 3))
    for step in range(int((stop - start).max())):  # the step-th face around every corner's vertex
        at = np.flatnonzero(start + step < stop)
        other = face_of[start[at] + step]
        near = (unit[face_of[at]] * unit[other]).sum(1) > CREASE
        total[at[near]] += weighted[other[near]]
    result = np.empty_like(total)
    result[order] = total / np.linalg.norm(total, axis=1, keepdims=True)
    return result.reshape(-1, 3, 3)


def _indexed(
    key: str,
    entry: dict[str, str],
    points: np.ndarray,
    texcoords: np.ndarray,
    corners: np.ndarray,  # (F, 3, 2)
    normals: np.ndarray,  # (F, 3, 3)
    face_material: np.ndarray,
    materials: tuple[Material, ...],
) -> Model:
    """Merge corners that agree in position, normal and texture coordinate into vertices."""
    texcoords = np.concatenate([texcoords, np.zeros((1, 2))])  # index -1 reads the zero
    position = points[corners[:, :, 0].reshape(-1)]
    uv = texcoords[corners[:, :, 1].reshape(-1)]
    normal = normals.reshape(-1, 3)
    rows = np.concatenate([np.round(position, 6), np.round(normal, 3), np.round(uv, 5)], axis=1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return Model(
        key,
        entry["name"],
        entry.get("creator", ""),
        position[first],
        normal[first],
        uv[first],
        inverse.reshape(-1, 3),
        face_material,
        materials,
    )
