"""From the features of fine voxels to a triangle mesh, without a dense grid of features.

The mesh decoder gives 101 channels for each active voxel of an R^3 grid: values at the voxel's
eight corners, which are averaged where voxels meet, and weights of the cell. Vertices that no
active voxel touches have distance +1, so surface may also run through cells beside the active
voxels. Distances are averaged first, in a volume of single numbers around the object; all other
channels are evaluated and kept only where the surface is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.model.flexicubes import WEIGHTS, Cells, Surface, extract
from sam3d_nb.model.flexicubes_tables import CORNERS

ATTRIBUTES = 6  # channels a corner: red, green, blue and three normal-like ones
CHANNELS = 101
SDF = slice(0, 8)
REST = slice(8, CHANNELS)  # deformation 8 x 3, weights 21, attributes 8 x 6
CHUNK = 1 << 18  # voxels evaluated at once; bounds the temporaries to about 250 MB
OVERFLOW = "if the model ran in float16, run it in bfloat16 or float32"

VoxelFeatures = Callable[[Tensor, slice], Tensor]
"""`features(rows, channels)`: float32 (n, channels) of the voxels at `rows` (n,) int64."""

Sculpt = Callable[[Tensor, Tensor], Tensor]
"""`sculpt(points, distance)`: other distances (nx, ny, nz) for the grid vertices, whose positions
(nx, ny, nz, 3) are in the z-up object frame."""


class SurfaceError(ReconstructionError, ValueError):
    """The decoded features give no surface: none is crossed, or numbers are not finite."""


@dataclass(frozen=True)
class Box:
    """The part of the grid that is looked at: all cells around the active voxels."""

    origin: Tensor  # (3,) int64
    shape: tuple[int, int, int]  # cells

    @classmethod
    def around(cls, coords: Tensor, resolution: int) -> "Box":
        """Return the bounding box of `coords` (N, 3), one cell wider, inside the grid."""
        low = (coords.amin(0) - 1).clamp(min=0)
        high = (coords.amax(0) + 1).clamp(max=resolution - 1)
        return cls(low.long(), tuple((high - low + 1).tolist()))

    @property
    def points(self) -> tuple[int, int, int]:
        """Number of grid vertices along x, y, z."""
        nx, ny, nz = self.shape
        return nx + 1, ny + 1, nz + 1

    def positions(self, resolution: int) -> Tensor:
        """Return where the vertices are, (*points, 3), the grid being [-0.5, 0.5]^3."""
        axes = [
            torch.arange(n, device=self.origin.device) + start
            for n, start in zip(self.points, self.origin, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) / resolution - 0.5

    def cell(self, coords: Tensor) -> Tensor:
        """Linear index of grid cells `coords` (n, 3) in a volume of `shape`, (n,) int64."""
        x, y, z = (coords - self.origin).unbind(1)
        return (x * self.shape[1] + y) * self.shape[2] + z

    def corners(self, coords: Tensor) -> list[Tensor]:
        """Linear indices of the corners of `coords` (n, 3) in a volume of `points`, 8 x (n,)."""
        _, ny, nz = self.points
        x, y, z = (coords - self.origin).unbind(1)
        first = (x * ny + y) * nz + z
        return [first + (dx * ny + dy) * nz + dz for dx, dy, dz in CORNERS]

    def at_corner(self, volume: Tensor, number: int) -> Tensor:
        """View a volume of `points` from each cell's corner `number`: a volume of `shape`."""
        (dx, dy, dz), (nx, ny, nz) = CORNERS[number], self.shape
        return volume.view(self.points)[dx : dx + nx, dy : dy + ny, dz : dz + nz]


def mesh_from_features(
    coords: Tensor,  # (N, 3) int: active voxels in [0, resolution), each once
    features: Tensor | VoxelFeatures,  # (N, 101), or a function that evaluates a part of it
    resolution: int,
    *,
    filled: bool = False,
    sculpt: Sculpt | None = None,
) -> Surface:
    """Extract the surface that the mesh decoder's voxel features describe.

    With `filled`, grid vertices that no voxel touches are inside where the voxels enclose them.
    `sculpt` may change the distances.

    Vertices are in the z-up object frame, in about [-0.5, 0.5]; attributes (V, 6) in (0, 1) are
    red, green, blue and three normal-like channels. Empty tensors when no surface is crossed.
    Raises `InputError` for wrong shapes, no voxels, and voxels out of range or repeated;
    `SurfaceError` when features are not finite.
    """
    _check(coords, features, resolution)
    lookup = _rows_of(features) if isinstance(features, Tensor) else features
    box = Box.around(coords, resolution)
    active = _occupancy(box, coords)
    distance = _distances(box, coords, active, lookup, resolution)
    if filled:
        distance[enclosed(_count(box, active) == 0)] = -1.0
    if sculpt:
        distance = sculpt(box.positions(resolution), distance)
    cells, touched, row_of_point = _surface_cells(box, distance)
    sums, weights = _average(box, coords, lookup, cells, touched, row_of_point)
    points = touched.nonzero()  # (P, 3), as the rows of `cells.corners`
    sums /= _count(box, active)[touched].clamp(min=1)[:, None]
    if not (sums.isfinite().all() and weights.isfinite().all()):
        raise SurfaceError(
            f"features of some of {len(coords)} voxels are not finite at the surface; {OVERFLOW}"
        )
    position = (points + box.origin) / resolution - 0.5 + sums[:, :3].tanh() / (2 * resolution)
    return extract(cells, position, distance[touched], sums[:, 3:], weights)


def to_gltf(surface: Surface) -> tuple[Tensor, Tensor]:
    """Turn a surface y-up and its colors into bytes, as GLB files hold them.

    Returns vertices (V, 3), (x, y, z) -> (x, z, -y), and RGBA (V, 4) uint8, alpha 255.
    """
    x, y, z = surface.vertices.unbind(1)
    color = (surface.attributes[:, :3] * 255).round()  # halves to even
    rgba = torch.cat([color, torch.full_like(color[:, :1], 255)], dim=1)
    return torch.stack([x, z, -y], dim=1), rgba.to(torch.uint8)


def _rows_of(features: Tensor) -> VoxelFeatures:
    return lambda rows, channels: features[rows, channels].float()


def _check(coords: Tensor, features: Tensor | VoxelFeatures, resolution: int) -> None:
    """Raise `InputError` for anything but at least one voxel inside the grid with its features."""
    if coords.ndim != 2 or coords.shape[1] != 3 or not len(coords) or coords.is_floating_point():
        raise InputError(
            f"coords is {coords.dtype} of shape {tuple(coords.shape)}, expected integers (N, 3) "
            "with N > 0"
        )
    if isinstance(features, Tensor) and tuple(features.shape) != (len(coords), CHANNELS):
        wanted = (len(coords), CHANNELS)
        raise InputError(f"features has shape {tuple(features.shape)}, expected {wanted}")
    low, high = torch.stack(coords.aminmax()).tolist()
    if low < 0 or high >= resolution:
        raise InputError(f"voxels lie in [{low}, {high}], outside of [0, {resolution})")


def _occupancy(box: Box, coords: Tensor) -> Tensor:
    """Return which cells of the box are active, (nx, ny, nz) bool."""
    active = torch.zeros(box.shape, dtype=torch.bool, device=coords.device)
    active.view(-1)[box.cell(coords)] = True
    distinct = int(active.sum())
    if distinct != len(coords):
        raise InputError(f"only {distinct} of {len(coords)} voxels are distinct")
    return active


def _count(box: Box, active: Tensor) -> Tensor:
    """Return how many active voxels touch each vertex, uint8 volume of `box.points`."""
    count = torch.zeros(box.points, dtype=torch.uint8, device=active.device)
    for number in range(8):
        box.at_corner(count, number).add_(active)
    return count


def _distances(
    box: Box, coords: Tensor, active: Tensor, features: VoxelFeatures, resolution: int
) -> Tensor:
    """Average the signed distance of the voxels around each vertex, volume of `box.points`."""
    total = torch.zeros(box.points, device=coords.device)
    flat = total.view(-1)
    for rows in torch.arange(len(coords), device=coords.device).split(CHUNK):
        sdf = features(rows, SDF) - 1 / resolution  # (n, 8)
        # as corner c no vertex occurs twice, so the order of the sums is fixed
        for corner, values in zip(box.corners(coords[rows]), sdf.unbind(1), strict=True):
            flat.index_add_(0, corner, values)
    count = _count(box, active)
    distance = torch.where(count > 0, total / count, 1.0)
    if not (finite := distance.isfinite()).all():
        bad = int((~finite).sum())
        raise SurfaceError(f"the signed distance is not finite at {bad} grid vertices; {OVERFLOW}")
    return distance


def enclosed(empty: Tensor) -> Tensor:
    """Return which vertices of a bool volume hang together without reaching its border."""
    if empty.is_cuda:
        return empty & ~flooded(empty)
    from scipy import ndimage  # slow to import, so not before it is needed

    labels, count = ndimage.label(empty.cpu().numpy())  # face neighbors
    faces = [labels.take(end, axis) for axis in range(3) for end in (0, -1)]
    outside = np.zeros(count + 1, dtype=bool)
    outside[np.concatenate([face.ravel() for face in faces])] = True
    outside[0] = True  # vertices that are not empty
    return torch.from_numpy(~outside[labels]).to(empty.device)


def flooded(empty: Tensor) -> Tensor:
    """Return which vertices of a bool volume hang together with its border, face by face.

    A step takes every row of `empty` along x, y or z as a whole, so few steps reach far.
    """
    reached = empty.clone()
    reached[1:-1, 1:-1, 1:-1] = False
    runs = [_runs(empty, axis) for axis in range(3)]
    most = max(int(empty.numel() // size) * (size + 1) for size in empty.shape)
    count, before = int(reached.sum()), -1
    while count != before:
        for run in runs:
            hit = torch.zeros(most + 1, dtype=torch.bool, device=empty.device)
            hit.scatter_(0, torch.where(reached, run, most).view(-1), True)
            reached = hit[run] & empty
        count, before = int(reached.sum()), count
    return reached


def _runs(empty: Tensor, axis: int) -> Tensor:
    """Return numbers (nx, ny, nz) int64: of `empty` vertices in a row along `axis` it is one."""
    size = empty.shape[axis]
    shape = [1 if other == axis else n for other, n in enumerate(empty.shape)]
    lines = torch.arange(empty.numel() // size, device=empty.device).view(shape)
    return (~empty).cumsum(axis) + lines * (size + 1)


def _surface_cells(box: Box, distance: Tensor) -> tuple[Cells, Tensor, Tensor]:
    """Find the cells whose corners differ in sign.

    Returns the cells with rows into the vertices that they touch; which vertices those are, bool
    volume; and the row of each vertex (-1: none), int32 volume. The volumes are of `box.points`.
    """
    negative = distance < 0
    some, every = negative.new_zeros(box.shape), negative.new_ones(box.shape)
    for number in range(8):
        some |= box.at_corner(negative, number)
        every &= box.at_corner(negative, number)
    crossed = some & ~every
    touched = torch.zeros_like(negative)
    for number in range(8):
        box.at_corner(touched, number).logical_or_(crossed)
    row = torch.full(box.points, -1, dtype=torch.int32, device=distance.device)
    row[touched] = torch.arange(int(touched.sum()), dtype=torch.int32, device=distance.device)
    corners = torch.stack([box.at_corner(row, number)[crossed] for number in range(8)], dim=1)
    return Cells(box.shape, crossed.nonzero(), corners), touched, row


def _average(
    box: Box,
    coords: Tensor,
    features: VoxelFeatures,
    cells: Cells,
    touched: Tensor,
    row_of_point: Tensor,
) -> tuple[Tensor, Tensor]:
    """Evaluate deformation, attributes and weights where the surface is.

    Returns the sums over the active voxels at each touched vertex, (P, 3 + 6), and the weight
    logits of the cells, (M, 21), zero for inactive ones.
    """
    near = torch.zeros(box.shape, dtype=torch.bool, device=coords.device)
    for number in range(8):
        near |= box.at_corner(touched, number)
    wanted = near.view(-1)[box.cell(coords)].nonzero().squeeze(1)  # (n,): voxels to evaluate
    sums = torch.zeros(int(touched.sum()), 3 + ATTRIBUTES, device=coords.device)
    weights = torch.zeros(len(cells.coords), WEIGHTS, device=coords.device)
    if not len(wanted):
        return sums, weights
    for rows in wanted.split(CHUNK):
        voxels, values = coords[rows], features(rows, REST)
        deformation, weight, attributes = values.split([24, WEIGHTS, 8 * ATTRIBUTES], dim=1)
        fields = deformation.unflatten(1, (8, 3)), attributes.unflatten(1, (8, ATTRIBUTES))
        by_corner = torch.cat(fields, dim=2).unbind(1)  # 8 x (n, 9)
        for corner, field in zip(box.corners(voxels), by_corner, strict=True):
            point = row_of_point.view(-1)[corner]
            used = (point >= 0).nonzero().squeeze(1)
            sums.index_add_(0, point[used], field[used])
        cell = cells.find(voxels - box.origin)
        used = (cell >= 0).nonzero().squeeze(1)
        weights[cell[used]] = weight[used]
    return sums, weights
