"""Sparse voxels: validation, and every table against a plain loop."""

import gc
import weakref

import pytest
import torch
from coordinates import voxels
from harness import Golden
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model.grid import OCTANTS, TAPS, Grid


def row_of(coords: Tensor) -> dict[tuple[int, ...], int]:
    return {tuple(row): number for number, row in enumerate(coords.tolist())}


def plain_neighbors(coords: Tensor) -> Tensor:
    rows = row_of(coords)
    return torch.tensor(
        [
            [rows.get((b, x + i, y + j, z + k), len(coords)) for i, j, k in TAPS]
            for b, x, y, z in coords.tolist()
        ]
    )


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("side", [1, 5, 9])
def test_neighbors(side: int, items: int) -> None:
    coords = voxels(min(60, side**3), side, items=items)
    assert torch.equal(Grid(coords, side).neighbors.long(), plain_neighbors(coords))


def test_batch_items_in_any_order() -> None:
    first, second = voxels(20, 6), voxels(30, 6, seed=1)
    second[:, 0] = 1
    coords = torch.cat([second, first])
    grid = Grid(coords, 6)
    assert torch.equal(grid.neighbors.long(), plain_neighbors(coords))
    assert [coords[rows, 0].unique().tolist() for rows in grid.items] == [[0], [1]]


def test_neighbors_of_subdivided_grids() -> None:
    grid = Grid(voxels(30, 5, items=2), 5)
    for _ in range(2):
        grid = grid.subdivided
        searched = Grid(grid.coords, grid.resolution)
        assert torch.equal(grid.neighbors, searched.neighbors)
    assert torch.equal(grid.neighbors.long(), plain_neighbors(grid.coords))


def test_neighbors_of_a_subdivided_grid_without_its_parent() -> None:
    grid = Grid(voxels(60, 8), 8)
    expected = grid.subdivided.subdivided.neighbors
    alone = Grid(grid.coords, 8).subdivided.subdivided  # the grids before it are gone
    assert torch.equal(alone.neighbors, expected)


def test_tables_go_with_the_grid() -> None:
    """On a card they are hundreds of megabytes, too many to wait for the garbage collector."""
    grid = Grid(voxels(60, 8), 8)
    held = [grid.subdivided.subdivided.neighbors, grid.parents.index, grid.doubled.parent_taps]
    seen = [weakref.ref(table) for table in held]
    gc.disable()
    try:
        del grid, held
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()


def test_doubled_grid_is_two_items() -> None:
    grid = Grid(voxels(30, 6, items=2), 6)
    doubled = grid.doubled
    assert len(doubled.items) == 4
    assert torch.equal(doubled.neighbors.long(), plain_neighbors(doubled.coords))
    parents, single = doubled.parents, grid.parents
    expected = torch.cat([single.index, single.index + len(single.grid)])
    assert torch.equal(parents.index, expected)


@pytest.mark.parametrize("side", [7, 8])
def test_parents(side: int) -> None:
    coords = voxels(90, side, items=2)
    grid = Grid(coords, side)
    half = [(b, x // 2, y // 2, z // 2) for b, x, y, z in coords.tolist()]
    order = sorted(set(half))
    parents = grid.parents
    assert [tuple(row) for row in parents.grid.coords.tolist()] == order
    assert parents.grid.resolution == 4
    assert parents.index.tolist() == [order.index(row) for row in half]
    assert parents.count.tolist() == [half.count(row) for row in order]
    for parent, children in enumerate(parents.children.tolist()):
        for octant, child in zip(OCTANTS, children, strict=True):
            if child < len(grid):
                assert half[child] == order[parent]
                assert tuple(c % 2 for c in coords[child, 1:].tolist()) == octant
    assert int((parents.children < len(grid)).sum()) == len(grid)
    Grid(parents.grid.coords, 4)  # valid on its own


def test_resampling_against_loops() -> None:
    grid = Grid(voxels(50, 6), 6)
    features = torch.randn(len(grid), 5)
    down = grid.downsample(features)
    index = grid.parents.index.long()
    for parent in range(len(down)):
        children = features[index == parent]
        torch.testing.assert_close(down[parent], children.sum(0) / (len(children) + 1))
    assert torch.equal(grid.upsample(down), down[index])
    fine = grid.subdivided.coords[:, 1:] // 2
    assert torch.equal(fine, grid.xyz.repeat_interleave(8, 0))
    assert torch.equal(grid.subdivide(features), features.repeat_interleave(8, 0))


def test_updown_golden(golden) -> None:
    data: Golden = golden("stage2/sparse_updown")
    grid = Grid(data["coords"])
    down = grid.downsample(data["feats"])
    data.check(grid.parents.grid.coords, "down_coords")
    data.check(grid.parents.index, "idx")
    data.check(down, "down_feats")
    data.check(grid.upsample(down), "up_feats")
    data.check(grid.coords, "up_coords")
    head = len(data["subdivide_coords"])
    data.check(grid.subdivided.coords[:head], "subdivide_coords")
    data.check(grid.subdivide(data["feats"])[:head], "subdivide_feats")


def test_half_precision_sums_in_float32() -> None:
    coords = torch.tensor([(0, *octant) for octant in OCTANTS], dtype=torch.int32)
    features = torch.tensor([2048.0] + [1.0] * 7).half()[:, None]
    mean = Grid(coords, 2).downsample(features)
    assert mean.dtype == torch.float16
    assert mean.item() == pytest.approx(2055 / 9, rel=1e-3)  # 2048 / 9 if summed in float16


def test_down_and_up_have_gradients() -> None:
    grid = Grid(voxels(12, 4), 4)
    features = torch.randn(len(grid), 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: grid.upsample(grid.downsample(x)), features)


@pytest.mark.parametrize(
    ("size", "shift", "side"), [(8, 0, 20), (8, 4, 20), (8, 4, 64), (3, 1, 7), (8, 4, 4)]
)
def test_windows(size: int, shift: int, side: int) -> None:
    coords = voxels(50, side, items=2)
    groups = Grid(coords, side).windows(size, shift)
    members: dict[tuple[int, ...], set[int]] = {}
    for row, (b, *xyz) in enumerate(coords.tolist()):
        members.setdefault((b, *((c + shift) // size for c in xyz)), set()).add(row)
    found = groups.order.split(groups.sizes)
    assert {frozenset(rows.tolist()) for rows in found} == {frozenset(m) for m in members.values()}
    assert groups.longest == max(len(m) for m in members.values())
    assert torch.equal(groups.order[groups.rank], torch.arange(len(coords)))


def test_window_golden(golden) -> None:
    data: Golden = golden("stage2/swin_blocks")
    grid = Grid(data["coords"])
    for name in data.info["weight_prefixes"]:
        shift = name.removeprefix("out_shift")
        groups = grid.windows(data.config["window_size"], int(shift))
        expected = data[f"window_of_voxel_shift{shift}"].long()
        offset = groups.offsets[1:].long()
        window = torch.bucketize(groups.rank, offset, right=True)
        assert torch.equal(window, expected)


def test_tables_are_made_once() -> None:
    grid = Grid(voxels(20, 8), 8)
    assert grid.neighbors is grid.neighbors
    assert grid.parents is grid.parents
    assert grid.subdivided is grid.subdivided
    assert grid.windows(8, 4) is grid.windows(8, 4)
    assert grid.windows(8, 4) is not grid.windows(8, 0)


def test_accepts_other_integer_types_and_devices() -> None:
    coords = voxels(20, 8)
    for dtype in (torch.int64, torch.uint8, torch.int16):
        grid = Grid(coords.to(dtype), 8)
        assert grid.coords.dtype == torch.int32
        assert torch.equal(grid.coords, coords)
    assert Grid(coords, 8).to("cpu").coords is not None


BAD = [
    (torch.zeros(3, 3, dtype=torch.int32), r"shape \(3, 3\)"),
    (torch.zeros(4, dtype=torch.int32), r"shape \(4,\)"),
    (torch.zeros(3, 4), "torch.float32"),
    (torch.zeros(0, 4, dtype=torch.int32), "0 voxels"),
    (torch.tensor([[0, 1, 2, 8], [0, 1, 2, 3]]), "1 of 2 voxels lie outside 0 to 7"),
    (torch.tensor([[0, 1, -1, 0], [0, 9, 2, 3], [0, 1, 2, 3]]), "2 of 3 voxels"),
    (torch.tensor([[0, 2**32 + 1, 2, 3]]), "1 of 1 voxels"),
    (torch.tensor([[0, 1, 2, 3], [0, 4, 4, 4], [0, 1, 2, 3]]), "3 voxels, but only 2"),
    (torch.tensor([[0, 1, 2, 3], [2, 1, 2, 3]]), "2 batch numbers run from 0 to 2"),
    (torch.tensor([[-1, 1, 2, 3]]), "1 batch numbers run from -1 to -1"),
    (torch.tensor([[0, 1, 2, 3], [1, 1, 2, 3], [0, 4, 4, 4]]), "2 batch items stand in 3 runs"),
]


@pytest.mark.parametrize(("coords", "message"), BAD)
def test_bad_coordinates(coords: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid(coords, 8)


def test_bad_resolution_and_rows() -> None:
    for resolution in (0, 513):
        with pytest.raises(InputError, match=f"resolution {resolution}; give 1 to 512"):
            Grid(voxels(1, 1), resolution)
    grid = Grid(voxels(10, 4), 4)
    for act in (grid.downsample, grid.subdivide):
        with pytest.raises(InputError, match=f"grid of {len(grid)} voxels"):
            act(torch.zeros(3, 2))
    with pytest.raises(InputError, match=f"grid of {len(grid.parents.grid)} voxels"):
        grid.upsample(torch.zeros(999, 2))


@pytest.mark.parametrize("batch", [1, 3])
def test_items_of_derived_grids_are_those_of_their_coordinates(batch):
    coords = torch.cat([voxels(20 + 5 * b, 8) + torch.tensor([b, 0, 0, 0]) for b in range(batch)])
    grid = Grid(coords.int(), 8)
    for derived in (grid, grid.parents.grid, grid.subdivided, grid.doubled):
        assert derived.items == Grid(derived.coords, derived.resolution).items
        known = list(derived.items)
        derived.forget_tables()
        assert derived.items == known  # as the coordinates say
