"""Logits to coordinates: golden rows, plain twins with loops, ties, bad input."""

import itertools

import pytest
import torch

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import CoordsConfig
from sam3d_nb.model.coords import (
    find_voxels,
    halve,
    occupied_voxels,
    prune,
    subset,
    voxel_positions,
)


def check_exact(file, actual, key):
    assert actual.dtype == torch.int32
    assert torch.equal(actual, file[key])


def test_golden(golden):
    file = golden("stage1/coords")
    config = CoordsConfig(file.config["max_neighbor_axes_dist"], file.config["max_coords"])
    occupied = occupied_voxels(file["in.logits"])
    check_exact(file, occupied, "coords_original")
    check_exact(file, prune(occupied, config.prune_distance), "pruned")
    check_exact(file, prune(occupied, 2), "pruned_dist2")
    voxels = find_voxels(file["in.logits"], config)
    check_exact(file, voxels.coords, "downsampled_small")
    check_exact(file, voxels.occupied, "coords_original")
    assert voxels.factor == file.config["factor_small"]


def test_golden_halving(golden):
    file = golden("stage1/coords")
    pruned = prune(file["big.in"].int())
    assert len(pruned) == file["big.pruned_count"].item()
    check_exact(file, halve(pruned), "big.downsampled")


def test_more_than_the_limit_is_halved(golden):
    file = golden("stage1/coords")
    logits = file["in.logits"]
    count = len(file["pruned"])
    assert find_voxels(logits, CoordsConfig(limit=count)).factor == 1
    voxels = find_voxels(logits, CoordsConfig(limit=count - 1))
    assert voxels.factor == 2
    assert torch.equal(voxels.coords, halve(file["pruned"]))


def test_zero_is_empty():
    logits = torch.zeros(1, 1, 2, 2, 2)
    logits[0, 0, 1, 0, 1] = 1e-30
    assert occupied_voxels(logits).tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("distance", [0, 1, 2])
def test_prune_against_loops(distance):
    logits = torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(1)) - 0.02
    logits[0, 0, 1:7, 1:7, 1:7] = 1
    coords = occupied_voxels(logits)
    present = {tuple(row) for row in coords[:, 1:].tolist()}
    around = list(itertools.product(range(-distance, distance + 1), repeat=3))
    kept = [
        row
        for row in coords.tolist()
        if distance == 0
        or any((row[1] + a, row[2] + b, row[3] + c) not in present for a, b, c in around)
    ]
    assert prune(coords, distance).tolist() == kept
    assert distance == 0 or len(kept) < len(coords)


def test_full_grid_keeps_its_border():
    coords = occupied_voxels(torch.ones(1, 1, 4, 4, 4))
    assert len(prune(coords)) == 64 - 8


def test_halving_rounds_ties_to_even():
    """Voxels 1 … 6 go to 2.5, 2.9, 3.3, 3.7, 4.1, 4.5; rounding halves up would lose the 2."""
    line = torch.tensor([[0, x, 0, 0] for x in range(1, 7)], dtype=torch.int32)
    assert halve(line).tolist() == [[0, 2, 0, 0], [0, 3, 0, 0], [0, 4, 0, 0]]


def plain_halve(values):
    low, high = min(values), max(values)
    size = high - low + 1
    target = size / 2
    offset = (size - target) / 2
    out = set()
    for c in values:
        new = (c - low) / (high - low) * (target - 1) + low + offset
        out.add(min(max(round(new), int(low + offset)), int(low + offset + target - 1)))
    return sorted(out)


@pytest.mark.parametrize("bounds", [(0, 2), (0, 9), (3, 21), (5, 64), (0, 64), (10, 27)])
def test_halving_against_loops(bounds):
    values = list(range(*bounds))
    line = torch.tensor([[0, 0, x, 7] for x in values], dtype=torch.int32)
    assert halve(line)[:, 2].tolist() == plain_halve(values)


def test_subset_keeps_the_order():
    coords = torch.tensor([[0, x, 0, 0] for x in range(100)], dtype=torch.int32)
    generator = torch.Generator().manual_seed(3)
    kept = subset(coords, 40, generator)
    assert len(kept) == 40
    assert kept[:, 1].tolist() == sorted(set(kept[:, 1].tolist()))
    assert kept[:, 1].tolist() != list(range(40))
    assert torch.equal(subset(coords, 40, torch.Generator().manual_seed(3)), kept)
    assert subset(coords, 100) is coords


def test_subset_after_halving():
    logits = torch.ones(1, 1, 12, 12, 12)
    voxels = find_voxels(logits, CoordsConfig(prune_distance=0, limit=100))
    assert len(voxels.coords) == 100
    assert voxels.factor == 2


def test_positions_are_lower_corners():
    coords = torch.tensor([[0, 0, 32, 63]], dtype=torch.int32)
    assert voxel_positions(coords).tolist() == [[-0.5, 0.0, 63 / 64 - 0.5]]


def test_bad_input():
    with pytest.raises(InputError, match=r"\(2, 1, 4, 4, 4\)"):
        find_voxels(torch.ones(2, 1, 4, 4, 4))
    with pytest.raises(InputError, match="none of 64 voxels"):
        find_voxels(-torch.ones(1, 1, 4, 4, 4))
    with pytest.raises(InputError, match="64 values"):
        find_voxels(torch.full((1, 1, 4, 4, 4), torch.nan))
    with pytest.raises(InputError, match="0 rows"):
        prune(torch.zeros(0, 4, dtype=torch.int32))
    with pytest.raises(InputError, match=r"\(5, 3\)"):
        halve(torch.zeros(5, 3, dtype=torch.int32))
    with pytest.raises(InputError, match="batch item 0"):
        prune(torch.tensor([[1, 0, 0, 0]], dtype=torch.int32))
