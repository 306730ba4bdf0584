"""Slow, obvious twins of the surface extraction: dictionaries and loops over a whole grid."""

import math
from itertools import product

import numpy as np

from sam3d_nb.model.flexicubes_tables import CORNERS, EDGES, ambiguous_face, edge_groups

Point = tuple[int, int, int]


def plain_flexicubes(
    shape: Point,
    positions: dict[Point, np.ndarray],  # grid vertex -> (3,)
    sdf: dict[Point, float],
    logits: dict[Point, np.ndarray],  # grid vertex -> (6,)
    weights: dict[Point, np.ndarray],  # cell -> (21,)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3), faces (F, 3), attributes (V, 6) in float64."""
    cells = list(product(*map(range, shape)))
    case = {cell: _case(cell, sdf) for cell in cells}
    groups = {}
    for cell in cells:
        if case[cell] not in (0, 255):
            groups[cell] = edge_groups(_resolved(cell, case))
    vertices, attributes, vertex_of = [], [], {}
    for count in range(1, 5):
        for cell in cells:
            if len(groups.get(cell, ())) == count:
                for group in groups[cell]:
                    for edge in group:
                        vertex_of[cell, edge] = len(vertices)
                    position, color = _dual(cell, group, positions, sdf, logits, weights[cell])
                    vertices.append(position)
                    attributes.append(color)
    faces = _faces(cells, sdf, vertex_of, weights)
    return (
        np.array(vertices).reshape(-1, 3),
        np.array(faces, dtype=np.int64).reshape(-1, 3),
        np.array(attributes).reshape(-1, 6),
    )


def plain_grid(
    coords: np.ndarray,  # (N, 3)
    features: np.ndarray,  # (N, 101)
    resolution: int,
) -> tuple[dict, dict, dict, dict]:
    """Return positions, sdf, attribute logits by vertex and weights by cell, over the grid."""
    touching: dict[Point, list[np.ndarray]] = {}
    weights = {cell: np.zeros(21) for cell in product(range(resolution), repeat=3)}
    for voxel, values in zip(coords.tolist(), features.astype(np.float64), strict=True):
        weights[tuple(voxel)] = values[32:53]
        for c in range(8):
            parts = (
                values[c : c + 1] - 1 / resolution,
                values[8 + 3 * c : 11 + 3 * c],
                values[53 + 6 * c : 59 + 6 * c],
            )
            touching.setdefault(_add(voxel, CORNERS[c]), []).append(np.concatenate(parts))
    positions, sdf, logits = {}, {}, {}
    for vertex in product(range(resolution + 1), repeat=3):
        mean = np.mean(touching[vertex], axis=0) if vertex in touching else np.eye(1, 10)[0]
        sdf[vertex], logits[vertex] = float(mean[0]), mean[4:]
        shift = np.tanh(mean[1:4]) / (2 * resolution)
        positions[vertex] = np.array(vertex) / resolution - 0.5 + shift
    return positions, sdf, logits, weights


def _add(a, b) -> Point:
    return tuple(int(x + y) for x, y in zip(a, b, strict=True))


def _case(cell: Point, sdf: dict[Point, float]) -> int:
    return sum(2**c for c in range(8) if sdf[_add(cell, CORNERS[c])] < 0)


def _resolved(cell: Point, case: dict[Point, int]) -> int:
    face = ambiguous_face(case[cell])
    if face is None:
        return case[cell]
    step = [0, 0, 0]
    step[face // 2] = 1 if face % 2 else -1
    neighbor = case.get(_add(cell, step))
    if neighbor is None or ambiguous_face(neighbor) is None:
        return case[cell]
    return 255 - case[cell]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _dual(cell, group, positions, sdf, logits, weights):
    total, position, color = 0.0, np.zeros(3), np.zeros(6)
    for edge in group:
        a, b = EDGES[edge]
        va, vb = _add(cell, CORNERS[a]), _add(cell, CORNERS[b])
        wa = sdf[va] * (0.99 * math.tanh(weights[12 + a]) + 1)
        wb = sdf[vb] * (0.99 * math.tanh(weights[12 + b]) + 1)
        beta = 0.99 * math.tanh(weights[edge]) + 1
        position += beta * (positions[va] * wb - positions[vb] * wa) / (wb - wa)
        color += beta * (_sigmoid(logits[va]) * wb - _sigmoid(logits[vb]) * wa) / (wb - wa)
        total += beta
    return position / total, color / total


def _faces(cells, sdf, vertex_of, weights) -> list[Point]:
    around: dict[tuple[Point, Point], list[tuple[Point, int]]] = {}
    for cell in cells:  # ascending, so each list is ascending too
        for edge, (a, b) in enumerate(EDGES):
            if (cell, edge) in vertex_of:
                ends = _add(cell, CORNERS[a]), _add(cell, CORNERS[b])
                around.setdefault(ends, []).append((cell, edge))
    faces = []
    for positive in (True, False):
        for ends, owners in sorted(around.items()):
            if len(owners) == 4 and (sdf[ends[0]] > 0) == positive:
                order = (0, 1, 3, 2) if positive else (2, 3, 1, 0)
                quad = [vertex_of[owners[i]] for i in order]
                g = [0.99 * _sigmoid(weights[owners[i][0]][20]) + 0.005 for i in order]
                if g[0] * g[2] > g[1] * g[3]:
                    split = (0, 1, 2), (0, 2, 3)
                else:
                    split = (0, 1, 3), (3, 1, 2)
                faces += [tuple(quad[i] for i in triangle) for triangle in split]
    return faces
