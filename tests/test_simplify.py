"""Fewer triangles: how far the shape moves, and what becomes of the colors."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import fields
import numpy as np
import pytest
import shapes

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.evaluation.surface import sample_surface
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh import simplify as simplifying
from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.mesh.nearest import Surface
from sam3d_nb.mesh.simplify import HOLD, Bare, by_quadric_error, fitted_colors, reduced, simplify
from sam3d_nb.mesh.topology import face_normals, topology


@cache
def chair() -> Mesh:
    return fields.chair(64)


def distances(one: Mesh, other: Mesh, count: int = 20_000) -> np.ndarray:
    """Of points on each surface to the other, both ways together (2 count,)."""
    return np.concatenate(
        [
            Surface(b).closest(sample_surface(a, count, 0)).distance
            for a, b in ((one, other), (other, one))
        ]
    )


def color_psnr(mesh: Mesh, source: Mesh) -> float:
    """Decibels of the sRGB colors at the same places of both."""
    points = sample_surface(source, 20_000, 1)
    shown, true = (to_srgb(s.colors(s.closest(points))) for s in (Surface(mesh), Surface(source)))
    return float(-10 * np.log10(((shown - true) ** 2).mean()))


@pytest.mark.parametrize(
    ("triangles", "mean", "largest", "psnr"),
    [(8000, 0.0003, 0.003, 32), (4000, 0.0006, 0.006, 28.5), (1000, 0.002, 0.02, 25)],
)
def test_shape_and_colors_stay(triangles: int, mean: float, largest: float, psnr: float) -> None:
    """Distances in longest sides, from 16,612 triangles a 64th of that wide."""
    small = simplify(chair(), triangles)
    assert 0.98 * triangles < len(small.faces) <= triangles
    apart = distances(small, chair())
    assert apart.mean() < mean
    assert apart.max() < largest
    assert topology(small).volume == pytest.approx(topology(chair()).volume, rel=0.05)
    assert topology(small).components == 2
    assert color_psnr(small, chair()) > psnr


def test_fitted_colors_are_better_than_those_of_the_places() -> None:
    small = simplify(chair(), 2000)
    surface = Surface(chair())
    sampled = surface.colors(surface.closest(small.vertices, small.normals))
    own = Mesh(small.vertices, small.faces, sampled)
    assert color_psnr(small, chair()) > color_psnr(own, chair()) + 1


def test_fit_agrees_with_dense_least_squares() -> None:
    source = fields.painted(shapes.mesh(shapes.icosphere(3)))
    small = simplify(Mesh(source.vertices, source.faces), 60)
    spots = Surface(small).closest(source.vertices, source.normals)
    shown = np.zeros((len(source.vertices), len(small.vertices)))
    for row, (face, weights) in enumerate(zip(spots.face, spots.weights, strict=True)):
        shown[row, small.faces[face]] += weights
    area = np.zeros(len(source.vertices))
    for face, normal in zip(source.faces, face_normals(source.vertices, source.faces), strict=True):
        area[face] += np.linalg.norm(normal)
    root = np.sqrt(area / area.mean())[:, None]
    hold = np.sqrt(HOLD * np.diag((root * shown).T @ (root * shown)).mean())
    surface = Surface(source)
    sampled = surface.colors(surface.closest(small.vertices, small.normals))
    expected = np.linalg.lstsq(
        np.concatenate([root * shown, hold * np.eye(len(small.vertices))]),
        np.concatenate([root * source.colors, hold * sampled]),
    )[0]
    low, high = sampled.copy(), sampled.copy()
    for corners, color in zip(small.faces[spots.face], source.colors, strict=True):
        low[corners] = np.minimum(low[corners], color)
        high[corners] = np.maximum(high[corners], color)
    np.testing.assert_allclose(fitted_colors(source, small), expected.clip(low, high), atol=2e-3)


def test_no_color_appears_that_was_not_there() -> None:
    """Least squares alone would overshoot at the edge between red and blue."""
    ball = shapes.mesh(shapes.icosphere(5))
    colors = np.where(ball.vertices[:, :1] > 0.1, (0.8, 0.3, 0.2), (0.2, 0.3, 0.8))
    small = simplify(Mesh(ball.vertices, ball.faces, colors), 200)
    assert small.colors.min(0) == pytest.approx([0.2, 0.3, 0.2], abs=1e-5)
    assert small.colors.max(0) == pytest.approx([0.8, 0.3, 0.8], abs=1e-5)


def test_one_color_stays_that_color() -> None:
    ball = shapes.mesh(shapes.icosphere(4))
    color = np.array([0.2, 0.5, 0.9], np.float32)
    small = simplify(Mesh(ball.vertices, ball.faces, np.tile(color, (len(ball.vertices), 1))), 200)
    np.testing.assert_allclose(small.colors, np.tile(color, (len(small.vertices), 1)), atol=1e-5)


def test_without_colors_and_with_a_texture() -> None:
    ball = shapes.mesh(shapes.icosphere(4))
    assert simplify(ball, 500).colors is None
    texture = np.full((8, 8, 3), 120, np.uint8)
    small = simplify(Mesh(ball.vertices, ball.faces, uv=ball.vertices[:, :2], texture=texture), 500)
    assert small.texture is None
    np.testing.assert_allclose(small.colors, to_linear(np.array(120 / 255)), atol=1e-4)


def test_size_and_place_do_not_matter() -> None:
    small = simplify(chair(), 3000)
    grown = chair().with_vertices(chair().vertices * 1000 + 5000)
    moved = simplify(grown, 3000)
    assert distances(moved.with_vertices((moved.vertices - 5000) / 1000), small).mean() < 1e-4


def test_the_same_again_also_from_several_threads() -> None:
    alone = simplify(chair(), 3000)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: simplify(chair(), n), [3000, 2000, 3000, 1000]))
    for again in (results[0], results[2]):
        for name in ("vertices", "faces", "colors"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(again, name))
    assert len(results[3].faces) <= 1000


def test_open_borders_keep_their_outline() -> None:
    sheet = Mesh(*fields.grid(40))
    small = simplify(sheet, 500)
    np.testing.assert_allclose(small.bounds, sheet.bounds, atol=1e-6)
    area = np.linalg.norm(face_normals(small.vertices, small.faces), axis=1).sum() / 2
    assert area == pytest.approx(1, abs=1e-5)
    assert len(simplify(sheet, 20).faces) <= 20  # fewer than the border has: it gives way


def test_damaged_meshes() -> None:
    """Holes, faces of no area, repeated faces, an edge of three faces, unused vertices."""
    rng = np.random.default_rng(0)
    mesh = chair()
    faces = mesh.faces[rng.random(len(mesh.faces)) > 0.02]
    flat = np.repeat(rng.integers(0, len(mesh.vertices), (50, 1)), 3, axis=1)
    fin = np.stack([faces[:20, 0], faces[:20, 1], faces[20:40, 2]], 1)
    broken = Mesh(mesh.vertices, np.concatenate([faces, flat, faces[:30], fin]), mesh.colors)
    small = simplify(broken, 3000)
    assert len(small.faces) <= 3000
    assert np.median(distances(small, mesh)) < 0.002


def test_small_enough_already() -> None:
    ball = shapes.mesh(shapes.icosphere(1))
    assert simplify(ball, 80) is ball


@pytest.mark.parametrize("triangles", [0, 3, -5, 2.5, "many", True, None])
def test_a_number_that_no_mesh_has(triangles: object) -> None:
    with pytest.raises(InputError, match="whole number of triangles from 4 up, not to"):
        simplify(chair(), triangles)  # type: ignore[arg-type]


def test_few_triangles_of_a_tangle() -> None:
    rng = np.random.default_rng(0)
    tangle = Mesh(rng.random((100, 3)), rng.integers(0, 100, (1000, 3)))
    assert 0 < len(simplify(tangle, 10).faces) <= 10


def bush(leaves: int, size: float) -> Mesh:
    """Sheets of 98 triangles, as long as `size`, anywhere in the unit cube."""
    rng = np.random.default_rng(0)
    vertices, faces = fields.grid(8)
    turns = np.linalg.qr(rng.normal(size=(leaves, 3, 3)))[0]
    places = vertices * size @ turns + rng.uniform(-0.5, 0.5, (leaves, 1, 3))
    numbers = faces + len(vertices) * np.arange(leaves)[:, None, None]
    return Mesh(places.reshape(-1, 3), numbers.reshape(-1, 3))


def test_shreds_that_quadric_error_cannot_cut_down_are_clustered() -> None:
    leaves = bush(200, 0.1)
    assert len(by_quadric_error(leaves.vertices, leaves.faces, 600)[1]) > 2000
    small = simplify(leaves, 600)
    assert 500 < len(small.faces) <= 600
    apart = Surface(small).closest(leaves.vertices).distance
    assert apart.mean() < 0.04


def test_what_quadric_error_takes_apart_is_clustered_if_that_comes_much_closer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the library lost the right half of the chair, unless it is clustered."""
    right = chair().vertices[chair().faces][:, :, 0].mean(1)

    def lossy(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> Bare:
        if len(faces) == len(chair().faces):
            part = fields.cut(chair(), right < 0)
            vertices, faces = part.vertices, part.faces
        return by_quadric_error(vertices, faces, triangles)

    monkeypatch.setattr(simplifying, "by_quadric_error", lossy)
    whole = reduced(chair().vertices, chair().faces, 2000)
    assert np.ptp(whole[0], axis=0)[0] > 0.95 * np.ptp(chair().bounds, axis=0)[0]


def test_a_rough_surface_stays_closed() -> None:
    """It loses a lot of its area, but clustering would come no closer."""
    vertices, faces = shapes.icosphere(5)
    edge = np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1).mean()
    rough = Mesh(
        vertices + 0.3 * edge * np.random.default_rng(0).normal(size=vertices.shape), faces
    )
    for triangles in (2000, 5000):
        assert topology(simplify(rough, triangles)).watertight


def test_the_last_resort_is_clustering_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplifying, "by_quadric_error", lambda v, f, _: (v, f))
    assert 0 < len(simplify(chair(), 10).faces) <= 10


@pytest.mark.filterwarnings("error")
def test_nothing_is_left_of_a_line() -> None:
    line = Mesh(fields.grid(20)[0] * (1, 0, 0), fields.grid(20)[1])
    with pytest.raises(ReconstructionError, match="nothing is left of the mesh"):
        simplify(line, 10)
