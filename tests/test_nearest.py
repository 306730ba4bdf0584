"""Closest points on a surface, against a loop over all triangles."""

import fields
import numpy as np
import pytest
import shapes

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear
from sam3d_nb.mesh.nearest import Surface, blended


def closest_by_loop(mesh: Mesh, point: np.ndarray) -> float:
    """The distance, corner regions and all (Ericson 2004), one triangle at a time."""
    best = np.inf
    for face in mesh.faces:
        a, b, c = mesh.vertices[face].astype(float)
        places = [a, b, c]
        for p, q in ((a, b), (b, c), (c, a)):
            length = ((q - p) ** 2).sum()
            if length > 0:
                places.append(p + np.clip((point - p) @ (q - p) / length, 0, 1) * (q - p))
        normal = np.cross(b - a, c - a)
        if normal @ normal > 0:
            foot = point - normal * ((point - a) @ normal) / (normal @ normal)
            inside = all(
                np.cross(q - p, foot - p) @ normal >= 0 for p, q in ((a, b), (b, c), (c, a))
            )
            if inside:
                places.append(foot)
        best = min(best, *(np.linalg.norm(point - p) for p in places))
    return best


def soup(rng: np.random.Generator) -> Mesh:
    """Triangles of all sizes and shapes: needles, points, large ones."""
    size = 10 ** rng.uniform(-3, 0, (80, 1, 1))
    corners = rng.normal(size=(80, 1, 3)) + size * rng.normal(size=(80, 3, 3))
    corners[:5, 2] = corners[:5, 1]  # no area
    corners[5] = corners[5, :1]  # a point
    corners[6:12, 2] = corners[6:12, 1] + 1e-6  # needles
    return Mesh(corners.reshape(-1, 3), np.arange(240).reshape(-1, 3))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = soup(rng)
    points = rng.normal(size=(60, 3)) * rng.choice([0.5, 1, 10], (60, 1))
    spots = Surface(mesh).closest(points)
    expected = [closest_by_loop(mesh, point) for point in points]
    np.testing.assert_allclose(spots.distance, expected, atol=1e-9)
    np.testing.assert_allclose(spots.weights.sum(1), 1, atol=1e-12)
    assert (spots.weights >= -1e-12).all()
    corners = mesh.vertices[mesh.faces[spots.face]].astype(float)
    place = (corners * spots.weights[..., None]).sum(1)
    np.testing.assert_allclose(np.linalg.norm(place - points, axis=1), expected, atol=1e-9)


def test_a_few_large_triangles() -> None:
    """Corners far away, closest point in the middle: what a search among corners would miss."""
    mesh = Mesh(
        [[-9, -9, 0], [9, -9, 0], [0, 9, 0], [0, 0, 1], [0.1, 0, 1], [0, 0.1, 1]],
        [[0, 1, 2], [3, 4, 5]],
    )
    spots = Surface(mesh).closest([[0, 0, 0.4], [0, 0, 0.6]])
    np.testing.assert_array_equal(spots.face, [0, 1])


def test_colors_between_vertices_and_from_a_texture() -> None:
    vertices, faces = fields.grid(2)
    colors = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], float)  # by (x, y)
    surface = Surface(Mesh(vertices, faces, colors))
    points = np.array([[0.25, -0.1, 0.3], [0, 0, -0.1], [2, 2, 0]])
    found = surface.colors(surface.closest(points))
    np.testing.assert_allclose(found, [[0.75, 0.4, 0], [0.5, 0.5, 0], [1, 1, 0]], atol=1e-6)

    texture = np.array([[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 255, 0]]], np.uint8)
    textured = Surface(Mesh(vertices, faces, uv=vertices[:, :2] + 0.5, texture=texture))
    found = textured.colors(textured.closest([[-0.25, -0.25, 0], [0.125, 0.25, 0]]))
    np.testing.assert_allclose(found, [[0, 0, 0], [0.75, 1, 0]], atol=1e-6)
    gray = np.full((4, 4, 3), 100, np.uint8)
    plain = Surface(Mesh(vertices, faces, uv=vertices[:, :2] + 0.5, texture=gray))
    np.testing.assert_allclose(
        plain.colors(plain.closest([[0.1, 0.2, 0]])), to_linear(np.array(100 / 255)), atol=1e-6
    )


def test_the_sides_of_a_thin_wall_are_told_apart() -> None:
    vertices, faces = shapes.box((1, 1, 0.004))
    surface = Surface(Mesh(vertices, faces))
    above = np.array([[0.1, 0.2, -0.001], [0.3, -0.2, -0.001]])  # nearer to the lower side
    up = np.tile([0, 0, 1.0], (2, 1))
    assert (surface.normals[surface.closest(above).face][:, 2] < 0).all()
    assert (surface.normals[surface.closest(above, up).face][:, 2] > 0).all()
    thick = Surface(Mesh(vertices * (1, 1, 25), faces))  # out of reach: the nearest side it is
    assert (thick.normals[thick.closest(above - (0, 0, 0.03), up).face][:, 2] < 0).all()


@pytest.mark.parametrize("with_normals", [False, True])
def test_a_guess_saves_the_search_or_changes_nothing(
    with_normals: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    mesh = fields.chair(24)
    surface = Surface(mesh)
    face = rng.integers(0, len(mesh.faces), 500)
    weights = rng.dirichlet(np.ones(3), 500)
    points = blended(mesh.vertices.astype(float), mesh.faces[face], weights)
    ways = surface.normals[face] if with_normals else None
    searched = surface.closest(points, ways)
    for wrong in (rng.permutation(face), np.where(rng.random(500) < 0.5, face, 0)):
        spots = surface.closest(points, ways, wrong)
        np.testing.assert_allclose(spots.distance, searched.distance, atol=1e-12)
        np.testing.assert_allclose(surface.colors(spots), surface.colors(searched), atol=1e-6)
    monkeypatch.setattr(Surface, "_search", None)
    spots = surface.closest(points, ways, face)
    np.testing.assert_array_equal(spots.face, face)
    np.testing.assert_allclose(spots.weights, weights, atol=1e-6)


def test_a_guess_that_faces_away_is_searched_for() -> None:
    vertices, faces = shapes.box((1, 1, 0.004))
    surface = Surface(Mesh(vertices, faces))
    points = np.array([[0.1, 0.2, -0.002], [0.3, -0.2, -0.002]])  # on the lower side
    up = np.tile([0, 0, 1.0], (2, 1))
    below = surface.closest(points)
    assert (surface.normals[below.face][:, 2] < 0).all()
    spots = surface.closest(points, up, below.face)
    assert (surface.normals[spots.face][:, 2] > 0).all()


def test_nothing_to_look_at() -> None:
    with pytest.raises(InputError, match="without triangles has no closest points"):
        Surface(Mesh(np.zeros((3, 3)), np.zeros((0, 3))))
    surface = Surface(shapes.mesh(shapes.box((1, 1, 1))))
    with pytest.raises(InputError, match="neither vertex colors nor a texture"):
        surface.colors(surface.closest(np.zeros((1, 3))))
    assert len(surface.closest(np.zeros((0, 3))).face) == 0
