"""The mesh type, its normals, and splitting edges."""

from dataclasses import replace

import numpy as np
import pytest
import shapes

from sam3d_nb.errors import InputError
from sam3d_nb.frames import rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.mesh.cutout import cut_out
from sam3d_nb.mesh.subdivide import split_edges, unique_edges

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_arrays_get_their_types() -> None:
    mesh = Mesh(TRIANGLE, np.array([[0, 1, 2]]), colors=np.ones((3, 3)), uv=np.zeros((3, 2)))
    assert mesh.vertices.dtype == np.float32
    assert mesh.faces.dtype == np.int32
    assert mesh.colors is not None and mesh.colors.dtype == np.float32  # noqa: PT018
    np.testing.assert_array_equal(mesh.bounds, [[0, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vertices": np.zeros((3, 2))}, r"vertices need shape .* but have \(3, 2\)"),
        ({"vertices": np.full((3, 3), np.nan)}, "3 of 3 mesh vertices are not finite"),
        ({"faces": [[0, 1, 3]]}, "faces name vertices 0 to 3 but the mesh has 3"),
        ({"faces": [[0, 1, -1]]}, "faces name vertices -1 to 1"),
        ({"colors": np.ones((2, 3))}, "colors need shape"),
        ({"colors": np.full((3, 3), np.inf)}, "3 of 3 mesh colors are not finite"),
        ({"uv": [[0, 0], [np.nan, 0], [0, 0]]}, "1 of 3 mesh uv are not finite"),
        ({"texture": np.zeros((4, 4, 3), np.uint8)}, "a texture needs uv"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Mesh(**({"vertices": TRIANGLE, "faces": [[0, 1, 2]]} | change))


def test_normals_point_outward() -> None:
    ball = shapes.mesh(shapes.icosphere(3))
    np.testing.assert_allclose(ball.normals, ball.vertices, atol=0.03)
    np.testing.assert_allclose(np.linalg.norm(ball.normals, axis=1), 1, atol=1e-6)


def test_normals_of_lone_and_flat_vertices_are_units() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    mesh = Mesh(vertices, np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(mesh.normals, np.tile([0, 0, 1], (4, 1)))


def test_normals_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    mesh = Mesh(
        rng.normal(size=(20, 3)), rng.permuted(np.tile(np.arange(20), (15, 1)), axis=1)[:, :3]
    )
    expected = np.zeros((20, 3))
    for face in mesh.faces:
        a, b, c = mesh.vertices[face].astype(float)
        expected[face] += np.cross(b - a, c - a)
    touched = np.unique(mesh.faces)
    expected[touched] /= np.linalg.norm(expected[touched], axis=1, keepdims=True)
    np.testing.assert_allclose(mesh.normals[touched], expected[touched], atol=1e-6)


def test_moved_vertices_get_new_normals() -> None:
    ball = shapes.mesh(shapes.icosphere(1))
    mirrored = ball.with_vertices(-ball.vertices)
    np.testing.assert_allclose(mirrored.normals, ball.normals, atol=1e-6)


def test_normals_that_are_known_stay_known() -> None:
    ball = shapes.mesh(shapes.icosphere(1))
    turn = rotation_matrix((0.5, 0.5, 0.5, 0.5))
    assert "normals" not in vars(ball.turned(turn))
    fresh = ball.turned(turn).normals
    known = ball.normals
    colored = ball.with_colors(np.full(ball.vertices.shape, 0.3))
    assert vars(colored)["normals"] is not None
    np.testing.assert_array_equal(colored.normals, known)
    assert colored.colors is not None
    assert "normals" in vars(ball.turned(turn))
    np.testing.assert_allclose(ball.turned(turn).normals, fresh, atol=1e-6)
    np.testing.assert_allclose(ball.turned(turn).vertices, ball.vertices @ turn.T, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_split_edges_keep_surface_and_neighbors(share: float) -> None:
    """Random edges of a ball get their midpoint: closed, same area, every midpoint used."""
    vertices, faces = shapes.icosphere(2)
    edges, face_edges = unique_edges(faces)
    rng = np.random.default_rng(0)
    chosen = rng.random(len(edges)) < share
    midpoint = np.full(len(edges), -1)
    midpoint[chosen] = len(vertices) + np.arange(chosen.sum())
    points = np.concatenate([vertices, vertices[edges[chosen]].mean(1)])
    result = split_edges(faces, face_edges, midpoint)

    assert np.unique(result).size == len(points)
    assert len(result) == len(faces) + 2 * chosen.sum()  # each edge has two faces
    directed = np.concatenate([result[:, [0, 1]], result[:, [1, 2]], result[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)
    assert {tuple(e) for e in directed} == {tuple(e[::-1]) for e in directed}
    np.testing.assert_allclose(area_vectors(points, result), area_vectors(vertices, faces))


def area_vectors(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """Total area and signed volume."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    return np.linalg.norm(cross, axis=1).sum() / 2, (a * cross).sum() / 6


def test_unique_edges_agree_with_a_loop() -> None:
    _, faces = shapes.icosphere(1)
    edges, face_edges = unique_edges(faces)
    assert len(edges) == len({tuple(e) for e in edges}) == len(faces) * 3 // 2
    for face, row in zip(faces, face_edges, strict=True):
        for k in range(3):
            assert {face[k], face[(k + 1) % 3]} == set(edges[row[k]])


def test_colors_convert_both_ways() -> None:
    levels = np.linspace(0, 1, 257)
    np.testing.assert_allclose(to_srgb(to_linear(levels)), levels, atol=1e-6)
    np.testing.assert_allclose(to_linear(np.array([0.0, 0.5, 1.0])), [0, 0.214041, 1], atol=1e-6)


def test_a_cutout_holds_no_background() -> None:
    image = np.full((100, 120, 3), (0, 255, 0), dtype=np.uint8)
    mask = np.zeros((100, 120), dtype=bool)
    mask[20:70, 30:90] = True
    image[mask] = (200, 30, 40)
    image[20:70, 30] = (100, 140, 20)  # a rim that is mixed with the background
    cutout = cut_out(image, mask)
    assert cutout.texture.shape == (64, 128, 3)
    assert (cutout.texture == (200, 30, 40)).all()


def test_a_cutout_keeps_thin_parts_and_places_pixels() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)
    mask = np.zeros((90, 90), dtype=bool)
    mask[10:50, 10:50] = True
    mask[30, 50:85] = True  # one pixel thin
    cutout = cut_out(image, mask)
    for row, column in [(30, 30), (20, 40), (30, 70), (30, 84)]:
        uv = cutout.uv(np.array([[column + 0.5, row + 0.5]]))[0]
        height, width = cutout.texture.shape[:2]
        texel = cutout.texture[int(uv[1] * height), int(uv[0] * width)]
        np.testing.assert_array_equal(texel, image[row, column])


def test_a_large_cutout_is_scaled_down() -> None:
    image = np.zeros((1400, 3000, 3), dtype=np.uint8)
    image[:, 1500:] = 255
    cutout = cut_out(image, np.ones((1400, 3000), dtype=bool))
    assert cutout.texture.shape == (1024, 2048, 3)
    uv = cutout.uv(np.array([[1500.0, 700.0]]))[0]
    column = round(uv[0] * 2048)
    assert cutout.texture[512, column - 3].max() == 0
    assert cutout.texture[512, column + 3].min() == 255


def test_a_mesh_says_what_it_is() -> None:
    plain = Mesh(np.zeros((3, 3)), [[0, 1, 2]])
    assert repr(plain) == "<mesh: 3 vertices, 1 triangles>"
    picture = np.zeros((4, 8, 3), dtype=np.uint8)
    assert "a texture of 8 x 4" in repr(replace(plain, uv=np.zeros((3, 2)), texture=picture))
    assert "colors" in repr(plain.with_colors(np.zeros((3, 3), dtype=np.float32)))
