"""Texture coordinates: a surface cut open and laid flat into a square, without overlaps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.charts import planar_charts
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.topology import weld
from sam3d_nb.whole import is_whole

SMALLEST, LARGEST = 16, 4096  # pixels a side
MIP_LEVELS = 3  # levels at which neighboring charts must not mix
XATLAS_TRIANGLES = 10_000
"""Up to here `auto` takes xatlas. On one core it takes 0.8 s for 10,000 triangles of a chair, 1.8 s
for 20,000 and 71 s for 200,000, which the planar charts unwrap in 0.4 s."""
GROWTH = 1.25  # of xatlas's square over the one asked for

Layout = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Faces (F, 3) into new vertices, the old vertex of each (W,), uv (W, 2) from the upper left."""


def unwrap(mesh: Mesh, size: int = 1024, *, method: str = "auto") -> Mesh:
    """Return the mesh with texture coordinates for a square texture of `size` pixels a side.

    Vertices are joined where they are at the same place and doubled along seams; triangles keep
    their order; colors stay; an old texture and its coordinates go. Charts are 2 ** MIP_LEVELS
    pixels apart, less where there is no room.

    method: "xatlas" unrolls the surface with little distortion; "planar" projects it along the
    six axes, which is many times quicker. "auto" takes xatlas up to XATLAS_TRIANGLES triangles,
    where it is installed.

    Raises InputError for a mesh without triangles, another size or method, or where so many
    charts are needed that they do not fit.
    """
    check_size(size)
    if method not in ("auto", *_METHODS):
        known = ", ".join(["auto", *_METHODS])
        raise InputError(f"there is no way to unwrap called {method!r}; use one of {known}")
    vertices, faces, kept = weld(mesh.vertices, mesh.faces)
    if not len(faces):
        raise InputError("a mesh without triangles cannot be unwrapped")
    if method == "auto":
        quick = len(faces) <= XATLAS_TRIANGLES and _xatlas_is_there()
        method = "xatlas" if quick else "planar"
    gap = 2**MIP_LEVELS
    faces, source, uv = _METHODS[method](vertices, faces, size, gap)
    colors = None if mesh.colors is None else mesh.colors[kept][source]
    return Mesh(vertices[source], faces, colors, uv.clip(0, 1))


def check_size(size: int) -> None:
    """Raise InputError unless `size` is a texture's side in pixels."""
    if not is_whole(size) or not SMALLEST <= size <= LARGEST:
        raise InputError(
            f"a texture has {SMALLEST} to {LARGEST} pixels a side but {size!r} were asked for"
        )


def _planar(vertices: np.ndarray, faces: np.ndarray, size: int, gap: int) -> Layout:
    flat = planar_charts(vertices, faces, size, gap)
    return flat.faces, flat.source, flat.position / size


def _xatlas(vertices: np.ndarray, faces: np.ndarray, size: int, gap: int) -> Layout:
    try:
        import xatlas
    except ImportError as error:
        raise InputError(
            "xatlas is not installed, since there is none for this computer or this Python; "
            'unwrap with method="planar"'
        ) from error
    low = vertices.min(0)
    unit = (vertices - low) / np.ptp(vertices, axis=0).max()  # it takes small faces for none
    atlas = xatlas.Atlas()
    atlas.add_mesh(unit.astype(np.float32), faces.astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution = size
    options.padding = round(gap * GROWTH)
    options.bilinear = True
    atlas.generate(pack_options=options)
    source, faces, uv = atlas[0]
    return faces.astype(np.int64), source.astype(np.int64), uv


def _xatlas_is_there() -> bool:
    from importlib.util import find_spec

    return find_spec("xatlas") is not None


_METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], Layout]] = {
    "planar": _planar,
    "xatlas": _xatlas,
}
