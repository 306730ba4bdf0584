"""Holes get lids, meshes become watertight; seen by our own counts and by trimesh."""

from functools import cache
from itertools import combinations, product
from pathlib import Path

import fields
import numpy as np
import pytest
import shapes
import trimesh
from gltf import assert_valid_glb

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.holes import lid, rims
from sam3d_nb.mesh.repair import fill_holes, make_watertight
from sam3d_nb.mesh.solid import winding_number
from sam3d_nb.mesh.topology import Topology, face_normals, open_edges, oriented, topology


@cache
def chair() -> Mesh:
    return fields.chair(48)


def assert_watertight(mesh: Mesh) -> None:
    """Each edge at two faces, wound both ways; also once vertices are joined by place."""
    joined = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    for shape in (trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), joined):
        assert shape.is_watertight
        assert shape.is_winding_consistent
        assert shape.volume > 0
    assert topology(mesh).watertight
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)


def joined(*parts: tuple[np.ndarray, np.ndarray]) -> Mesh:
    """Several shapes as one mesh."""
    shape = trimesh.util.concatenate([trimesh.Trimesh(*part, process=False) for part in parts])
    return Mesh(shape.vertices, shape.faces)


def moved(shape: tuple[np.ndarray, np.ndarray], *shift: float) -> tuple[np.ndarray, np.ndarray]:
    return shape[0] + np.array(shift), shape[1]


def parts_of(mesh: Mesh) -> list[Topology]:
    """The topology of each component."""
    split = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).split(only_watertight=False)
    return [topology(Mesh(part.vertices, part.faces)) for part in split]


def test_topology_counts() -> None:
    ball = shapes.icosphere(2)
    whole = topology(shapes.mesh(ball))
    assert (whole.open_edges, whole.crowded_edges, whole.torn_edges, whole.components) == (
        0,
    ) * 3 + (1,)
    assert whole.watertight
    assert whole.volume == pytest.approx(trimesh.Trimesh(*ball).volume)
    assert topology(Mesh(ball[0], ball[1][1:])).open_edges == 3
    assert not topology(Mesh(ball[0], ball[1][:, ::-1])).watertight  # inside out
    turned = ball[1].copy()
    turned[7] = turned[7, ::-1]
    assert topology(Mesh(ball[0], turned)).torn_edges == 3
    cubes = joined(shapes.box((1, 1, 1)), moved(shapes.box((1, 1, 1)), 1, 1, 0))
    assert topology(cubes).crowded_edges == 1
    assert topology(cubes).components == 2
    soup = Mesh(ball[0][ball[1]].reshape(-1, 3), np.arange(ball[1].size).reshape(-1, 3))
    assert topology(soup).watertight  # vertices at the same place are joined
    assert not topology(Mesh(np.zeros((0, 3)), np.zeros((0, 3)))).watertight


@pytest.mark.parametrize(
    "loop",
    [
        [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)],  # an L
        [(0, 0), (5, 0), (5, 3), (4, 3), (4, 1), (1, 1), (1, 3), (0, 3)],  # a U
        [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)],  # straight stretches
        [
            (np.cos(t) * r, np.sin(t) * r)
            for t, r in zip(np.arange(20) * np.pi / 10, [3, 1] * 10, strict=True)
        ],
    ],
)
def test_a_flat_lid_covers_the_hole_once(loop: list[tuple[float, float]]) -> None:
    """Its triangles all face one way, and their area is that of the polygon."""
    x, y = np.array(loop, float).T
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    points = np.stack([x, y, 0 * x], 1) @ turn.T
    triangles = lid(points, set())
    assert triangles is not None
    assert len(triangles) == len(loop) - 2
    area = face_normals(points, triangles) @ turn[:, 2] / 2
    assert (area > -1e-12).all()
    assert area.sum() == pytest.approx((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_a_lid_leaves_taken_edges_out() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    triangles = lid(square, {(0, 2)})
    assert triangles is not None
    assert all({1, 3} <= set(t) for t in triangles.tolist())
    assert lid(square, {(0, 2), (1, 3)}) is None


def test_rims_run_against_the_faces() -> None:
    _, faces = fields.grid(4)
    (loop,) = rims(open_edges(faces))
    assert len(loop) == 12
    edges = set(zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True))
    assert edges == {(b, a) for a, b in open_edges(faces).tolist()}


def test_all_holes_are_filled_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    mesh = chair()
    holes = fields.cut(mesh, rng.random(len(mesh.faces)) > 0.02)
    filled = fill_holes(holes)
    assert topology(filled).open_edges == 0
    assert topology(filled).volume == pytest.approx(topology(mesh).volume, rel=1e-3)
    kept = {tuple(corner) for corner in holes.vertices[holes.faces].reshape(-1, 9).tolist()}
    assert kept <= {tuple(c) for c in filled.vertices[filled.faces].reshape(-1, 9).tolist()}
    assert fill_holes(mesh) is mesh


def test_lids_take_the_colors_of_their_rims() -> None:
    mesh = chair()
    low = fields.cut(mesh, (mesh.vertices[mesh.faces][:, :, 1] > -0.3).all(1))
    filled = fill_holes(low)
    np.testing.assert_allclose(filled.colors, fields.paint(filled.vertices), atol=1e-6)
    assert filled.bounds[0, 1] > -0.3
    texture = np.full((4, 4, 3), 99, np.uint8)
    textured = Mesh(low.vertices, low.faces, uv=low.vertices[:, :2], texture=texture)
    again = fill_holes(textured)
    assert again.texture is None
    assert np.ptp(again.colors) == 0


def test_long_rims_stay_open_where_that_is_asked_for() -> None:
    mesh = chair()
    low = fields.cut(mesh, (mesh.vertices[mesh.faces][:, :, 1] > -0.3).all(1))  # four legs
    pricked = fields.cut(low, np.arange(len(low.faces)) != 500)
    around = len(open_edges(low.faces))
    filled = fill_holes(pricked, longest=0.1)
    assert topology(filled).open_edges == around
    assert fill_holes(low, longest=0.01) is low
    with pytest.raises(InputError, match="positive length but is -1"):
        fill_holes(low, longest=-1)


def test_two_holes_that_meet_in_a_vertex() -> None:
    vertices, faces = fields.grid(7)
    middle = np.flatnonzero((vertices == 0).all(1))[0]
    around = np.flatnonzero((faces == middle).any(1))
    centers = vertices[faces[around]].mean(1)
    opposite = around[np.abs(centers[:, 0] - centers[:, 1]) > 0.1]  # the fan in two
    holes = np.delete(faces, opposite, axis=0)
    filled = fill_holes(Mesh(vertices, holes), longest=1)
    assert topology(filled).open_edges == 24
    area = np.linalg.norm(face_normals(filled.vertices, filled.faces), axis=1).sum() / 2
    assert area == pytest.approx(1)


def moebius() -> Mesh:
    count = 40
    t = np.arange(count) / count * 2 * np.pi
    rows = [
        np.stack(
            [
                (1 + s * np.cos(t / 2)) * np.cos(t),
                (1 + s * np.cos(t / 2)) * np.sin(t),
                s * np.sin(t / 2),
            ],
            axis=1,
        )
        for s in (-0.3, 0.3)
    ]
    i = np.arange(count - 1)
    upper = np.stack([i, i + 1, count + i], 1)
    lower = np.stack([i + 1, count + i + 1, count + i], 1)
    closing = [[count - 1, count, 2 * count - 1], [count, 0, 2 * count - 1]]
    return Mesh(np.concatenate(rows), np.concatenate([upper, lower, closing]))


def damaged(name: str) -> Mesh:
    rng = np.random.default_rng(1)
    mesh = chair()
    faces = mesh.faces
    match name:
        case "holes":
            return fields.cut(mesh, rng.random(len(faces)) > 0.05)
        case "cut in half":
            return fields.cut(mesh, (mesh.vertices[faces][:, :, 0] < 0.02).all(1))
        case "turned faces":
            return Mesh(
                mesh.vertices,
                np.where(rng.random(len(faces))[:, None] < 0.3, faces[:, ::-1], faces),
                mesh.colors,
            )
        case "inside out":
            return Mesh(mesh.vertices, faces[:, ::-1], mesh.colors)
        case "soup":
            corners = faces.reshape(-1)
            return Mesh(
                mesh.vertices[corners], np.arange(faces.size).reshape(-1, 3), mesh.colors[corners]
            )
        case "repeated and fins":
            fins = np.concatenate([faces[:200:2, :2], faces[1:201:2, 2:]], axis=1)
            flat = np.repeat(faces[:30, :1], 3, axis=1)
            return Mesh(mesh.vertices, np.concatenate([faces, faces[:50], fins, flat]), mesh.colors)
        case "random triangles":
            return fields.painted(Mesh(rng.random((60, 3)), rng.integers(0, 60, (200, 3))))
        case "one-sided":
            return fields.painted(moebius())
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "holes",
        "cut in half",
        "turned faces",
        "inside out",
        "soup",
        "repeated and fins",
        "random triangles",
        "one-sided",
    ],
)
def test_whatever_it_was_it_becomes_watertight(name: str) -> None:
    mesh = damaged(name)
    assert not topology(mesh).watertight or name == "soup"
    closed = make_watertight(mesh)
    assert_watertight(closed)
    assert closed.colors is not None
    assert closed.colors.min() >= 0
    assert closed.colors.max() <= 1
    if name not in ("cut in half", "random triangles", "one-sided"):
        assert topology(closed).volume == pytest.approx(topology(chair()).volume, rel=0.02)
    again = make_watertight(mesh)
    np.testing.assert_array_equal(closed.vertices, again.vertices)
    np.testing.assert_array_equal(closed.faces, again.faces)


def test_watertight_already() -> None:
    assert make_watertight(chair()) is chair()
    corners = chair().faces.reshape(-1)
    seams = Mesh(
        chair().vertices[corners],
        np.arange(len(corners)).reshape(-1, 3),
        uv=np.zeros((len(corners), 2)),
        texture=np.zeros((4, 4, 3), np.uint8),
    )
    assert make_watertight(seams) is seams


def test_bodies_that_share_an_edge_or_a_wall_come_apart() -> None:
    cube = shapes.box((1, 1, 1))
    for other, edges in ((moved(cube, 1, 1, 0), 1), (moved(cube, 1, 0, 0), 4)):
        mesh = joined(cube, other)
        assert topology(mesh).crowded_edges == edges
        closed = make_watertight(mesh)
        assert_watertight(closed)
        assert topology(closed).components == 2
        assert topology(closed).volume == pytest.approx(2, rel=1e-3)
        np.testing.assert_allclose(closed.bounds, mesh.bounds, atol=1e-4)


def test_a_cavity_stays_and_what_is_inside_out_beside_it_turns() -> None:
    outer, inner = shapes.icosphere(3), shapes.icosphere(2, 0.5)
    hollow = (inner[0], inner[1][:, ::-1])
    shell, core = topology(shapes.mesh(outer)).volume, topology(shapes.mesh(inner)).volume
    cavity = make_watertight(joined(outer, hollow))
    assert topology(cavity).volume == pytest.approx(shell - core)
    beside = make_watertight(joined(outer, moved(hollow, 5, 0, 0)))
    assert topology(beside).volume == pytest.approx(shell + core)


def test_a_tetrahedron_with_fins_at_its_edges_becomes_watertight() -> None:
    """Cut apart there and closed again, it may become two bodies with all vertices in common."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    sides = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    bodies = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        vertices = [*corners]
        faces = [side[:: rng.choice([-1, 1])] for side in rng.permutation(sides)]
        for edge in combinations(range(4), 2):
            for _ in range(rng.integers(0, 3)):
                faces.append(np.array([*edge, len(vertices)])[:: rng.choice([-1, 1])])
                vertices.append(2 * rng.normal(size=3))
        try:
            closed = make_watertight(Mesh(np.array(vertices), np.array(faces)))
        except ReconstructionError as error:
            assert "encloses no volume" in str(error)  # noqa: PT017 - the others are closed
        else:
            assert_watertight(closed)
            assert all(part.volume > 0 for part in parts_of(closed))
            bodies.append(topology(closed).components)
    assert len(bodies) > 100
    assert set(bodies) == {1, 2}


@pytest.mark.parametrize(("wedges", "offset", "size"), [(30, 10, 1), (100, 0.5, 1), (8, 0, 1e-4)])
def test_wedges_around_one_edge_become_as_many_bodies(
    wedges: int, offset: float, size: float
) -> None:
    """Many vertices at one place, far from the origin, or of a part that is small."""
    angle = np.linspace(0, 2 * np.pi, 2 * wedges + 1)[:-1]
    rim = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    vertices = np.concatenate([[[0, 0, 0], [0, 0, 1]], rim]) * size + offset
    first = np.arange(2, 2 + 2 * wedges, 2)
    zero, one = np.zeros(wedges, dtype=int), np.ones(wedges, dtype=int)
    sides = ((zero, one, first), (one, zero, first + 1), (one, first + 1, first))
    faces = np.concatenate([np.stack(side, axis=1) for side in (*sides, (zero, first, first + 1))])
    mesh = joined((vertices, faces[:, ::-1]), moved(shapes.icosphere(1), offset + 3, 0, 0))
    assert topology(mesh).crowded_edges == 1
    closed = make_watertight(mesh)
    assert_watertight(closed)
    assert topology(closed).components == wedges + 1


def test_why_a_mesh_is_not_watertight_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = shapes.mesh(shapes.icosphere(1))
    turned = Mesh(ball.vertices, ball.faces[:, ::-1])
    for kept, sentence in (
        (Mesh(ball.vertices, ball.faces[1:]), "3 edges are left at one triangle; leave"),
        (turned, "its parts enclose less than its cavities; leave `watertight` off"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("sam3d_nb.mesh.repair._mesh", lambda *_, kept=kept: kept)
            with pytest.raises(ReconstructionError, match=sentence):
                make_watertight(turned)


def test_the_winding_number_is_that_of_all_solid_angles() -> None:
    rng = np.random.default_rng(0)
    outer, inner = shapes.icosphere(3), shapes.icosphere(2, 0.5)
    nested = joined(outer, inner, moved((inner[0], inner[1][:, ::-1]), 0.3, 0.2, 0), outer)
    flat = np.repeat(nested.faces[:40, :1], 3, axis=1)
    nested = Mesh(nested.vertices, np.concatenate([nested.faces, flat]))
    corners = nested.vertices[nested.faces].astype(np.float64)
    behind = rng.choice(nested.vertices, 50) - [[0.4, 0, 0]]  # their rays meet vertices
    points = np.concatenate([rng.uniform(-1.2, 1.2, (200, 3)), behind])
    found = [winding_number(point, corners) for point in points]
    np.testing.assert_allclose(found, shapes.winding_numbers(nested, points), atol=1e-6)
    assert set(found) >= {0, 2, 3}
    assert winding_number(np.zeros(3), corners[:0]) == 0


def test_what_pokes_out_is_no_cavity() -> None:
    """Along diagonals, where a ball does not fill its box."""
    outer, inner = shapes.icosphere(3), shapes.icosphere(3, 0.3)
    shell, core = topology(shapes.mesh(outer)).volume, topology(shapes.mesh(inner)).volume
    for place, volume in ((0.69, shell - core), (0.9, shell + core), (1.2, shell + core)):
        for signs in product((-1, 1), repeat=3):
            shift = np.array(signs) / np.sqrt(3) * place
            shape = joined(outer, moved((inner[0], inner[1][:, ::-1]), *shift))
            assert topology(make_watertight(shape)).volume == pytest.approx(volume)


def test_one_turned_component_keeps_the_winding_of_most_of_its_area() -> None:
    vertices, faces = shapes.icosphere(3)
    mixed = faces.copy()
    mixed[::3] = mixed[::3, ::-1]
    np.testing.assert_array_equal(oriented(vertices, mixed), faces)
    assert oriented(vertices, faces) is faces


@pytest.mark.parametrize(
    "mesh",
    [
        Mesh(*fields.grid(10)),
        Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]),
        Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 1]]),
        Mesh(np.zeros((0, 3)), np.zeros((0, 3))),
    ],
    ids=["sheet", "triangle", "no area", "empty"],
)
def test_what_encloses_nothing_gets_a_sentence(mesh: Mesh) -> None:
    with pytest.raises(
        ReconstructionError, match=r"triangles encloses no volume, so .* flat sheet"
    ):
        make_watertight(mesh)


def test_repaired_meshes_pass_the_validator(tmp_path: Path) -> None:
    for name in ("cut in half", "repeated and fins"):
        path = fields.object_of(make_watertight(damaged(name))).save(tmp_path / f"{name}.glb")
        assert_valid_glb(path)
