"""How the triangles of a mesh hang together: edges, open borders, components, sides.

Works on plain arrays: vertices (V, 3) and faces (F, 3). Edge k of a face runs from its corner k to
its corner k + 1; such a directed edge has the number 3 * face + k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.places import places
from sam3d_nb.mesh.subdivide import unique_edges


@dataclass(frozen=True)
class Topology:
    """What holds of a mesh after vertices at the same place are joined.

    open_edges: at one face only, the rims of holes. crowded_edges: at more than two faces.
    torn_edges: at two faces that wind the same way along it. volume: of what is enclosed, in
    cubed units of the mesh; it means little unless the mesh is watertight.
    """

    faces: int
    components: int
    open_edges: int
    crowded_edges: int
    torn_edges: int
    volume: float

    @property
    def watertight(self) -> bool:
        """Every edge is at exactly two faces that wind consistently, and volume is positive."""
        defects = self.open_edges + self.crowded_edges + self.torn_edges
        return bool(self.faces) and not defects and self.volume > 0


def topology(mesh: Mesh) -> Topology:
    """Return the counts of open, crowded and torn edges, of components, and the volume."""
    vertices, faces = weld(mesh.vertices, mesh.faces)[:2]
    edges, face_edges = unique_edges(faces)
    count = np.bincount(face_edges.reshape(-1), minlength=len(edges))
    forward = np.bincount(face_edges[_ascending(faces)], minlength=len(edges))
    return Topology(
        faces=len(faces),
        components=int(face_components(len(faces), *paired(face_edges)).max(initial=-1)) + 1,
        open_edges=int((count == 1).sum()),
        crowded_edges=int((count > 2).sum()),
        torn_edges=int(((count == 2) & (forward != 1)).sum()),
        volume=signed_volume(vertices, faces),
    )


def weld(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join vertices at the same place; drop unused ones and faces that lost a corner.

    Returns vertices (W, 3), faces (G, 3) and the old index of every new vertex (W,), ascending.
    """
    place = places(vertices)
    joined = place[faces]
    faces = joined[~collapsed(joined)]
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    kept = np.flatnonzero(used)
    return vertices[kept], (used.cumsum() - 1)[faces], kept


def collapsed(faces: np.ndarray) -> np.ndarray:
    """Return which faces (F,) name a vertex twice."""
    a, b, c = faces.T
    return (a == b) | (b == c) | (c == a)


def without_twins(faces: np.ndarray) -> np.ndarray:
    """Return the faces without repetitions; two that cover each other back to back both go."""
    ordered = np.sort(faces, axis=1)
    _, first, group, count = np.unique(
        ordered, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if (count == 1).all():
        return faces
    group = group.reshape(-1)
    start = faces.argmin(1)[:, None]
    second = np.take_along_axis(faces, (start + 1) % 3, axis=1)[:, 0]
    even = second == ordered[:, 1]  # wound like the ascending order
    turns = np.bincount(group, np.where(even, 1, -1))
    kept = np.zeros(len(faces), dtype=bool)
    kept[first] = turns != 0
    return faces[kept]


def paired(face_edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of directed edges, (P,) each, that lie on an edge of exactly two faces.

    face_edges: (F, 3) from `unique_edges`. Ordered by edge; the lower number comes first.
    """
    flat = face_edges.reshape(-1)
    order = np.argsort(flat, kind="stable")
    twice = np.bincount(flat)[flat[order]] == 2
    both = order[twice].reshape(-1, 2)
    return both[:, 0], both[:, 1]


def face_components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the component (F,) of each of `count` faces that hang together by edge pairs."""
    return components(count, first // 3, second // 3)


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the component (count,) of each node of the graph with edges `first`-`second`.

    Components are numbered by their lowest node.
    """
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    _, label = connected_components(graph.tocsr(), directed=False)
    lowest = np.zeros(label.max(initial=-1) + 1, dtype=np.int64)
    lowest[label[::-1]] = np.arange(count)[::-1]
    return np.argsort(np.argsort(lowest))[label]


def oriented(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces wound consistently along every edge of two faces, where that is possible.

    A component keeps the winding that most of its area has; a one-sided surface (a Moebius strip)
    stays as it is.
    """
    _, face_edges = unique_edges(faces)
    first, second = paired(face_edges)
    ascending = _ascending(faces).reshape(-1)
    torn = ascending[first] == ascending[second]
    if not torn.any():
        return faces
    # Two nodes a face: as it is (even) and turned (odd). Neighbors agree on one of the two ways.
    f, g = 2 * (first // 3), 2 * (second // 3)
    side = components(
        2 * len(faces), np.concatenate([f, f + 1]), np.concatenate([g + torn, g + 1 - torn])
    ).reshape(-1, 2)  # (F, 2)
    area = face_areas(vertices, faces)
    weight = np.bincount(side[:, 0], area, minlength=side.max() + 1)
    kept, turned = weight[side[:, 0]], weight[side[:, 1]]
    # Equal weights: the side that holds the component's lowest face as it is.
    turn = (turned > kept) | ((turned == kept) & (side[:, 1] < side[:, 0]))
    return np.where(turn[:, None], faces[:, ::-1], faces)


def split_fans(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give every fan of faces around a vertex a vertex of its own.

    A fan hangs together by edges at exactly two consistently wound faces. Returns faces (F, 3)
    and the old vertex of each new one (W,), ascending.
    """
    _, face_edges = unique_edges(faces)
    first, second = paired(face_edges)
    ascending = _ascending(faces).reshape(-1)
    sound = ascending[first] != ascending[second]
    first, second = first[sound], second[sound]
    # A corner has the number of the directed edge that leaves it.
    fan = components(
        faces.size,
        np.concatenate([first, _next(first)]),
        np.concatenate([_next(second), second]),
    )
    corner = faces.reshape(-1)
    old = np.empty(fan.max(initial=-1) + 1, dtype=np.int64)
    old[fan] = corner
    order = np.argsort(old, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[fan].reshape(-1, 3), old[order]


def badly_joined(faces: np.ndarray) -> np.ndarray:
    """Return which faces (F,) have an edge at more than two faces, or at two that wind alike."""
    edges, face_edges = unique_edges(faces)
    count = np.bincount(face_edges.reshape(-1), minlength=len(edges))
    forward = np.bincount(face_edges[_ascending(faces)], minlength=len(edges))
    bad = (count > 2) | ((count == 2) & (forward != 1))
    return bad[face_edges].any(1)


def open_edges(faces: np.ndarray) -> np.ndarray:
    """Return the directed edges (N, 2) at one face only, by face."""
    edges, face_edges = unique_edges(faces)
    single = np.bincount(face_edges.reshape(-1), minlength=len(edges))[face_edges] == 1  # (F, 3)
    face, corner = np.nonzero(single)
    return np.stack([faces[face, corner], faces[face, (corner + 1) % 3]], axis=1)


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces' normals (F, 3) float64, twice as long as the face's area."""
    a, b, c = vertices[faces.T].astype(np.float64)
    return np.cross(b - a, c - a)


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces' areas (F,) float64."""
    areas: np.ndarray = np.linalg.norm(face_normals(vertices, faces), axis=1) / 2
    return areas


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return the enclosed volume, positive where faces wind counter-clockwise from outside."""
    return float(face_volumes(vertices, faces).sum())


def face_volumes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the signed volume (F,) between each face and the middle of the mesh."""
    if not len(faces):
        return np.zeros(0)
    middle = (vertices.min(0).astype(np.float64) + vertices.max(0)) / 2
    a = vertices[faces[:, 0]] - middle
    return (a * face_normals(vertices, faces)).sum(1) / 6


def _ascending(faces: np.ndarray) -> np.ndarray:
    """Return which directed edges (F, 3) run from the lower to the higher vertex."""
    return faces < np.roll(faces, -1, axis=1)


def _next(directed: np.ndarray) -> np.ndarray:
    """Return the directed edge that follows within the same face."""
    return np.where(directed % 3 == 2, directed - 2, directed + 1)
