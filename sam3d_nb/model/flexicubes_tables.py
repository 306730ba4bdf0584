"""Lookup tables of FlexiCubes, generated from the geometry of the cube.

Corner `c` of a cell lies at offset (c & 1, c >> 1 & 1, c >> 2 & 1) in (x, y, z). The case of a
cell is the sum of 2^c over its corners with negative signed distance. The sign-changing edges of
a cell fall into one to four groups, and each group becomes one dual vertex.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

CORNERS = tuple((c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(8))
"""Offset in cells of each corner along (x, y, z)."""

EDGES = (
    *((0, 1), (1, 5), (4, 5), (0, 4)),
    *((2, 3), (3, 7), (6, 7), (2, 6)),
    *((2, 0), (3, 1), (7, 5), (6, 4)),
)
"""First and second corner of each edge. Edges along y run downward, which makes one winding rule
hold for all three axes."""

FACES = tuple(
    tuple(c for c in range(8) if CORNERS[c][axis] == side) for axis in range(3) for side in (0, 1)
)
"""The four corners of each face; face `2 * axis + side`."""

MAX_GROUPS, MAX_GROUP_EDGES = 4, 7
Group = tuple[int, ...]  # ascending edges


@dataclass(frozen=True)
class Tables:
    """The tables as tensors on one device; -1 fills what a case does not use."""

    edge_ends: Tensor  # (12, 2) int64: corners
    group_count: Tensor  # (256,) int64: dual vertices of a case
    edge_group: Tensor  # (256, 12) int64: the group that holds an edge
    group_edges: Tensor  # (256, 4, 7) int64: the edges of a group, ascending
    ambiguous_normal: Tensor  # (256, 3) int64: to the neighbor to ask; 0 where there is none


def crossing_edges(case: int) -> list[int]:
    """Return the edges of a cell of `case` whose ends have different signs, ascending."""
    return [e for e, (a, b) in enumerate(EDGES) if (case >> a & 1) != (case >> b & 1)]


def is_ambiguous(case: int, face: int) -> bool:
    """Say whether the negative corners of `face` are exactly the two ends of a diagonal."""
    return all((case >> a & 1) != (case >> b & 1) for a, b in EDGES if {a, b} <= set(FACES[face]))


def ambiguous_face(case: int) -> int | None:
    """Return the face whose neighbor decides how `case` is read; None if `case` is unproblematic.

    Problematic are the cases with exactly one ambiguous face and more than four negative corners.
    """
    faces = [face for face in range(6) if is_ambiguous(case, face)]
    return faces[0] if len(faces) == 1 and case.bit_count() > 4 else None


def edge_groups(case: int) -> list[Group]:
    """Return the groups of crossing edges of `case`, in the order of their dual vertices."""
    groups = [{edge} for edge in crossing_edges(case)]
    for joined in _joined_edges(case):
        touched = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined] + [set().union(*touched)]
    minority = case.bit_count() <= 4  # sign of the rarer corners: 1 is negative

    def rank(group: Group) -> tuple[int, int]:
        ends = (corner for edge in group for corner in EDGES[edge])
        return min(c for c in ends if (case >> c & 1) == minority), group[0]

    return sorted((tuple(sorted(group)) for group in groups), key=rank)


def _joined_edges(case: int) -> Iterable[set[int]]:
    """Yield, over the faces, the pairs of crossing edges that the surface connects there."""
    crossing = crossing_edges(case)
    for face, corners in enumerate(FACES):
        on_face = [e for e in crossing if set(EDGES[e]) <= set(corners)]
        if is_ambiguous(case, face):  # separate the negative corners
            for corner in corners:
                if case >> corner & 1:
                    yield {e for e in on_face if corner in EDGES[e]}
        elif on_face:
            yield set(on_face)


@cache
def tables(device: torch.device) -> Tables:
    """Return all tables on `device`; they are made once a device."""
    group_count = torch.zeros(256, dtype=torch.int64)
    edge_group = torch.full((256, 12), -1)
    group_edges = torch.full((256, MAX_GROUPS, MAX_GROUP_EDGES), -1)
    normal = torch.zeros(256, 3, dtype=torch.int64)
    for case in range(256):
        groups = edge_groups(case)
        group_count[case] = len(groups)
        for number, group in enumerate(groups):
            edge_group[case, list(group)] = number
            group_edges[case, number, : len(group)] = torch.tensor(group)
        face = ambiguous_face(case)
        if face is not None:
            normal[case, face // 2] = 1 if face % 2 else -1
    made = (torch.tensor(EDGES), group_count, edge_group, group_edges, normal)
    return Tables(*(table.to(device) for table in made))
