"""FlexiCubes: a triangle mesh from signed distances on the corners of a list of cells.

Follows Shen et al., "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization" (2023),
as the released model has it: no quadratic error function is solved, each dual vertex is the
weighted mean of the surface crossings of its edges. Only the cells that are passed in are
visited, so the cost follows the surface and not the volume of the grid. Sums run in a fixed
order, without atomic additions: the same input gives the same mesh, bit for bit.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.constants import constant
from sam3d_nb.model.flexicubes_tables import CORNERS, EDGES, MAX_GROUP_EDGES, Tables, tables

WEIGHTS = 21  # logits a cell: 12 edges (beta), 8 corners (alpha), 1 cell (gamma)
CHUNK = 1 << 19  # dual vertices computed at once; bounds the temporaries to about 150 MB


@dataclass(frozen=True)
class Cells:
    """Cells of a regular grid, ascending by (x, y, z), with the vertices at their corners.

    Cells that the list leaves out count as outside the grid, so it must hold every cell whose
    corners differ in sign; other cells may be there and change nothing.
    """

    shape: tuple[int, int, int]  # cells of the grid along x, y, z
    coords: Tensor  # (M, 3) int64
    corners: Tensor  # (M, 8) int: rows of the vertex tensors

    @cached_property
    def index(self) -> Tensor:
        """Linear index of each cell, (M,) int64, ascending."""
        _, ny, nz = self.shape
        x, y, z = self.coords.unbind(1)
        return (x * ny + y) * nz + z

    @cached_property
    def _limits(self) -> Tensor:
        return torch.tensor(self.shape, device=self.coords.device)

    def select(self, rows: Tensor) -> "Cells":
        """Return the cells at `rows`, (m,) ascending."""
        return Cells(self.shape, self.coords[rows], self.corners[rows])

    def find(self, coords: Tensor) -> Tensor:
        """Return the row of each cell in `coords`, (n, 3), or -1 where it is not in the list."""
        inside = ((coords >= 0) & (coords < self._limits)).all(1)
        _, ny, nz = self.shape
        x, y, z = coords.unbind(1)
        wanted, index = (x * ny + y) * nz + z, self.index
        row = torch.searchsorted(index, wanted).clamp_(max=len(index) - 1)
        return torch.where(inside & (index[row] == wanted), row, -1)


@dataclass(frozen=True)
class Surface:
    """A triangle mesh; empty tensors when no surface was crossed."""

    vertices: Tensor  # (V, 3) float32
    faces: Tensor  # (F, 3) int64; normals point to positive distance
    attributes: Tensor  # (V, A) float32 in (0, 1)


def extract(
    cells: Cells,
    positions: Tensor,  # (P, 3): vertices of the grid, in any frame
    sdf: Tensor,  # (P,): negative inside; exactly zero is outside
    attribute_logits: Tensor,  # (P, A): the sigmoid is taken before interpolation
    weight_logits: Tensor,  # (M, 21): 12 beta, 8 alpha, 1 gamma
) -> Surface:
    """Extract the surface where `sdf` changes sign, with attributes interpolated along.

    Vertices come by dual vertices a cell (cells with one first), then by cell, then by group;
    faces by the sign and the grid indices of the edge that they cross, two triangles an edge.
    Edges on the border of the grid give no faces. Computes in float32.

    Raises `InputError` when the shapes do not fit together.
    """
    _check(cells, positions, sdf, attribute_logits, weight_logits)
    case = _cases(cells, sdf)
    rows = ((case > 0) & (case < 255)).nonzero().squeeze(1)  # surface cells, (m,)
    if not len(rows):
        empty = positions.new_zeros(0, 3, dtype=torch.float32)
        attributes = empty.new_zeros(0, attribute_logits.shape[1])
        return Surface(empty, empty.new_zeros(0, 3, dtype=torch.int64), attributes)
    if len(rows) < len(case):
        cells, case, weight_logits = cells.select(rows), case[rows], weight_logits[rows]
    table = tables(case.device)
    case = resolve_ambiguity(cells, case)
    values = torch.cat([positions.float(), attribute_logits.float().sigmoid()], dim=1)  # (P, 3+A)
    owners = _Owners.of(table.group_count[case])
    dual = _dual_vertices(owners, table, case, cells.corners, values, sdf.float(), weight_logits)
    faces = _faces(owners, table, case, cells, sdf, weight_logits[:, 20])
    return Surface(dual[:, :3].contiguous(), faces, dual[:, 3:].contiguous())


def resolve_ambiguity(
    cells: Cells,
    case: Tensor,  # (M,)
) -> Tensor:
    """Return the case (M,) under which each cell is looked up in the dual-vertex table.

    A problematic cell whose neighbor across the ambiguous face is problematic too is read as its
    complement; the test looks at the neighbor's own case, so both cells switch together.
    """
    normal = tables(case.device).ambiguous_normal  # (256, 3)
    asking = normal.any(1)[case].nonzero().squeeze(1)
    other = cells.find(cells.coords[asking] + normal[case[asking]])
    switch = (other >= 0) & normal.any(1)[case[other.clamp(min=0)]]
    resolved = case.clone()
    resolved[asking[switch]] = 255 - case[asking[switch]]
    return resolved


@dataclass(frozen=True)
class _Owners:
    """Which cell and group each dual vertex belongs to, in output order."""

    cell: Tensor  # (V,)
    group: Tensor  # (V,)
    first: Tensor  # (M,): a cell's first dual vertex

    @classmethod
    def of(cls, count: Tensor) -> "_Owners":
        """Lay out `count` (M,) dual vertices a cell: cells with one first, then two, ..."""
        cell, group, first, base = [], [], torch.empty_like(count), 0
        for groups in range(1, 5):
            members = (count == groups).nonzero().squeeze(1)
            first[members] = base + groups * torch.arange(len(members), device=count.device)
            cell.append(members.repeat_interleave(groups))
            group.append(torch.arange(groups, device=count.device).repeat(len(members)))
            base += groups * len(members)
        return cls(torch.cat(cell), torch.cat(group), first)


def _cases(cells: Cells, sdf: Tensor) -> Tensor:
    """Return the case of each cell, (M,) int64: the sum of 2^c over its negative corners."""
    case = torch.zeros(len(cells.coords), dtype=torch.int64, device=sdf.device)
    negative = sdf < 0
    for corner in range(8):
        case += negative[cells.corners[:, corner]].long() << corner
    return case


def _dual_vertices(
    owners: _Owners,
    table: Tables,
    case: Tensor,  # (M,)
    corners: Tensor,  # (M, 8)
    values: Tensor,  # (P, D): position and attributes
    sdf: Tensor,  # (P,)
    weight_logits: Tensor,  # (M, 21)
) -> Tensor:  # (V, D)
    """Average the crossings of each group's edges, weighted by beta."""
    dual = values.new_empty(len(owners.cell), values.shape[1])
    for start in range(0, len(dual), CHUNK):
        part = slice(start, start + CHUNK)
        cell, out = owners.cell[part], dual[part].zero_()
        edges = table.group_edges[case[cell], owners.group[part]]  # (n, 7)
        total = values.new_zeros(len(cell), 1)
        for slot in range(MAX_GROUP_EDGES):
            rows = (edges[:, slot] >= 0).nonzero().squeeze(1)
            used, edge = cell[rows], edges[rows, slot]  # (r,)
            ends = table.edge_ends[edge]  # (r, 2)
            points = corners[used[:, None], ends]
            weight = sdf[points] * _alpha(weight_logits, used, ends)  # (r, 2)
            crossing = _crossing(values, points, weight)  # (r, D)
            beta = (0.99 * weight_logits[used, edge].float().tanh() + 1)[:, None]
            out[rows] += beta * crossing
            total[rows] += beta
        out /= total
    return dual


def _alpha(weight_logits: Tensor, cell: Tensor, ends: Tensor) -> Tensor:
    """Return the corner weights at the two ends of an edge, (r, 2)."""
    return 0.99 * weight_logits[cell[:, None], 12 + ends].float().tanh() + 1


def _crossing(values: Tensor, ends: Tensor, weight: Tensor) -> Tensor:
    """Interpolate `values` (P, D) between `ends` (r, 2) to where the distance `weight` is zero."""
    first, second = weight[:, :1], weight[:, 1:]
    return (values[ends[:, 0]] * second - values[ends[:, 1]] * first) / (second - first)


def _faces(
    owners: _Owners,
    table: Tables,
    case: Tensor,  # (M,)
    cells: Cells,
    sdf: Tensor,  # (P,)
    gamma_logits: Tensor,  # (M,)
) -> Tensor:  # (F, 3)
    """Join the four dual vertices around each crossing edge and split the quads by gamma."""
    parts = [_quads_along(axis, table, case, cells, sdf) for axis in range(3)]
    order = torch.cat([part[0] for part in parts]).argsort()
    around = torch.cat([part[1] for part in parts])[order]  # (Q, 4): cells, ascending
    numbers = [constant(_around(axis)[1], case.device) for axis in range(3)]  # of edges, (4,) each
    vertex = torch.cat(
        [
            owners.first[cell] + table.edge_group[case[cell], edge]
            for (_, cell, _), edge in zip(parts, numbers, strict=True)
        ]
    )[order]  # (Q, 4)
    positive = torch.cat([part[2] for part in parts])[order]  # (Q,): sign of the first end
    turn = constant(((2, 3, 1, 0), (0, 1, 3, 2)), order.device)[positive.long()]
    vertex, around = vertex.gather(1, turn), around.gather(1, turn)
    gamma = 0.99 * gamma_logits.float().sigmoid() + 0.005  # (M,)
    g = gamma[around]
    even = (g[:, 0] * g[:, 2] > g[:, 1] * g[:, 3]).long()
    split = constant(((0, 1, 3, 3, 1, 2), (0, 1, 2, 0, 2, 3)), order.device)
    return vertex.gather(1, split[even]).view(-1, 3)  # (2Q, 3)


def _quads_along(
    axis: int, table: Tables, case: Tensor, cells: Cells, sdf: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the crossing edges along `axis` that have all four cells.

    Returns the sort key of each edge (q,), its cells (q, 4) ascending, and whether the distance
    at its first end is positive (q,).
    """
    offsets, edges = _around(axis)
    own = edges[3]  # the edge as the last of its four cells numbers it
    last = (table.edge_group[case, own] >= 0).nonzero().squeeze(1)  # (q,)
    coords = cells.coords[last]
    others = [cells.find(coords + constant(offset, coords.device)) for offset in offsets[:3]]
    around = torch.stack([*others, last], dim=1)
    complete = (around >= 0).all(1)
    around, last, coords = around[complete], last[complete], coords[complete]
    corner = EDGES[own][0]
    positive = sdf[cells.corners[last, corner]] > 0
    x, y, z = (coords + constant(CORNERS[corner], coords.device)).unbind(1)
    nx, ny, nz = (size + 1 for size in cells.shape)
    first_end = (x * ny + y) * nz + z
    second_end_rank = (2, 0, 1)[axis]  # from one vertex edges run to y - 1, z + 1, x + 1
    key = (first_end + ~positive * (nx * ny * nz)) * 3 + second_end_rank
    return key, around, positive


def _around(axis: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Return the four cells around an edge along `axis`, ascending: four offsets, four edges.

    Offsets are from the last of the four cells; the second tuple names the edge in each cell.
    """
    offsets, edges = [], []
    b, c = (other for other in range(3) if other != axis)
    for step in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
        offset = [0, 0, 0]
        offset[b], offset[c] = step
        corner = [-value for value in offset]  # where the edge begins, seen from that cell
        low = sum(bit << i for i, bit in enumerate(corner))
        ends = {low, low | 1 << axis}
        offsets.append(tuple(offset))
        edges.append(next(e for e, pair in enumerate(EDGES) if set(pair) == ends))
    return tuple(offsets), tuple(edges)


def _check(
    cells: Cells, positions: Tensor, sdf: Tensor, attribute_logits: Tensor, weight_logits: Tensor
) -> None:
    """Raise `InputError` unless all tensors have the shapes that `extract` documents."""
    count, points = len(cells.coords), len(sdf)
    wanted = (
        ("cells.coords", cells.coords, (count, 3)),
        ("cells.corners", cells.corners, (count, 8)),
        ("positions", positions, (points, 3)),
        ("sdf", sdf, (points,)),
        ("attribute_logits", attribute_logits, (points, attribute_logits.shape[-1])),
        ("weight_logits", weight_logits, (count, WEIGHTS)),
    )
    for name, tensor, shape in wanted:
        if tuple(tensor.shape) != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
