"""Ground-truth meshes: an item's triangles in the camera frame, with one set of colors."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import xatlas
from furniture import Material, Model, linear
from glb import Surface
from PIL import Image
from scipy.ndimage import distance_transform_edt
from stage import Color

Paint = tuple[Color, np.ndarray | None]
"""Linear color of a material, or its texture (h, w, 3) uint8 sRGB, which replaces the color."""


def surface_of(
    model: Model, matrix: np.ndarray, paint: Callable[[Material], Paint], texture_size: int
) -> Surface:
    """Return `model` carried by `matrix` (4, 4), a rotation with one scale, and colored.

    Models without textures get vertex colors; all others one baked texture for the whole mesh.
    """
    vertices = model.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    normals = model.normals @ matrix[:3, :3].T
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    looks = [paint(material) for material in model.materials]
    used = set(model.face_material.tolist())
    if any(texture is not None for number, (_, texture) in enumerate(looks) if number in used):
        return _baked(model, vertices, normals, looks, texture_size)
    per_face = np.array([color for color, _ in looks])[model.face_material]  # (F, 3)
    corner = model.faces.reshape(-1)
    return _merged(vertices[corner], normals[corner], np.repeat(per_face, 3, axis=0), None)


def _merged(
    positions: np.ndarray, normals: np.ndarray, values: np.ndarray, jpeg: bytes | None
) -> Surface:
    """Merge equal corners (3F, ...); values: colors (3F, 3) or, with a jpeg, uv (3F, 2)."""
    rows = np.concatenate(
        [np.round(positions, 6), np.round(normals, 3), np.round(values, 6)], axis=1
    )
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1, 3)
    colors, uv = (None, values[first]) if jpeg else (values[first], None)
    return Surface(positions[first], normals[first], faces, colors, uv, jpeg)


def _baked(
    model: Model,
    vertices: np.ndarray,
    normals: np.ndarray,
    looks: list[Paint],
    size: int,
) -> Surface:
    """Unwrap the mesh once more, without overlaps, and copy all colors into one texture."""
    _, first, welded = np.unique(
        np.round(vertices, 6), axis=0, return_index=True, return_inverse=True
    )
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices[first].astype(np.float32), welded.reshape(-1)[model.faces])
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = size, 2, True
    atlas.generate(pack_options=pack)
    _, indices, coordinates = atlas[0]
    # xatlas keeps the order of the faces and of their corners
    corner_uv = coordinates[indices].astype(np.float64)  # (F, 3, 2) in [0, 1]
    texture = _bake(corner_uv, model.uv[model.faces], model.face_material, looks, size)
    file = io.BytesIO()
    Image.fromarray(texture).save(file, "JPEG", quality=88, optimize=True)
    corner = model.faces.reshape(-1)
    return _merged(vertices[corner], normals[corner], corner_uv.reshape(-1, 2), file.getvalue())


def _bake(
    target: np.ndarray,  # (F, 3, 2) new coordinates in [0, 1], origin upper left
    source: np.ndarray,  # (F, 3, 2) texture coordinates of the model, origin lower left
    face_material: np.ndarray,
    looks: list[Paint],
    size: int,
) -> np.ndarray:
    """Return the texture (size, size, 3) uint8 sRGB; texels between charts repeat the nearest."""
    result = np.zeros((size, size, 3))
    filled = np.zeros((size, size), bool)
    for corners, uv, number in zip(target * size, source, face_material, strict=True):
        (left, top), (right, bottom) = np.floor(corners.min(0) - 1), np.ceil(corners.max(0) + 1)
        columns = np.arange(max(left, 0), min(right, size), dtype=int)
        rows = np.arange(max(top, 0), min(bottom, size), dtype=int)
        x, y = np.meshgrid(columns + 0.5, rows + 0.5)
        edges = np.column_stack([corners[1] - corners[0], corners[2] - corners[0]])
        if abs(np.linalg.det(edges)) < 1e-9:
            continue
        weights = np.linalg.solve(edges, np.stack([x.ravel(), y.ravel()]) - corners[0][:, None])
        weights = np.stack([1 - weights.sum(0), *weights])  # (3, texels)
        inside = (weights > -1e-6).all(0)
        if not inside.any():
            continue
        at = (y.ravel()[inside].astype(int), x.ravel()[inside].astype(int))
        color, picture = looks[number]
        result[at] = (
            _srgb(color) if picture is None else _sample(picture, weights[:, inside].T @ uv)
        )
        filled[at] = True
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    return np.rint(result[tuple(nearest)]).astype(np.uint8)


def _srgb(color: Color) -> np.ndarray:
    """Return 0 ... 255 sRGB of a linear color."""
    values = np.clip(np.array(color), 0, 1)
    low = values * 12.92
    high = 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(linear(low) <= 0.0031308, low, high) * 255


def _sample(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return the texture's color at uv (N, 2), which repeats, bilinear; (N, 3)."""
    height, width = picture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
    upper = picture[rows[0], columns[0]] * (1 - fx) + picture[rows[0], columns[1]] * fx
    lower = picture[rows[1], columns[0]] * (1 - fx) + picture[rows[1], columns[1]] * fx
    return upper * (1 - fy) + lower * fy
