import math

import pytest
import torch
from plain_surface import plain_flexicubes, plain_grid
from test_flexicubes import check_same
from torch import Tensor

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.model import surface
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.flexicubes_tables import CORNERS
from sam3d_nb.model.surface import (
    SurfaceError,
    enclosed,
    flooded,
    mesh_from_features,
    to_gltf,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def random_voxels(resolution: int, seed: int, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return shuffled active voxels (N, 3) and their features (N, 101)."""
    random = torch.Generator().manual_seed(seed)
    active = torch.rand(resolution, resolution, resolution, generator=random) < share
    coords = active.nonzero().int()
    coords = coords[torch.randperm(len(coords), generator=random)]
    return coords, torch.randn(len(coords), 101, generator=random)


def plain_mesh(coords: Tensor, features: Tensor, resolution: int):
    grid = plain_grid(coords.numpy(), features.numpy(), resolution)
    return plain_flexicubes((resolution, resolution, resolution), *grid)


@pytest.mark.parametrize("name", ["sparse_features2mesh", "empty_surface"])
def test_golden(golden, name: str) -> None:
    g = golden(f"stage2/{name}")
    mesh = mesh_from_features(g["coords"][:, 1:], g["feats"], g.config["resolution"])
    g.check(mesh.vertices, "vertices")
    g.check(mesh.faces, "faces")
    g.check(mesh.attributes, "vertex_attrs")


def test_golden_gltf(golden) -> None:
    g = golden("stage2/to_glb")
    vertices, colors = to_gltf(Surface(g["vertices"], g["faces"], g["vertex_attrs"]))
    g.check(vertices, "glb_vertices")
    g.check(colors, "glb_vertex_colors")


def test_gltf_rounds_halves_to_even() -> None:
    attributes = torch.tensor([[0.5 / 255, 1.5 / 255, 2.5 / 255, 0.0, 0.0, 0.0]])
    mesh = Surface(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(0, 3), attributes)
    vertices, colors = to_gltf(mesh)
    assert vertices.tolist() == [[1, 3, -2]]
    assert colors.tolist() == [[0, 2, 2, 255]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_as_the_plain_twin(seed: int) -> None:
    coords, features = random_voxels(7, seed)
    assert coords.min() == 0
    assert coords.max() == 6
    check_same(mesh_from_features(coords, features, 7), plain_mesh(coords, features, 7))


def test_same_as_the_plain_twin_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "CHUNK", 13)
    coords, features = random_voxels(6, 4)
    check_same(mesh_from_features(coords, features, 6), plain_mesh(coords, features, 6))


def test_only_the_part_of_the_grid_around_the_voxels_is_visited() -> None:
    coords, features = random_voxels(4, 5)
    coords += torch.tensor([3, 2, 0], dtype=torch.int32)
    assert surface.Box.around(coords, 9).shape == (6, 6, 5)
    check_same(mesh_from_features(coords, features, 9), plain_mesh(coords, features, 9))


def test_features_may_be_evaluated_on_demand() -> None:
    coords, features = random_voxels(6, 6)
    asked = []

    def evaluate(rows: Tensor, channels: slice) -> Tensor:
        asked.append((len(rows), channels))
        return features[rows, channels]

    lazy = mesh_from_features(coords, evaluate, 6)
    eager = mesh_from_features(coords, features, 6)
    assert torch.equal(lazy.vertices, eager.vertices)
    assert torch.equal(lazy.faces, eager.faces)
    assert asked[0] == (len(coords), slice(0, 8))


def test_only_voxels_at_the_surface_are_evaluated_in_full() -> None:
    coords = torch.cartesian_prod(*[torch.arange(16)] * 3)
    center = (coords - 7.5).norm(dim=1)
    asked = 0

    def evaluate(rows: Tensor, channels: slice) -> Tensor:
        nonlocal asked
        if channels.start == 0:
            return (center[rows] - 4)[:, None].expand(-1, 8)
        asked += len(rows)
        return torch.zeros(len(rows), 93)

    assert len(mesh_from_features(coords, evaluate, 16).faces)
    assert asked < len(coords) / 2


def test_surface_runs_through_inactive_neighbors() -> None:
    """One voxel inside the object: its outer vertices are shared with 26 inactive cells."""
    coords = torch.tensor([[2, 2, 2]])
    mesh = mesh_from_features(coords, torch.full((1, 101), -0.5), 5)
    assert mesh.vertices.shape == (26, 3)
    assert mesh.faces.shape == (48, 3)


def test_distance_is_shifted_by_one_cell_before_the_mean() -> None:
    features = torch.zeros(1, 101)
    features[:, :8] = 1 / 8 - 1e-4  # below one cell of R = 8: inside
    assert len(mesh_from_features(torch.tensor([[3, 3, 3]]), features, 8).faces)
    features[:, :8] = 1 / 8  # exactly zero after the shift: outside
    assert not len(mesh_from_features(torch.tensor([[3, 3, 3]]), features, 8).faces)


def test_bad_voxels_are_refused() -> None:
    coords, features = random_voxels(6, 7)
    with pytest.raises(InputError, match=r"\(0, 3\)"):
        mesh_from_features(coords[:0], features[:0], 6)
    with pytest.raises(InputError, match=r"float32 of shape .* expected integers"):
        mesh_from_features(coords.float(), features, 6)
    with pytest.raises(InputError, match=r"\[0, 5\].*outside of \[0, 5\)"):
        mesh_from_features(coords, features, 5)
    with pytest.raises(InputError, match=r"outside"):
        mesh_from_features(coords - 1, features, 6)
    with pytest.raises(InputError, match=rf"only {len(coords)} of {len(coords) + 2} voxels"):
        mesh_from_features(torch.cat([coords, coords[:2]]), torch.cat([features, features[:2]]), 6)
    with pytest.raises(InputError, match=r"expected \(\d+, 101\)"):
        mesh_from_features(coords, features[:, :100], 6)


@pytest.mark.parametrize("channel", [0, 7, 8, 31, 32, 52, 53, 100])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(channel: int, bad: float) -> None:
    coords, features = random_voxels(6, 8)
    features[:, channel] = bad
    with pytest.raises(SurfaceError, match="not finite") as caught:
        mesh_from_features(coords, features, 6)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ReconstructionError)


def test_filled_leaves_one_surface_where_voxels_enclose_a_space() -> None:
    """A shell of voxels around a ball: open it has a wall on its inner side as well."""
    size = 16
    axis = torch.arange(size)
    grid = torch.cartesian_prod(axis, axis, axis)
    radius = ((grid + 0.5) / size - 0.5).norm(dim=1) * size
    coords = grid[(radius - 5.5).abs() < 1.2]
    features = torch.zeros(len(coords), 101)
    for number, corner in enumerate(CORNERS):
        place = (coords + torch.tensor(corner)) / size - 0.5
        features[:, number] = place.norm(dim=1) - 5.5 / size + 1 / size
    filled = mesh_from_features(coords, features, size, filled=True)
    assert (filled.vertices.norm(dim=1) * size - 5.5).abs().max() < 0.2
    opened = mesh_from_features(coords, features, size)
    inner = opened.vertices.norm(dim=1) * size < 5
    assert int(inner.sum()) > 100
    assert len(opened.vertices) - int(inner.sum()) == len(filled.vertices)


def test_filled_changes_nothing_where_no_space_is_enclosed() -> None:
    coords, features = torch.tensor([[3, 3, 3], [3, 3, 4]]), torch.full((2, 101), -0.5)
    opened, filled = (mesh_from_features(coords, features, 8, filled=f) for f in (False, True))
    assert torch.equal(opened.vertices, filled.vertices)
    assert torch.equal(opened.faces, filled.faces)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 1.0])
def test_what_a_flood_does_not_reach_is_what_components_say(device: str, share: float) -> None:
    random = torch.Generator().manual_seed(int(share * 10))
    empty = torch.rand(14, 17, 9, generator=random) < share
    empty[4:8, 4:8, 3:6] = False
    empty[5:7, 5:7, 4] = True  # a hollow
    found = empty & ~flooded(empty.to(device)).cpu()
    assert torch.equal(found, enclosed(empty))
    assert torch.equal(found, enclosed(empty.to(device)).cpu())
    assert found.any()


def test_a_flood_goes_around_corners() -> None:
    """A path that turns back at every other wall, to a cave in the middle."""
    empty = torch.zeros(21, 21, 3, dtype=torch.bool)
    for x in range(1, 20, 2):
        empty[x, 1:20, 1] = True
        empty[x + 1, 19 if x % 4 == 1 else 1, 1] = True
    assert empty[20].sum() == 1  # the way out
    assert torch.equal(flooded(empty), empty)
