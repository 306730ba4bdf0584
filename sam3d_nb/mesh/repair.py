"""Closing meshes: holes get lids, and a mesh becomes watertight.

Triangles are added, turned or taken away one by one; all others stay where they are.
"""

from __future__ import annotations

import numpy as np

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.mesh.formats import vertex_colors
from sam3d_nb.mesh.holes import lid, rims
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.places import places
from sam3d_nb.mesh.solid import facing_out, without_sheets
from sam3d_nb.mesh.subdivide import unique_edges
from sam3d_nb.mesh.topology import (
    Topology,
    badly_joined,
    open_edges,
    oriented,
    split_fans,
    topology,
    weld,
    without_twins,
)

APART = 1e-5  # of the longest side: how far vertices are moved from others at their place


def fill_holes(mesh: Mesh, *, longest: float | None = None) -> Mesh:
    """Return the mesh with a lid on every hole.

    longest: holes with a longer rim, in units of the mesh, stay open; None closes all. Vertices
    at the same place are joined first and neighboring faces wound alike; nothing else changes.
    Lids use the vertices of the rim and so take its colors. A texture becomes vertex colors. A
    mesh without holes is returned as it is.

    Raises InputError where `longest` is no positive number.
    """
    if longest is not None and not longest > 0:
        raise InputError(f"the longest rim to close must be a positive length but is {longest!r}")
    rows, faces = _rows(mesh)
    faces = oriented(rows[:, :3], faces)
    # Several rims may meet in one vertex; among split ones no two do.
    split, old = split_fans(faces)
    rim = open_edges(split)
    rim = rim[_open_in(faces, old[rim])]
    loops = [simple for loop in rims(rim) for simple in _simple(old[loop])]
    lids = _lids(rows, faces, loops, longest)
    if lids is None:
        return mesh
    return _mesh(lids[0], np.concatenate([faces, lids[1]]))


def make_watertight(mesh: Mesh) -> Mesh:
    """Return the mesh as closed surfaces, facing outward: each edge at exactly two faces.

    Where more than two faces meet along an edge, or along a one-sided surface, they are cut
    apart, by 1e-5 of the longest side; holes are closed; what encloses no volume is dropped. A
    texture becomes vertex colors. Surfaces may still pass through each other. A mesh that is
    watertight already is returned as it is; only vertices at the same place are joined, unless
    they are the seams of a texture.

    Raises ReconstructionError where nothing is left, as of a flat sheet.
    """
    rows, faces = _rows(mesh)
    if topology(mesh).watertight and facing_out(rows[:, :3], faces) is faces:
        seams_only = mesh.texture is not None or len(rows) == len(mesh.vertices)
        return mesh if seams_only else _mesh(rows, faces)
    faces = without_twins(faces)
    faces = oriented(rows[:, :3], faces)
    while True:  # ends, since every round but the last takes faces away
        faces, old = split_fans(faces)
        rows = rows[old]
        bad = badly_joined(faces)
        if not bad.any():
            break
        faces = faces[~bad]
    closed = _lids(rows, faces, rims(open_edges(faces)), None)
    if closed is not None:
        rows, faces = closed[0], np.concatenate([faces, closed[1]])
    faces = without_sheets(rows[:, :3], faces)
    faces = facing_out(rows[:, :3], faces)
    result = _mesh(_moved_apart(rows, faces), faces)
    if not len(faces):
        raise ReconstructionError(
            f"the mesh of {len(mesh.faces)} triangles encloses no volume, so it cannot be made "
            "watertight; leave `watertight` off, or give a mesh with more than a flat sheet"
        )
    found = topology(result)
    if not found.watertight:
        raise ReconstructionError(
            f"the mesh of {len(mesh.faces)} triangles could not be made watertight: "
            f"{_wrong(found)}; leave `watertight` off"
        )
    return result


def _wrong(found: Topology) -> str:
    """Say why a mesh is not watertight."""
    counts = {
        "at one triangle": found.open_edges,
        "at more than two triangles": found.crowded_edges,
        "between triangles that face opposite ways": found.torn_edges,
    }
    wrong = [f"{count} edges are left {where}" for where, count in counts.items() if count]
    return ", ".join(wrong) or "its parts enclose less than its cavities"


def _rows(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return one row a vertex, (V, 3) float64 positions or (V, 6) with colors, and the faces."""
    vertices, faces, kept = weld(mesh.vertices, mesh.faces)
    colors = vertex_colors(mesh)
    columns = [vertices] if colors is None else [vertices, colors[kept]]
    return np.concatenate(columns, axis=1).astype(np.float64), faces


def _mesh(rows: np.ndarray, faces: np.ndarray) -> Mesh:
    """Return the mesh of rows as `_rows` has them, without those that no face uses."""
    used, compact = np.unique(faces, return_inverse=True)
    rows = rows[used]
    return Mesh(rows[:, :3], compact.reshape(-1, 3), rows[:, 3:] if rows.shape[1] > 3 else None)


def _open_in(faces: np.ndarray, directed: np.ndarray) -> np.ndarray:
    """Return which of the directed edges (N, 2) are at one of the faces only."""
    size = int(faces.max(initial=0)) + 1
    rim = open_edges(faces)
    return np.isin(directed[:, 0] * size + directed[:, 1], rim[:, 0] * size + rim[:, 1])


def _simple(loop: np.ndarray) -> list[np.ndarray]:
    """Return the loops, each with different vertices, that a loop through some twice is made of."""
    found: list[list[int]] = []
    path: list[int] = []
    for vertex in loop.tolist():
        if vertex in path:
            start = path.index(vertex)
            found.append(path[start:])
            del path[start:]
        path.append(vertex)
    return [np.array(simple) for simple in (*found, path) if len(simple) > 2]


def _lids(
    rows: np.ndarray, faces: np.ndarray, loops: list[np.ndarray], longest: float | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rows, some added, and the lids' faces (N, 3); None where there are no lids."""
    chosen = [loop for loop in loops if longest is None or _length(rows[loop, :3]) <= longest]
    if not chosen:
        return None
    neighbors = _neighbors(faces, np.concatenate(chosen))
    added, lids = [rows], []
    count = len(rows)
    for loop in chosen:
        position = {vertex: i for i, vertex in enumerate(loop.tolist())}
        taken = {
            (i, position[other])
            for vertex, i in position.items()
            for other in neighbors[vertex]
            if i < position.get(other, -1)
        }
        triangles = lid(rows[loop, :3], taken)
        if triangles is not None:
            lids.append(loop[triangles])
            for a, b in lids[-1][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist():
                neighbors[a].add(b)
                neighbors[b].add(a)
        else:  # around a vertex of its own
            added.append(rows[loop].mean(0, keepdims=True))
            hub = np.full(len(loop), count)
            lids.append(np.stack([loop, np.roll(loop, -1), hub], axis=1))
            count += 1
    return np.concatenate(added), np.concatenate(lids)


def _length(loop: np.ndarray) -> float:
    return float(np.linalg.norm(loop - np.roll(loop, -1, axis=0), axis=1).sum())


def _neighbors(faces: np.ndarray, vertices: np.ndarray) -> dict[int, set[int]]:
    """Return for each of `vertices` those that an edge joins to it."""
    found: dict[int, set[int]] = {vertex: set() for vertex in vertices.tolist()}
    edges = unique_edges(faces)[0]
    for a, b in edges[np.isin(edges, vertices).all(1)].tolist():
        found[a].add(b)
        found[b].add(a)
    return found


def _moved_apart(rows: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the rows with vertices that share a place moved a little towards their own faces.

    So they stay apart for programs that join vertices by position, as STL files need it. Those
    that come after others at their place move less, since their faces may be alike.
    """
    positions = rows[:, :3].astype(np.float32)
    place = places(positions)
    used = np.unique(faces)
    shared = np.zeros(len(rows), dtype=bool)
    shared[used] = np.bincount(place[used], minlength=len(rows))[place[used]] > 1
    if not shared.any():
        return rows
    touched = shared[faces].any(1)
    corners = faces[touched]
    total, count = np.zeros((len(rows), 3)), np.zeros(len(rows))
    np.add.at(total, corners.reshape(-1), np.repeat(rows[corners, :3].mean(1), 3, axis=0))
    np.add.at(count, corners.reshape(-1), 1)
    step = total[shared] / count[shared, None] - rows[shared, :3]
    length = np.linalg.norm(step, axis=1, keepdims=True)
    longest = APART * np.ptp(rows[used, :3], axis=0).max()
    share = (1 + 1 / _turns(place[shared])[:, None]) / 2  # never too short for float32
    moved = rows.copy()
    moved[shared, :3] += step * share * np.minimum(longest / np.where(length > 0, length, 1), 0.1)
    return moved


def _turns(place: np.ndarray) -> np.ndarray:
    """Return for each entry (N,) which of those with its value it is: 1 for the first, 2 ..."""
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    turn = np.empty(len(place), dtype=np.int64)
    turn[order] = np.arange(len(place)) - np.searchsorted(ordered, ordered) + 1
    return turn
