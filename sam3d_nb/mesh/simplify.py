"""Fewer triangles for the same shape, with its colors.

The triangles are merged by quadric error (Garland and Heckbert 1997), as the library
`fast-simplification` does it. It knows positions only, so the colors are carried over afterwards.
Where it takes a mesh apart, its vertices are clustered first (Rossignac and Borrel 1993).
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.mesh.formats import vertex_colors
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.nearest import Surface
from sam3d_nb.mesh.thin import thinned
from sam3d_nb.mesh.topology import face_areas, open_edges, weld, without_twins
from sam3d_nb.whole import is_whole

FEWEST = 4  # triangles of a closed surface
HOLD = 0.1  # weight of a vertex's own place, in what the source's vertices weigh on average
WHOLE = 0.9  # of the surface's area: what has less may have come apart
CLUSTERED = (4, 8)  # times the triangles that were asked for
CLOSER = 0.8  # of the distance: clustering opens closed surfaces, which must be worth it
JUDGES = 20_000  # vertices by which results are compared, or up to twice as many
_ONE_AT_A_TIME = Lock()  # the library keeps the mesh in global variables

Bare = tuple[np.ndarray, np.ndarray]
"""Vertices (V, 3) and faces (F, 3)."""


def simplify(mesh: Mesh, triangles: int) -> Mesh:
    """Return the mesh with at most `triangles` triangles, of the same shape as well as they can.

    Vertices at the same place are joined first. Open borders keep their outline where there are
    triangles enough for that; bodies that would be left with less than four vanish. What is made
    of many small parts, such as a plant, may be open afterwards where it was closed; `finish` with
    `watertight` closes it. Vertex colors are fitted to those of the mesh; colors finer than the new
    triangles are lost, unless they are baked into a texture (`finish`). A texture becomes vertex
    colors. A mesh that is small enough is returned as it is.

    Raises InputError where `triangles` is no whole number of at least 4, ReconstructionError
    where nothing of the mesh is left.
    """
    check_count(triangles)
    if len(mesh.faces) <= triangles:
        return mesh
    shape = Mesh(*reduced(mesh.vertices, mesh.faces, triangles))
    return Mesh(shape.vertices, shape.faces, fitted_colors(mesh, shape))


def check_count(triangles: int) -> None:
    """Raise InputError unless `triangles` is a number of triangles that a mesh can be cut to."""
    if not is_whole(triangles) or triangles < FEWEST:
        raise InputError(
            f"a mesh can be simplified to a whole number of triangles from {FEWEST} up, "
            f"not to {triangles!r}"
        )


def reduced(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> Bare:
    """Return vertices (V', 3) and at most `triangles` faces (F', 3) of about the same shape.

    By quadric error. That takes a mesh of many shreds apart, such as a plant's leaves, or cannot
    cut it down so far. So where much of the surface went, results whose vertices were joined by
    clustering before are made too, and taken if they come much closer to the mesh.

    Raises ReconstructionError where no triangles are left.
    """
    found = by_quadric_error(vertices, faces, triangles)
    least = WHOLE * face_areas(vertices, faces).sum()
    if len(found[1]) > triangles or face_areas(*found).sum() < least:
        found = _closest(vertices, faces, triangles, found)
    if not len(found[1]):
        raise ReconstructionError(
            f"nothing is left of the mesh of {len(faces)} triangles with {triangles}; ask for more"
        )
    return found


def by_quadric_error(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> Bare:
    """Return vertices (V', 3) and about `triangles` faces (F', 3), more or none of some tangles."""
    vertices, faces, _ = weld(vertices, faces)
    if len(faces) > triangles:
        low, high = vertices.min(0).astype(np.float64), vertices.max(0).astype(np.float64)
        size = (high - low).max()
        unit = (vertices - low) / size  # the library's error bounds are absolute
        found, border = (unit, faces), len(open_edges(faces))
        if 0 < border < triangles / 2:
            kept = _collapse(unit, faces, triangles, keep_border=True)
            found = kept if len(kept[1]) <= triangles else found
        before = len(faces) + 1
        while triangles < len(found[1]) < before:  # once does, save for very few triangles
            before = len(found[1])
            found = _collapse(*found, triangles, keep_border=False)
        vertices, faces = found[0] * size + low, found[1]
    return vertices, faces


def _closest(vertices: np.ndarray, faces: np.ndarray, triangles: int, direct: Bare) -> Bare:
    """Return `direct`, or one that was clustered before and comes much closer to the mesh.

    Where none of them has at most `triangles`, one that was only clustered.
    """
    mesh = Mesh(vertices, faces)
    tried = [direct]
    for budget in (times * triangles for times in CLUSTERED):
        if budget < len(faces):
            joined = thinned(mesh, budget)
            tried.append(by_quadric_error(joined.vertices, joined.faces, triangles))
    fitting = [found for found in tried if 0 < len(found[1]) <= triangles]
    if not fitting:
        coarsest = thinned(mesh, triangles)
        return coarsest.vertices, coarsest.faces
    used = np.unique(faces)
    points = vertices[used[:: max(len(used) // JUDGES, 1)]]
    apart = [Surface(Mesh(*found)).closest(points).distance.mean() for found in fitting]
    best = int(np.argmin(apart))
    return fitting[best if apart[best] < CLOSER * apart[0] else 0]


def _collapse(vertices: np.ndarray, faces: np.ndarray, triangles: int, keep_border: bool) -> Bare:
    import fast_simplification

    with _ONE_AT_A_TIME:
        points, found = fast_simplification.simplify(
            np.ascontiguousarray(vertices, dtype=np.float64),
            np.ascontiguousarray(faces, dtype=np.int32),
            target_count=int(triangles),
            preserve_border=keep_border,
        )
    found = without_twins(np.asarray(found, dtype=np.int64))
    return weld(np.asarray(points), found)[:2]


def fitted_colors(source: Mesh, shape: Mesh) -> np.ndarray | None:
    """Return vertex colors (V, 3) of `shape` that come closest to the colors of `source`.

    Least squares over the source's vertices, weighted by area: what `shape` shows at the place
    closest to each of them against its color. Where few or none are near, the color at the
    vertex's own place counts. None where the source has no colors.
    """
    wanted = vertex_colors(source)
    if wanted is None:
        return None
    surface = Surface(source)
    own = surface.colors(surface.closest(shape.vertices, shape.normals))  # (V, 3)
    corner = face_areas(source.vertices, source.faces)
    area = np.bincount(
        source.faces.reshape(-1), np.repeat(corner, 3), minlength=len(source.vertices)
    )
    kept = np.flatnonzero(area > 0)
    weight = area[kept] / area.mean()
    place = Surface(shape).closest(source.vertices[kept], source.normals[kept])
    shown = csr_array(
        (
            place.weights.reshape(-1),
            shape.faces[place.face].reshape(-1),
            np.arange(len(kept) + 1) * 3,
        ),
        shape=(len(kept), len(shape.vertices)),
    )  # colors at the places = shown @ vertex colors
    weighted = (diags_array(weight) @ shown).T.tocsr()
    square = weighted @ shown
    hold = HOLD * square.diagonal().mean()
    system = square + hold * eye_array(len(shape.vertices))
    fitted = [
        cg(
            system,
            weighted @ wanted[kept, k] + hold * own[:, k],
            x0=own[:, k],
            rtol=1e-4,
            maxiter=100,
        )
        for k in range(3)
    ]
    colors = np.stack([channel for channel, _ in fitted], axis=1)
    low, high = own.astype(np.float64), own.astype(np.float64)  # no color that is not around
    for corner in shape.faces[place.face].T:
        np.minimum.at(low, corner, wanted[kept])
        np.maximum.at(high, corner, wanted[kept])
    return colors.clip(low, high)
