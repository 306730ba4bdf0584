"""Sparse voxels: the coordinates, and every table that follows from coordinates alone.

Features of N voxels are plain tensors (N, C) in the row order of the grid. A table is made on
first use and then shared by all layers and steps.
"""

import weakref
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.constants import constant
from sam3d_nb.model.layers import position_embedding
from sam3d_nb.model.windows import Groups

TAPS = tuple(product((-1, 0, 1), repeat=3))
"""Offsets (x, y, z) of the 27 neighbors of a 3x3x3 convolution, z fastest."""

OCTANTS = tuple(product((0, 1), repeat=3))
"""Offsets (x, y, z) of the 8 children of a voxel, z fastest."""


MAX_RESOLUTION = 512
"""Voxels a side; the search for neighbors fills a dense cube of this side, 4 bytes a cell."""


@dataclass(frozen=True)
class Parents:
    """The grid of half the resolution, and how voxels and their parents find one another."""

    grid: "Grid"  # M voxels, in lexicographic order of (batch, x, y, z)
    index: Tensor  # (N,) int32: row of each voxel's parent
    count: Tensor  # (M,) int32: voxels of each parent, 1 to 8
    children: Tensor  # (M, 8) int32: rows of the children by octant; N where there is none


class Grid:
    """A set of voxels in a cube of `resolution` voxels a side, for one or more batch items.

    Args:
        coords: (N, 4) of an integer type: (batch, x, y, z), with 0 <= x, y, z < resolution. Rows
            are unique, those of one batch item stand together, batch numbers are 0 to B - 1.
        resolution: voxels along each side of the cube, 1 to `MAX_RESOLUTION`.

    Raises:
        InputError: where `coords` is anything else; the message names the counts.
    """

    def __init__(self, coords: Tensor, resolution: int = 64) -> None:
        _check_form(coords, resolution)
        count = _check_values(coords, resolution)
        whole = [slice(0, len(coords))] if count == 1 else None
        self._set(coords.to(torch.int32).contiguous(), resolution, whole)
        self._check_repeats()

    def _set(self, coords: Tensor, resolution: int, items: list[slice] | None) -> None:
        self.coords = coords  # (N, 4) int32
        self.resolution = resolution
        if items is not None:
            self.items = items
        self._windows: dict[tuple[int, int], Groups] = {}
        self._positions: dict[int, Tensor] = {}

    @classmethod
    def _derived(cls, coords: Tensor, resolution: int, items: list[slice] | None = None) -> Self:
        """Make a grid of coordinates that are known to be valid, of items if those are known."""
        grid = cls.__new__(cls)
        grid._set(coords, resolution, items)
        return grid

    def __len__(self) -> int:
        return self.coords.shape[0]

    def __repr__(self) -> str:
        return f"Grid({len(self)} voxels, resolution {self.resolution}, {self.device})"

    @property
    def device(self) -> torch.device:
        """The device of the coordinates and of all tables."""
        return self.coords.device

    @property
    def xyz(self) -> Tensor:
        """Coordinates without the batch number, (N, 3) int32."""
        return self.coords[:, 1:]

    def to(self, device: torch.device | str) -> "Grid":
        """Return this grid on `device`; its tables are made there anew."""
        moved = self.coords.to(device)
        return self if moved is self.coords else Grid._derived(moved, self.resolution)

    def forget_tables(self) -> None:
        """Free every table that was made; it is made again when somebody asks for it."""
        self._windows.clear()
        self._positions.clear()
        for name in list(vars(self)):
            if isinstance(getattr(type(self), name, None), cached_property):
                delattr(self, name)

    @cached_property
    def items(self) -> list[slice]:
        """The rows of each batch item, in the order of the batch numbers."""
        numbers, counts = torch.unique_consecutive(self.coords[:, 0], return_counts=True)
        slices, start = {}, 0
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            slices[number] = slice(start, start + count)
            start += count
        return [slices[number] for number in sorted(slices)]

    @cached_property
    def neighbors(self) -> Tensor:
        """Row of each of the 27 neighbors of each voxel, (N, 27) int32; N where there is none.

        Column (a * 3 + b) * 3 + c is the voxel at offset (a - 1, b - 1, c - 1).
        """
        _, plane, line, _ = self._strides
        steps = constant(tuple(x * plane + y * line + z for x, y, z in TAPS), self.device)
        return self._volume[self._cells[:, None] + steps]

    @cached_property
    def parents(self) -> Parents:
        """The grid down-sampled by 2: parents stand at floor(coordinate / 2)."""
        side = (self.resolution + 1) // 2
        key = _lexicographic(self.coords[:, 0], self.xyz // 2, side)
        unique, index, count = torch.unique(key, return_inverse=True, return_counts=True)
        x, y, z = unique // side**2 % side, unique // side % side, unique % side
        coords = torch.stack([unique // side**3, x, y, z], dim=1).to(torch.int32)  # (M, 4)
        octant = _lexicographic(torch.zeros_like(self.coords[:, 0]), self.xyz % 2, 2)
        children = coords.new_full((len(unique) * 8,), len(self))
        children[index * 8 + octant] = self._row_numbers
        whole = [slice(0, len(coords))] if len(self.items) == 1 else None
        grid = Grid._derived(coords, side, whole)
        return Parents(grid, index.to(torch.int32), count.to(torch.int32), children.view(-1, 8))

    @cached_property
    def parent_taps(self) -> Tensor:
        """Where the 27 neighbors' parents and taps stand in a (M + 1, 27) table, (N, 27) int32.

        Entry t of a voxel is 27 * (parent of neighbor t) + t, with M as the parent of none.
        """
        parents = F.pad(self.parents.index, (0, 1), value=len(self.parents.grid))  # (N + 1,)
        table = parents[self.neighbors] * len(TAPS)
        return table + torch.arange(len(TAPS), dtype=torch.int32, device=self.device)

    @cached_property
    def subdivided(self) -> "Grid":
        """The grid of twice the resolution: 8 children a voxel, in the order of `OCTANTS`.

        Children of one voxel are consecutive rows; their neighbor table follows from this grid's.
        """
        octants = constant(tuple((0, *octant) for octant in OCTANTS), self.device, torch.int32)
        double = self.coords * constant((1, 2, 2, 2), self.device, torch.int32)
        coords = (double[:, None] + octants).view(-1, 4)  # (8 N, 4)
        items = [slice(8 * rows.start, 8 * rows.stop) for rows in self.items]
        grid = _SubdividedGrid._derived(coords, self.resolution * 2, items)
        grid._parent = weakref.ref(self)
        return grid

    @cached_property
    def doubled(self) -> "Grid":
        """This grid twice over, the copy as further batch items: one guided step in one pass."""
        shift = constant((len(self.items), 0, 0, 0), self.device, torch.int32)
        copies = [slice(rows.start + len(self), rows.stop + len(self)) for rows in self.items]
        coords = torch.cat([self.coords, self.coords + shift])
        return Grid._derived(coords, self.resolution, [*self.items, *copies])

    def windows(self, size: int, shift: int) -> Groups:
        """Return the attention windows: voxel p lies in window floor((p + shift) / size) per axis.

        There is no wrap-around, and windows of different batch items are different windows.
        """
        if (size, shift) not in self._windows:
            side = (self.resolution - 1 + shift) // size + 1
            key = _lexicographic(self.coords[:, 0], (self.xyz + shift) // size, side)
            self._windows[size, shift] = Groups(key)
        return self._windows[size, shift]

    @cached_property
    def whole_items(self) -> Groups:
        """The batch items as groups that attend inside themselves."""
        return Groups(self.coords[:, 0].long())

    def pad_items(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Put the batch items side by side; (N, C) to (B, longest item, C), zeros at the end.

        Also returns which keys are voxels, (B, 1, 1, longest item) bool; None where all are.
        """
        self.check_rows(features)
        if len(self.items) == 1:
            return features[None], None
        bucket = self.whole_items.whole
        rows = with_zero_row(features).index_select(0, bucket.rows.flatten())
        return rows.view(*bucket.rows.shape, -1), bucket.mask

    def unpad_items(self, padded: Tensor) -> Tensor:
        """Undo `pad_items`; (B, longest item, C) to (N, C)."""
        if len(self.items) == 1:
            return padded[0]
        return padded.flatten(0, 1).index_select(0, self.whole_items.whole_slot)

    def positions(self, channels: int) -> Tensor:
        """Return the sinusoidal embedding of the coordinates, (N, channels), float32."""
        if channels not in self._positions:
            self._positions[channels] = position_embedding(self.xyz, channels)
        return self._positions[channels]

    def downsample(self, features: Tensor) -> Tensor:
        """Sum the children of each parent and divide by their number plus one; (N, C) to (M, C).

        The model counts the accumulator's initial zero as one more sample.
        """
        self.check_rows(features)
        table, count = self.parents.children, self.parents.count
        gathered = with_zero_row(features).index_select(0, table.flatten())
        total = gathered.view(len(table), 8, -1).sum(dim=1, dtype=_sum_type(features))
        return (total / (count[:, None] + 1)).to(features.dtype)

    def upsample(self, features: Tensor) -> Tensor:
        """Copy each parent's features to its voxels; (M, C) to (N, C)."""
        self.parents.grid.check_rows(features)
        return features.index_select(0, self.parents.index)

    def subdivide(self, features: Tensor) -> Tensor:
        """Copy each voxel's features to its 8 children in `subdivided`; (N, C) to (8 N, C)."""
        self.check_rows(features)
        return features.repeat_interleave(8, dim=0)

    def check_rows(self, features: Tensor, channels: int | None = None) -> None:
        """Raise `InputError` unless `features` has one row a voxel (and `channels` columns)."""
        wanted = (len(self), features.shape[-1] if channels is None else channels)
        if features.dim() != 2 or tuple(features.shape) != wanted:
            width = "C" if channels is None else channels
            raise InputError(
                f"features of shape {tuple(features.shape)} do not fit a grid of {len(self)} "
                f"voxels; give ({len(self)}, {width})"
            )

    @cached_property
    def _row_numbers(self) -> Tensor:
        return torch.arange(len(self), dtype=torch.int32, device=self.device)

    @cached_property
    def _strides(self) -> tuple[int, int, int, int]:
        side = self.resolution + 2  # one empty cell around the cube
        return side**3, side**2, side, 1

    @cached_property
    def _cells(self) -> Tensor:
        """Index of each voxel in `_volume`, (N,) int64."""
        inner = self.coords.long() + constant((0, 1, 1, 1), self.device)
        return (inner * constant(self._strides, self.device)).sum(dim=1)

    @cached_property
    def _volume(self) -> Tensor:
        """Row of the voxel in each cell of the dense cube with a border, int32; N in empty ones."""
        cells = len(self.items) * self._strides[0]
        volume = torch.full((cells,), len(self), dtype=torch.int32, device=self.device)
        volume[self._cells] = self._row_numbers
        return volume

    def _check_repeats(self) -> None:
        kept = int((self._volume[self._cells] == self._row_numbers).sum())
        if kept < len(self):
            raise InputError(
                f"coordinates name {len(self)} voxels, but only {kept} of the rows are different; "
                "remove the repeated rows"
            )


class _SubdividedGrid(Grid):
    """A grid whose neighbor table follows from the parents' table, while there is one.

    It holds its parent weakly: a ring of both would keep their tables until garbage is collected.
    """

    _parent: weakref.ref[Grid]

    @cached_property
    def neighbors(self) -> Tensor:
        parent = self._parent()
        if parent is None:
            return super().neighbors
        tap, octant = _child_taps(self.device)
        table = parent.neighbors.index_select(1, tap)  # (N, 8 * 27) rows of parents
        table.mul_(8).add_(octant).clamp_(max=len(self))  # N * 8 and more: no voxel there
        return table.view(len(self), 27)


def _child_taps(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, for the 8 x 27 (octant, tap) pairs, the parent's tap and the octant inside it."""
    taps, octants = [], []
    for octant, tap in product(OCTANTS, TAPS):
        fine = [o + t for o, t in zip(octant, tap, strict=True)]  # -1 to 2 within the parent
        taps.append(TAPS.index(tuple(f // 2 for f in fine)))  # type: ignore[arg-type]
        octants.append(OCTANTS.index(tuple(f % 2 for f in fine)))  # type: ignore[arg-type]
    return (
        constant(tuple(taps), device),
        constant(tuple(octants), device, torch.int32),
    )


def _lexicographic(batch: Tensor, xyz: Tensor, side: int) -> Tensor:
    """Number the cells of cubes of `side` cells in the order of (batch, x, y, z); (N,) int64."""
    x, y, z = xyz.long().unbind(1)
    return ((batch.long() * side + x) * side + y) * side + z


def with_zero_row(features: Tensor) -> Tensor:
    """Append one row of zeros, to which tables point where there is no voxel; (N + 1, C)."""
    return torch.cat([features, features.new_zeros(1, features.shape[1])])


def _sum_type(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _check_form(coords: Tensor, resolution: int) -> None:
    if not 1 <= resolution <= MAX_RESOLUTION:
        raise InputError(f"a grid cannot have resolution {resolution}; give 1 to {MAX_RESOLUTION}")
    if coords.dim() != 2 or coords.shape[1] != 4:
        raise InputError(
            f"coordinates have shape {tuple(coords.shape)}; give (N, 4): batch, x, y, z"
        )
    if coords.is_floating_point() or coords.is_complex() or coords.dtype == torch.bool:
        raise InputError(f"coordinates are {coords.dtype}; give an integer type such as int32")
    if coords.shape[0] == 0:
        raise InputError("coordinates name 0 voxels; give at least 1")


def _check_values(coords: Tensor, resolution: int) -> int:
    """Raise `InputError` for coordinates that no grid has; return the number of batch items."""
    coords = coords.long()
    low, high = torch.stack([coords.amin(0), coords.amax(0)]).tolist()
    if min(low[1:]) < 0 or max(high[1:]) >= resolution:
        outside = ((coords[:, 1:] < 0) | (coords[:, 1:] >= resolution)).any(1).sum()
        raise InputError(
            f"{int(outside)} of {len(coords)} voxels lie outside 0 to {resolution - 1}: "
            f"coordinates run from {min(low[1:])} to {max(high[1:])}"
        )
    if low[0] == high[0] == 0:
        return 1
    runs, counts = torch.unique_consecutive(coords[:, 0], return_counts=True)
    present = torch.unique(runs)
    if low[0] != 0 or high[0] != len(present) - 1:
        raise InputError(
            f"{len(present)} batch numbers run from {low[0]} to {high[0]}; "
            f"give 0 to {len(present) - 1} without gaps"
        )
    if len(counts) != len(present):
        raise InputError(
            f"rows of {len(present)} batch items stand in {len(counts)} runs; "
            "put the rows of each item together"
        )
    return len(present)
