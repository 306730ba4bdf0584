"""A triangle mesh with vertex colors or a texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from scipy.sparse import csr_array

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.places import places


@final  # so that type checkers tell it from an object
@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with optional vertex colors and an optional texture.

    vertices: (V, 3) float32. faces: (F, 3) int32, counter-clockwise seen from outside.
    colors: (V, 3) float32 in [0, 1], linear light, as glTF's COLOR_0 has it.
    uv: (V, 2) float32, origin at the texture's upper left corner, as in glTF.
    texture: (h, w, 3) uint8, sRGB; needs `uv`.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._convert("vertices", np.float32, (None, 3))
        self._convert("faces", np.int32, (None, 3))
        count = len(self.vertices)
        self._check_finite("vertices")
        if len(self.faces) and not (self.faces.min() >= 0 and self.faces.max() < count):
            low, high = int(self.faces.min()), int(self.faces.max())
            raise InputError(f"faces name vertices {low} to {high} but the mesh has {count}")
        if self.colors is not None:
            self._convert("colors", np.float32, (count, 3))
            self._check_finite("colors")
        if self.uv is not None:
            self._convert("uv", np.float32, (count, 2))
            self._check_finite("uv")
        if self.texture is not None:
            self._convert("texture", np.uint8, (None, None, 3))
            if self.uv is None:
                raise InputError("a mesh with a texture needs uv coordinates")

    def __repr__(self) -> str:
        """Say what is there instead of printing numbers."""
        parts = [f"{len(self.vertices):,} vertices", f"{len(self.faces):,} triangles"]
        if self.texture is not None:
            parts.append(f"a texture of {self.texture.shape[1]} x {self.texture.shape[0]}")
        elif self.colors is not None:
            parts.append("colors")
        return f"<mesh: {', '.join(parts)}>"

    def _convert(self, name: str, dtype: type, shape: tuple[int | None, ...]) -> None:
        array: np.ndarray = np.ascontiguousarray(getattr(self, name), dtype=dtype)
        matches = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        if not matches:
            wanted = tuple("any" if n is None else n for n in shape)
            raise InputError(f"mesh {name} need shape {wanted} but have {array.shape}")
        object.__setattr__(self, name, array)

    def _check_finite(self, name: str) -> None:
        finite = np.isfinite(getattr(self, name))
        if not finite.all():
            finite = finite.all(1)
            raise InputError(f"{int((~finite).sum())} of {len(finite)} mesh {name} are not finite")

    @cached_property
    def bounds(self) -> np.ndarray:
        """Smallest and largest corner of the axis-aligned box, (2, 3)."""
        if not len(self.vertices):
            raise InputError("an empty mesh has no bounds")
        columns = self.vertices.T  # one by one: NumPy is slow along the first axis of narrow arrays
        return np.array([[c.min() for c in columns], [c.max() for c in columns]])

    @property
    def has_colors(self) -> bool:
        """Whether there are vertex colors or a texture."""
        return self.colors is not None or self.texture is not None

    @cached_property
    def normals(self) -> np.ndarray:
        """Outward unit normals (V, 3) float32, the mean over adjacent faces weighted by area.

        In a mesh with uv coordinates vertices at the same place share a normal, so that seams do
        not show. (0, 0, 1) where a vertex has no face with area.
        """
        count = len(self.vertices)
        place = None if self.uv is None else places(self.vertices)
        corner = self.faces if place is None else place[self.faces]  # (F, 3)
        vertices = self.vertices.astype(np.float64)
        a, b, c = (vertices.take(self.faces[:, k], axis=0) for k in range(3))  # each (F, 3)
        starts = np.arange(0, corner.size + 1, 3)
        around = csr_array(
            (np.ones(corner.size), corner.reshape(-1), starts), shape=(len(corner), count)
        )
        total = around.T @ np.cross(b - a, c - a)  # (V, 3)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        flat = length[:, 0] < 1e-30
        unit = total / np.where(length > 0, length, 1)
        unit[flat] = (0, 0, 1)
        return (unit if place is None else unit[place]).astype(np.float32)

    def with_vertices(self, vertices: np.ndarray) -> Mesh:
        """Return the same triangles and colors with other vertex positions (V, 3)."""
        return Mesh(vertices, self.faces, self.colors, self.uv, self.texture)

    def with_colors(self, colors: np.ndarray) -> Mesh:
        """Return the same surface with other vertex colors (V, 3), linear."""
        mesh = Mesh(self.vertices, self.faces, colors, self.uv, self.texture)
        return mesh._knowing(vars(self).get("normals"))

    def turned(self, rotation: np.ndarray) -> Mesh:
        """Return the mesh turned by a rotation matrix (3, 3)."""
        mesh = self.with_vertices(self.vertices.astype(np.float64) @ rotation.T)
        normals = vars(self).get("normals")
        return mesh._knowing(None if normals is None else normals @ rotation.T)

    def _knowing(self, normals: np.ndarray | None) -> Mesh:
        """Return this mesh; it need not compute its normals where they are known."""
        if normals is not None:
            vars(self)["normals"] = normals.astype(np.float32)  # where `normals` keeps them
        return self
