"""Occupancy logits to the coordinate set of stage 2: occupied, not interior, not too many."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import CoordsConfig

GRID = 64  # voxels a side of the published occupancy grid


@dataclass(frozen=True)
class Voxels:
    """The sparse structure of one object."""

    coords: Tensor  # (N, 4) int32: batch, x, y, z, in lexicographic order; what stage 2 takes
    occupied: Tensor  # (M, 4) int32: all occupied voxels, interior ones included
    factor: int  # 1, or 2 when `coords` were halved; the layout's scale is multiplied by it


def find_voxels(
    logits: Tensor,
    config: CoordsConfig | None = None,
    generator: torch.Generator | None = None,
) -> Voxels:
    """Turn occupancy logits (1, 1, R, R, R) into voxels.

    `generator` draws the subset that is kept where halving still leaves too many voxels, which
    cannot happen on the published grid. Raises `InputError` for another shape, values that are not
    finite, or logits of which none is above zero.
    """
    config = config or CoordsConfig()
    occupied = occupied_voxels(logits)
    coords = prune(occupied, config.prune_distance)
    if len(coords) <= config.limit:
        return Voxels(coords, occupied, 1)
    return Voxels(subset(halve(coords), config.limit, generator), occupied, 2)


def occupied_voxels(logits: Tensor) -> Tensor:
    """Return the voxels with a logit above zero, (M, 4) int32, row-major."""
    if logits.dim() != 5 or logits.shape[:2] != (1, 1) or 0 in logits.shape:
        raise InputError(f"occupancy logits must be (1, 1, X, Y, Z), got {tuple(logits.shape)}")
    bad = int((~logits.isfinite()).sum())
    if bad:
        raise InputError(
            f"occupancy logits {tuple(logits.shape)} have {bad} values that are not finite"
        )
    coords = (logits[:, 0] > 0).nonzero().int()
    if len(coords) == 0:
        raise InputError(
            f"none of {logits.numel()} voxels is occupied, so there is no object to build; "
            "try another seed or a tighter mask"
        )
    return coords


def prune(coords: Tensor, distance: int = 1) -> Tensor:
    """Drop voxels whose whole cube of side 2 · distance + 1 is occupied; keep the order.

    Outside of the grid counts as empty. `coords` is (N, 4) int32 of one batch item.
    """
    check_coords(coords)
    if distance == 0:
        return coords
    cells = coords[:, 1:].long()  # (N, 3)
    interior = torch.zeros(
        (cells.amax(0) + 1 + 2 * distance).tolist(), dtype=torch.bool, device=coords.device
    )
    interior[(cells + distance).unbind(1)] = True  # occupied, with an empty margin
    for axis in range(3):  # a whole cube is occupied when its rows are, then its slices
        interior = interior.unfold(axis, 2 * distance + 1, 1).all(-1)
    return coords[~interior[cells.unbind(1)]]


def halve(coords: Tensor) -> Tensor:
    """Halve the resolution around the middle of the box, (N, 4) to fewer rows, sorted, int32.

    The arithmetic is float32; halves round to even.
    """
    check_coords(coords)
    place = coords[:, 1:].float()  # (N, 3)
    low, high = place.amin(0), place.amax(0)
    size = high - low + 1
    target = size / 2
    offset = (size - target) / 2
    span = (high - low).clamp_min(1)  # a flat axis has only zeros above it
    scaled = (place - low) / span * (target - 1) + low + offset
    first, last = (low + offset).trunc(), (low + offset + target - 1).trunc()
    place = torch.minimum(torch.maximum(scaled.round(), first), last)
    return unique_rows(torch.cat([coords[:, :1], place.int()], 1))


def unique_rows(coords: Tensor) -> Tensor:
    """Return the distinct rows (N, 4) in lexicographic order, through an occupancy grid."""
    rows = coords.long()
    grid = torch.zeros((rows.amax(0) + 1).tolist(), dtype=torch.bool, device=coords.device)
    grid[rows.unbind(1)] = True
    return grid.nonzero().int()


def subset(coords: Tensor, limit: int, generator: torch.Generator | None = None) -> Tensor:
    """Keep at most `limit` random rows, in their order."""
    if len(coords) <= limit:
        return coords
    device = generator.device if generator is not None else coords.device
    kept = torch.randperm(len(coords), generator=generator, device=device)[:limit]
    return coords[kept.sort().values.to(coords.device)]


def voxel_positions(coords: Tensor, resolution: int = GRID) -> Tensor:
    """Return the lower corners of voxels (N, 4) in the object's unit cube, (N, 3) float32.

    The frame is the object's own: z up, [-0.5, 0.5) on every axis.
    """
    return coords[:, 1:].float() / resolution - 0.5


def check_coords(coords: Tensor) -> None:
    """Raise `InputError` unless `coords` is a (N, 4) of one batch item without negatives."""
    if coords.dim() != 2 or coords.shape[1] != 4 or coords.dtype.is_floating_point:
        raise InputError(f"voxels must be integer (N, 4), got {coords.dtype} {tuple(coords.shape)}")
    if len(coords) == 0:
        raise InputError("the voxel set is empty: 0 rows")
    lowest, last = torch.stack([coords.amin(), coords[:, 0].amax()]).tolist()
    if lowest < 0 or last > 0:
        raise InputError(
            f"voxels must belong to batch item 0 with coordinates from 0 up, got rows from "
            f"{coords.amin(0).tolist()} to {coords.amax(0).tolist()}"
        )
