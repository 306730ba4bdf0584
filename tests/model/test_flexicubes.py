from itertools import permutations, product

import numpy as np
import pytest
import torch
from plain_surface import plain_flexicubes
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.model import flexicubes
from sam3d_nb.model.flexicubes import Cells, Surface, extract, resolve_ambiguity
from sam3d_nb.model.flexicubes_tables import (
    CORNERS,
    EDGES,
    FACES,
    ambiguous_face,
    crossing_edges,
    edge_groups,
    is_ambiguous,
    tables,
)

CASES = range(256)
CPU = torch.device("cpu")


def grid_points(shape: tuple[int, int, int]) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(n + 1) for n in shape))


def dense_cells(shape: tuple[int, int, int]) -> Cells:
    """Return every cell of a grid of `shape`."""
    coords = torch.cartesian_prod(*(torch.arange(n) for n in shape))
    x, y, z = (coords[:, None] + torch.tensor(CORNERS)).unbind(-1)
    return Cells(shape, coords, (x * (shape[1] + 1) + y) * (shape[2] + 1) + z)


def random_field(shape: tuple[int, int, int], seed: int) -> dict[str, Tensor]:
    """Return random arguments of `extract` for all vertices and cells of a grid."""
    random = torch.Generator().manual_seed(seed)
    points = grid_points(shape)
    cells = shape[0] * shape[1] * shape[2]
    return {
        "positions": points + 0.4 * (torch.rand(points.shape, generator=random) - 0.5),
        "sdf": torch.randn(len(points), generator=random),
        "attribute_logits": torch.randn(len(points), 6, generator=random),
        "weight_logits": torch.randn(cells, 21, generator=random),
    }


def plain(shape: tuple[int, int, int], field: dict[str, Tensor]) -> tuple[np.ndarray, ...]:
    """Run the plain twin on the arguments of `extract`."""

    def by_key(keys: Tensor, values: Tensor) -> dict:
        values = values.double().numpy()
        return {tuple(key): value for key, value in zip(keys.tolist(), values, strict=True)}

    points, cells = grid_points(shape), dense_cells(shape).coords
    arrays = (by_key(points, field[k]) for k in ("positions", "sdf", "attribute_logits"))
    return plain_flexicubes(shape, *arrays, by_key(cells, field["weight_logits"]))


def check_same(mesh: Surface, expected: tuple[np.ndarray, ...]) -> None:
    vertices, faces, attributes = expected
    np.testing.assert_array_equal(mesh.faces.numpy(), faces)
    np.testing.assert_allclose(mesh.vertices.numpy(), vertices, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(mesh.attributes.numpy(), attributes, rtol=2e-4, atol=2e-4)


def sphere(size: int = 12, radius: float = 4.3) -> tuple[Cells, dict[str, Tensor]]:
    shape = (size, size, size)
    field = random_field(shape, 0)
    field["positions"] = grid_points(shape).float()
    field["sdf"] = (field["positions"] - (size / 2 - 0.1)).norm(dim=1) - radius
    field["weight_logits"] = torch.zeros_like(field["weight_logits"])
    return dense_cells(shape), field


# --- Tables ---------------------------------------------------------------------------------


def test_each_crossing_edge_is_in_exactly_one_group() -> None:
    for case in CASES:
        groups = edge_groups(case)
        assert sorted(edge for group in groups for edge in group) == crossing_edges(case)
        assert all(list(group) == sorted(group) for group in groups)
        assert all(3 <= len(group) <= 7 for group in groups)
        assert len(groups) == 0 if case in (0, 255) else 1 <= len(groups) <= 4


def test_groups_leave_each_face_as_often_as_they_enter_it() -> None:
    for case in CASES:
        for group, corners in product(edge_groups(case), FACES):
            assert len([e for e in group if set(EDGES[e]) <= set(corners)]) % 2 == 0


def test_groups_do_not_depend_on_how_the_cube_is_turned_or_mirrored() -> None:
    for case in CASES:
        numbers = {corner: c for c, corner in enumerate(CORNERS)}
        for axes, flips in product(permutations(range(3)), product((0, 1), repeat=3)):
            moved = [
                numbers[tuple(CORNERS[c][axes[i]] ^ flips[i] for i in range(3))] for c in range(8)
            ]
            other = sum(1 << moved[c] for c in range(8) if case >> c & 1)
            edge_of = {frozenset(ends): e for e, ends in enumerate(EDGES)}
            edge = [edge_of[frozenset((moved[a], moved[b]))] for a, b in EDGES]
            expected = {frozenset(edge[e] for e in group) for group in edge_groups(case)}
            assert {frozenset(group) for group in edge_groups(other)} == expected


def test_a_case_and_its_complement_differ_only_at_ambiguous_faces() -> None:
    for case in CASES:
        assert crossing_edges(case) == crossing_edges(255 - case)
        ambiguous = [face for face in range(6) if is_ambiguous(case, face)]
        assert ambiguous == [face for face in range(6) if is_ambiguous(255 - case, face)]
        if not ambiguous:
            assert set(edge_groups(case)) == set(edge_groups(255 - case))


def test_an_ambiguous_face_separates_its_negative_corners() -> None:
    assert len(edge_groups(0b00001001)) == 2  # two corners on the diagonal of one face
    assert len(edge_groups(255 - 0b00001001)) == 1  # the same face, now one sheet between
    assert len(edge_groups(0b01101001)) == 4  # every other corner


def test_groups_are_ordered_by_their_smallest_corner_of_the_rarer_sign() -> None:
    for case in set(CASES) - {0, 255}:
        rare = [c for c in range(8) if (case >> c & 1) == (case.bit_count() <= 4)]
        lowest = [min(c for c in rare for e in g if c in EDGES[e]) for g in edge_groups(case)]
        assert lowest == sorted(lowest)


def test_thirty_six_cases_are_problematic() -> None:
    problematic = [case for case in CASES if ambiguous_face(case) is not None]
    assert len(problematic) == 36
    assert all(case.bit_count() > 4 for case in problematic)
    normal = tables(CPU).ambiguous_normal
    assert normal.any(1).nonzero().squeeze(1).tolist() == problematic
    for case in problematic:
        (axis,) = normal[case].nonzero().squeeze(1).tolist()
        side = int(normal[case][axis] > 0)
        corners = [c for c in range(8) if CORNERS[c][axis] == side]
        assert [case >> c & 1 for c in corners] in ([0, 1, 1, 0], [1, 0, 0, 1])


def test_tensors_hold_the_groups() -> None:
    made = tables(CPU)
    for case in CASES:
        groups = edge_groups(case)
        assert made.group_count[case] == len(groups)
        rows = [[e for e in row if e >= 0] for row in made.group_edges[case].tolist()]
        assert rows == [list(group) for group in groups] + [[]] * (4 - len(groups))
        for edge, group in enumerate(made.edge_group[case].tolist()):
            assert edge in groups[group] if group >= 0 else edge not in crossing_edges(case)


def test_edges_join_neighboring_corners_and_run_down_along_y() -> None:
    for edge, (a, b) in enumerate(EDGES):
        step = np.subtract(CORNERS[b], CORNERS[a])
        expected = [0, -1, 0] if edge >= 8 else [1, 0, 0] if edge % 2 == 0 else [0, 0, 1]
        assert step.tolist() == expected


# --- Extraction -----------------------------------------------------------------------------


def test_golden(golden) -> None:
    g = golden("stage2/flexicubes_dense")
    size = g.config["resolution"]
    cells = dense_cells((size, size, size))
    points = torch.cartesian_prod(*[torch.arange(size + 1)] * 3) / size - 0.5
    g.check(points + g["deform_logits"].tanh() / (2 * size), "grid_vertices")
    mesh = extract(cells, g["grid_vertices"], g["sdf"], g["colors_logits"], g["weights"])
    g.check(mesh.vertices, "vertices")
    g.check(mesh.faces, "faces")
    g.check(mesh.attributes, "vertex_attrs")


def test_golden_case_numbers(golden) -> None:
    g = golden("stage2/flexicubes_dense")
    size = g.config["resolution"]
    cells = dense_cells((size, size, size)).select(g["surface_cube_index"].long())
    raw = flexicubes._cases(cells, g["sdf"])
    torch.testing.assert_close(raw, g["case_ids_raw"].long())
    torch.testing.assert_close(resolve_ambiguity(cells, raw), g["case_ids"].long())
    assert (g["case_ids"] != g["case_ids_raw"]).any()


@pytest.mark.parametrize("shape", [(6, 6, 6), (3, 7, 5), (1, 1, 1), (1, 4, 4)])
@pytest.mark.parametrize("seed", [1, 2])
def test_same_as_the_plain_twin(shape: tuple[int, int, int], seed: int) -> None:
    field = random_field(shape, seed)
    check_same(extract(dense_cells(shape), **field), plain(shape, field))


def test_same_as_the_plain_twin_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flexicubes, "CHUNK", 17)
    shape = (5, 4, 6)
    field = random_field(shape, 3)
    check_same(extract(dense_cells(shape), **field), plain(shape, field))


def test_cells_without_a_sign_change_may_be_left_out() -> None:
    cells, field = sphere()
    whole = extract(cells, **field)
    signs = field["sdf"][cells.corners] < 0
    surface = (signs.any(1) & ~signs.all(1)).nonzero().squeeze(1)
    field["weight_logits"] = field["weight_logits"][surface]
    part = extract(cells.select(surface), **field)
    assert len(surface) < len(cells.coords) / 2
    assert torch.equal(part.vertices, whole.vertices)
    assert torch.equal(part.faces, whole.faces)


def test_a_sphere_is_closed_round_and_faces_outward() -> None:
    cells, field = sphere()
    mesh = extract(cells, **field)
    sides = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    key = sides[:, 0] * len(mesh.vertices) + sides[:, 1]
    reverse = sides[:, 1] * len(mesh.vertices) + sides[:, 0]
    assert len(key.unique()) == len(key)
    assert torch.equal(key.sort().values, reverse.sort().values)
    assert len(mesh.vertices) - len(sides) // 2 + len(mesh.faces) == 2  # Euler
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    volume = (torch.linalg.cross(a, b) * c).sum() / 6
    torch.testing.assert_close(volume, torch.tensor(4 / 3 * torch.pi * 4.3**3), rtol=0.07, atol=0)


def test_normals_of_faces_across_all_axes_point_to_positive_distance() -> None:
    cells, field = sphere()
    mesh = extract(cells, **field)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    outward = (torch.linalg.cross(b - a, c - a) * (a + b + c - 3 * 5.9)).sum(1)
    assert (outward > 0).all()


def test_exactly_zero_is_outside() -> None:
    shape = (2, 2, 2)
    field = random_field(shape, 4)
    field["sdf"] = torch.zeros(27)
    assert not len(extract(dense_cells(shape), **field).faces)
    field["sdf"][13] = -1.0  # the vertex in the middle: all eight cells and six edges
    mesh = extract(dense_cells(shape), **field)
    assert mesh.vertices.shape == (8, 3)
    assert mesh.faces.shape == (12, 3)
    check_same(mesh, plain(shape, field))


def test_a_first_end_of_zero_takes_the_second_form_of_the_quad() -> None:
    shape = (1, 2, 2)
    field = random_field(shape, 5)
    field["sdf"] = torch.ones(18)
    middle = 4  # vertex (0, 1, 1); its edge along x is the only one with four cells
    field["sdf"][[middle, middle + 9]] = torch.tensor([0.0, -1.0])
    zero = extract(dense_cells(shape), **field)
    field["sdf"][middle] = 1.0
    positive = extract(dense_cells(shape), **field)
    assert zero.faces.shape == (2, 3)
    check_same(
        zero, plain(shape, field | {"sdf": field["sdf"].index_fill(0, torch.tensor(middle), 0)})
    )
    assert set(map(frozenset, zero.faces.tolist())) == {
        frozenset(face) for face in positive.faces.tolist()
    }
    assert not torch.equal(zero.faces, positive.faces)


@pytest.mark.parametrize(
    ("normal", "cell", "wrapped"),
    [((0, 0, 1), (1, 1, 3), (1, 2, 0)), ((0, 1, 0), (1, 2, 2), (2, 0, 2))],
)
def test_the_neighbor_across_an_ambiguous_face_is_not_looked_for_beyond_the_grid(
    normal: tuple[int, ...], cell: tuple[int, ...], wrapped: tuple[int, ...]
) -> None:
    """`wrapped` is one step along `normal` from `cell` by linear index, but not by axis."""
    shape, table = (4, 3, 4), tables(CPU).ambiguous_normal
    case = int((table == torch.tensor(normal)).all(1).nonzero()[0])
    pair = Cells(shape, torch.tensor([cell, wrapped]), torch.zeros(2, 8, dtype=torch.int64))
    stride = (12, 4, 1)[normal.index(1)]
    assert (pair.index[1] - pair.index[0]) == stride
    cases = torch.tensor([case, case])
    assert torch.equal(resolve_ambiguity(pair, cases), cases)


def test_two_problematic_neighbors_switch_together() -> None:
    table = tables(CPU).ambiguous_normal
    up = int((table == torch.tensor([0, 0, 1])).all(1).nonzero()[0])
    down = int((table == torch.tensor([0, 0, -1])).all(1).nonzero()[0])
    other = int((table == 0).all(1).nonzero()[3])
    coords = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    three = Cells((1, 1, 3), coords, torch.zeros(3, 8, dtype=torch.int64))
    cases = torch.tensor([up, down, other])
    assert resolve_ambiguity(three, cases).tolist() == [255 - up, 255 - down, other]
    cases = torch.tensor([up, other, down])
    assert torch.equal(resolve_ambiguity(three, cases), cases)


def test_nothing_crossed_gives_empty_tensors() -> None:
    cells, field = sphere(4, radius=-1)
    mesh = extract(cells, **field)
    assert mesh.vertices.shape == (0, 3)
    assert mesh.faces.shape == (0, 3)
    assert mesh.attributes.shape == (0, 6)


def test_half_precision_input_is_computed_in_float32() -> None:
    cells, field = sphere()
    half = {name: value.half() for name, value in field.items()}
    rounded = {name: value.float() for name, value in half.items()}
    assert torch.equal(extract(cells, **half).vertices, extract(cells, **rounded).vertices)


@pytest.mark.parametrize("name", ["positions", "sdf", "attribute_logits", "weight_logits"])
def test_wrong_shapes_are_named(name: str) -> None:
    cells, field = sphere(4)
    field[name] = field[name][:-1]
    with pytest.raises(InputError, match=r"has shape \(\d+.*expected"):
        extract(cells, **field)
