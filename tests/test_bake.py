"""Unwrapped meshes and their textures: no overlaps, no seams, the colors of the source."""

import sys
from functools import cache
from typing import Any

import fields
import numpy as np
import pytest
import shapes
import torch
from scipy import ndimage

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.bake import bake, find_texels, gaussian_colors
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.nearest import Surface
from sam3d_nb.mesh.pack import pack
from sam3d_nb.mesh.places import places
from sam3d_nb.mesh.simplify import simplify
from sam3d_nb.mesh.topology import components, face_normals, weld
from sam3d_nb.mesh.unwrap import MIP_LEVELS, unwrap
from sam3d_nb.splats import Gaussians
from sam3d_nb.view.render import render
from sam3d_nb.view.scan import scan
from sam3d_nb.view.shading import LINEAR_OF_SRGB, sample_texture, shrink

METHODS = ("planar", "xatlas")
GAP = 2**MIP_LEVELS


@cache
def chair() -> Mesh:
    return fields.chair(40)


@cache
def small_chair() -> Mesh:
    return simplify(chair(), 2000)


@cache
def baked(method: str, size: int = 512) -> Mesh:
    return bake(unwrap(chair(), size, method=method), chair(), size)


def ramp() -> Mesh:
    """A spiral ramp of four turns, seen from above four times over itself."""
    turn, across = np.meshgrid(
        np.linspace(0, 8 * np.pi, 200), np.linspace(0.5, 1, 6), indexing="ij"
    )
    vertices = np.stack([across * np.sin(turn), turn / 20, across * np.cos(turn)], -1)
    i = np.arange(turn.size).reshape(turn.shape)
    a, b, c, d = i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([a, d, c], -1)]).reshape(-1, 3)
    return Mesh(vertices.reshape(-1, 3), faces)


def broken() -> Mesh:
    """Holes, faces of no area, an edge of three faces, several components."""
    rng = np.random.default_rng(0)
    mesh = small_chair()
    faces = mesh.faces[rng.random(len(mesh.faces)) > 0.05]
    line = np.concatenate([faces[:20, :2], faces[:20, :1]], axis=1)
    fins = np.concatenate([faces[:20, :2], faces[20:40, 2:]], axis=1)
    straight = np.array([[2, 2, 2], [3, 3, 3], [4, 4, 4]])  # a face of no area, on its own
    vertices = np.concatenate([mesh.vertices, straight])
    alone = np.arange(3)[None] + len(mesh.vertices)
    return Mesh(vertices, np.concatenate([faces, line, fins, alone]))


SHAPES = {
    "chair": small_chair,
    "ball": lambda: shapes.mesh(shapes.icosphere(3)),
    "box": lambda: shapes.mesh(shapes.box((1, 2, 0.1))),
    "sheet": lambda: Mesh(*fields.grid(8)),
    "ramp": ramp,
    "broken": broken,
    "small": lambda: shapes.mesh(shapes.icosphere(2, 1e-4), (3, 0, 0)),
}


def texel_faces(mesh: Mesh, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which face covers which pixel's center, with repetitions where faces overlap."""
    plane = np.concatenate([mesh.uv * size, np.ones_like(mesh.uv)], axis=1, dtype=np.float64)
    seen = list(scan(torch.from_numpy(plane[mesh.faces]), size, size))
    return tuple(torch.cat(part).numpy() for part in zip(*seen, strict=True))[:2]


def charts(mesh: Mesh) -> np.ndarray:
    """The chart (F,) of each face: what hangs together by its vertices."""
    a, b, c = mesh.faces.T
    label = components(len(mesh.vertices), np.r_[a, b], np.r_[b, c])
    return label[a]


def psnr(one: Mesh, other: Mesh) -> float:
    """The worse of two views, where both cover the pixel, in decibels of sRGB."""
    found = []
    for azimuth, elevation in ((30, 15), (200, -30)):
        a, b = (
            render(m, azimuth, elevation, size=256, background=None).astype(float)
            for m in (one, other)
        )
        both = (a[..., 3] == 255) & (b[..., 3] == 255)
        found.append(-10 * np.log10(((a - b)[both][:, :3] ** 2).mean() / 255**2))
    return min(found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", list(SHAPES))
def test_charts_neither_overlap_nor_touch(name: str, method: str) -> None:
    mesh, size = SHAPES[name](), 512
    flat = unwrap(mesh, size, method=method)
    assert flat.uv is not None
    assert flat.uv.min() >= 0
    assert flat.uv.max() <= 1
    vertices, faces, _ = weld(mesh.vertices, mesh.faces)
    np.testing.assert_array_equal(flat.vertices[flat.faces], vertices[faces])  # same triangles

    face, pixel = texel_faces(flat, size)
    order = np.argsort(pixel, kind="stable")
    twice = np.flatnonzero(np.diff(pixel[order]) == 0)
    one, other = faces[face[order][twice]], faces[face[order][twice + 1]]
    touching = (one[:, :, None] == other[:, None]).any((1, 2))
    assert (~touching).sum() == 0
    assert len(twice) < 0.002 * len(pixel)

    image = np.zeros(size * size)
    image[pixel] = charts(flat)[face] + 1
    image = image.reshape(size, size)
    window = GAP - 1  # wide: centers of neighboring charts are at least as far apart
    highest = ndimage.maximum_filter(image, window)
    lowest = -ndimage.maximum_filter(np.where(image > 0, -image, -np.inf), window)
    assert (highest == lowest)[image > 0].all()


def test_texture_is_used_well_and_little_distorted() -> None:
    for method, used in (("planar", 0.25), ("xatlas", 0.4)):
        flat = unwrap(small_chair(), 1024, method=method)
        area = np.linalg.norm(face_normals(flat.vertices, flat.faces), axis=1) / 2
        a, b, c = flat.uv[flat.faces].transpose(1, 0, 2).astype(float)
        p, q = b - a, c - a
        texels = np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / 2
        assert used < texels.sum() < 1
        density = np.repeat(texels / area, (area * 1e6).astype(int))  # weighted by area
        assert np.percentile(density, 5) > 0.4 * np.percentile(density, 95)


def test_charts_of_one_direction_are_not_mirrored() -> None:
    flat = unwrap(small_chair(), 512, method="planar")
    a, b, c = flat.uv[flat.faces].transpose(1, 0, 2).astype(float)
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (turn <= 1e-9).all()  # v runs down, so counter-clockwise is negative


@pytest.mark.parametrize(("count", "used"), [(150, 0.5), (2500, 0.03)])
def test_rectangles_are_packed_apart(count: int, used: float) -> None:
    sizes = np.random.default_rng(0).uniform(0.01, 1, (count, 2)) ** 2
    corners, scale = pack(sizes, 512, 8)
    cells = np.zeros((512, 512), dtype=int)
    extent = np.maximum(np.ceil(sizes * scale), 1).astype(int)
    for (x, y), (width, height) in zip(corners, extent, strict=True):
        cells[y - 4 : y + height + 4, x - 4 : x + width + 4] += 1
    assert cells.max() == 1
    assert (corners >= 4).all()
    assert (corners + extent + 4 <= 512).all()
    assert (extent.prod(1)).sum() > used * 512**2


def test_more_rectangles_than_fit() -> None:
    assert pack(np.ones((1000, 2)), 40, 8)[1] <= 1  # single pixels, side by side
    with pytest.raises(InputError, match=r"1000 charts do not fit a texture of 30 pixels"):
        pack(np.ones((1000, 2)), 30, 8)


@pytest.mark.parametrize("method", METHODS)
def test_a_baked_texture_looks_like_the_vertex_colors(method: str) -> None:
    assert psnr(baked(method), chair()) > 47


def test_colors_survive_simplification_in_a_texture() -> None:
    small = small_chair()
    textured = bake(unwrap(small, 512), chair(), 512)
    assert psnr(textured, chair()) > psnr(small, chair()) + 5


@pytest.mark.parametrize("method", METHODS)
def test_seams_do_not_show(method: str) -> None:
    """Both sides of a seam have the color of the source, also in smaller copies of the texture."""
    mesh = baked(method)
    first = places(mesh.vertices)
    seam = np.flatnonzero(first != np.arange(len(first)))
    assert len(seam) > 500
    texture = LINEAR_OF_SRGB[torch.tensor(mesh.texture, dtype=torch.int64)]
    surface = Surface(chair())
    true = to_srgb(surface.colors(surface.closest(mesh.vertices[seam])))
    for level, bound in ((0, 0.012), (1, 0.02), (2, 0.03), (3, 0.05)):
        small = shrink(texture, 2**level)
        one, other = (
            to_srgb(sample_texture(small, torch.from_numpy(mesh.uv[v])).numpy())
            for v in (seam, first[seam])
        )
        assert np.abs(one - other).mean() < bound
        assert np.abs(one - true).mean() < bound


def test_shading_runs_on_across_seams() -> None:
    mesh = baked("planar")
    np.testing.assert_array_equal(mesh.normals, mesh.normals[places(mesh.vertices)])
    close = Surface(chair()).closest(mesh.vertices)
    corner = chair().faces[close.face][np.arange(len(close.face)), close.weights.argmax(1)]
    assert ((mesh.normals * chair().normals[corner]).sum(1) > 0.999).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_mesh_that_keeps_its_triangles_is_baked_without_a_search(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where some triangles have no corner left; the texture is that of a search."""
    mesh = fields.painted(broken())
    flat = unwrap(mesh, 128, method=method)
    assert len(flat.faces) < len(mesh.faces)
    texels = find_texels(flat, 128)
    on = flat.vertices[flat.faces[texels.face]]  # (N, 3, 3)
    assert (np.linalg.norm(on - texels.points[:, None], axis=-1).min(1) < np.ptp(on, 1).max()).all()
    searched: list[int] = []
    search = Surface._search

    def counted(self: Surface, pieces: Any, points: np.ndarray, ways: Any) -> Any:
        searched.append(len(points))
        return search(self, pieces, points, ways)

    monkeypatch.setattr(Surface, "_search", counted)
    quick = bake(flat, mesh, 128)
    assert sum(searched) < len(texels.pixel) / 20  # those whose triangle faces away
    monkeypatch.setattr("sam3d_nb.mesh.bake._same_triangles", lambda *_: None)
    np.testing.assert_array_equal(quick.texture, bake(flat, mesh, 128).texture)
    assert sum(searched) > len(texels.pixel)


def test_nothing_else_is_in_the_texture() -> None:
    ball = shapes.mesh(shapes.icosphere(3))
    one = np.tile(np.float32([0.1, 0.4, 0.8]), (len(ball.vertices), 1))
    for method in METHODS:
        mesh = bake(unwrap(ball, 128, method=method), Mesh(ball.vertices, ball.faces, one), 128)
        assert mesh.texture.shape == (128, 128, 3)
        assert (mesh.texture == mesh.texture[0, 0]).all()
        np.testing.assert_array_equal(
            mesh.texture[0, 0], np.round(to_srgb(one[0].astype(float)) * 255)
        )
        assert mesh.colors is None


def test_texels_agree_with_a_loop() -> None:
    mesh, size = unwrap(small_chair(), 64, method="planar"), 64
    texels = find_texels(mesh, size)
    assert len(np.unique(texels.pixel)) == len(texels.pixel)
    corners = mesh.uv[mesh.faces].astype(float) * size
    place = np.stack([texels.pixel % size, texels.pixel // size], 1) + 0.5
    for pixel, point in list(zip(place, texels.points, strict=True))[::97]:
        found = []
        for face, (a, b, c) in zip(mesh.faces, corners, strict=True):
            system = np.array([b - a, c - a]).T
            if abs(np.linalg.det(system)) > 1e-9:
                v, w = np.linalg.solve(system, pixel - a)
                if min(v, w, 1 - v - w) >= -1e-3:
                    found.append(np.array([1 - v - w, v, w]) @ mesh.vertices[face])
        if found:
            assert min(np.abs(point - other).max() for other in found) < 1e-3
        else:  # a corner on this texel
            under = (np.floor(mesh.uv * size) + 0.5 == pixel).all(1)
            assert np.abs(mesh.vertices[under] - point).max(1).min() < 1e-6


def test_triangles_narrower_than_a_texel_keep_their_color() -> None:
    """Two hundred loose needles of two colors: each shows its own along its whole length."""
    count = 200
    x = np.arange(count)[:, None] * 0.1
    corners = np.stack([x * (1, 0, 0), x * (1, 0, 0) + (0, 1, 0), x * (1, 0, 0) + (0.004, 1, 0)], 1)
    faces = np.arange(3 * count).reshape(-1, 3)
    colors = np.where((np.arange(3 * count) // 3 % 2)[:, None] == 0, (1.0, 0, 0), (0, 0, 1.0))
    needles = Mesh(corners.reshape(-1, 3), faces, colors)
    mesh = bake(unwrap(needles, 256, method="planar"), needles, 256)
    ends = (mesh.uv * 256).astype(int).clip(0, 255)
    surface = Surface(needles)
    true = surface.colors(surface.closest(mesh.vertices))
    np.testing.assert_array_equal(mesh.texture[ends[:, 1], ends[:, 0]], np.round(true * 255))


def test_the_sides_of_a_thin_wall_keep_their_colors() -> None:
    board = shapes.box((1, 1, 0.01))
    vertices, faces = board
    for _ in range(4):
        import trimesh

        vertices, faces = trimesh.remesh.subdivide(vertices, faces)
    colors = np.where(vertices[:, 2:] > 0, (1.0, 0, 0), (0, 0, 1.0))
    thick = Mesh(vertices, faces, colors)
    thinner = Mesh(board[0] * (1, 1, 0.1) - (0, 0, 0.004), board[1])  # nearer to the blue side
    textured = bake(unwrap(thinner, 128), thick, 128)
    front = render(textured, 0, 0, size=64, background=None)
    back = render(textured, 180, 0, size=64, background=None)
    assert front[32, 32, 0] > 200 > 50 > front[32, 32, 2]
    assert back[32, 32, 2] > 200 > 50 > back[32, 32, 0]


def gaussians(points: np.ndarray, colors: np.ndarray, opacity: float = 0.9) -> Gaussians:
    count = len(points)
    scales = np.tile([0.02, 0.02, 0.001], (count, 1))
    rotations = np.tile([1.0, 0, 0, 0], (count, 1))
    return Gaussians(points, scales, rotations, np.full(count, opacity), colors)


def test_gaussian_colors_agree_with_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    count = 40
    cloud = Gaussians(
        rng.random((count, 3)),
        rng.uniform(0.05, 0.4, (count, 3)),
        np.tile([1.0, 0, 0, 0], (count, 1)),
        rng.random(count),
        rng.random((count, 3)),
    )
    points = rng.random((30, 3))
    expected = []
    for point in points:
        distance = np.linalg.norm(cloud.centers - point, axis=1)
        nearest = np.argsort(distance)[:16]
        spread = np.sqrt(np.sort(cloud.scales[nearest], axis=1)[:, 1:].prod(1))
        weight = cloud.opacities[nearest] * np.exp(-(distance[nearest] ** 2) / (2 * spread**2))
        expected.append(weight @ cloud.colors[nearest] / weight.sum())
    np.testing.assert_allclose(gaussian_colors(cloud, points), expected, atol=1e-6)
    monkeypatch.setattr("sam3d_nb.mesh.bake.CHUNK", 7)
    np.testing.assert_allclose(gaussian_colors(cloud, points), expected, atol=1e-6)


def test_baked_from_gaussians() -> None:
    vertices = chair().vertices
    splats = gaussians(vertices, to_srgb(chair().colors))
    hidden = gaussians(vertices + 0.001, np.zeros_like(vertices), opacity=0.0)
    both = Gaussians(
        *(np.concatenate([getattr(s, n) for s in (splats, hidden)]) for n in splats.__annotations__)
    )
    mesh = bake(unwrap(small_chair(), 512), both, 512)
    assert psnr(mesh, bake(unwrap(small_chair(), 512), chair(), 512)) > 25
    one = bake(
        unwrap(small_chair(), 64), gaussians(np.zeros((1, 3)), np.float32([[0.2, 0.4, 1]])), 64
    )
    assert (one.texture == (51, 102, 255)).all()


def test_auto_takes_xatlas_for_small_meshes_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ball = shapes.mesh(shapes.icosphere(2))
    ways = {method: unwrap(ball, 128, method=method).uv for method in METHODS}
    np.testing.assert_array_equal(unwrap(ball, 128).uv, ways["xatlas"])
    monkeypatch.setattr("sam3d_nb.mesh.unwrap.XATLAS_TRIANGLES", 100)
    np.testing.assert_array_equal(unwrap(ball, 128).uv, ways["planar"])
    monkeypatch.setattr("sam3d_nb.mesh.unwrap.XATLAS_TRIANGLES", 1000)
    monkeypatch.setitem(sys.modules, "xatlas", None)
    np.testing.assert_array_equal(unwrap(ball, 128).uv, ways["planar"])
    with pytest.raises(InputError, match="xatlas is not installed"):
        unwrap(ball, 128, method="xatlas")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_again(method: str) -> None:
    again = bake(unwrap(chair(), 512, method=method), chair(), 512)
    for name in ("vertices", "faces", "uv", "texture"):
        np.testing.assert_array_equal(getattr(again, name), getattr(baked(method), name))


def test_what_cannot_be_unwrapped_or_baked() -> None:
    ball = shapes.mesh(shapes.icosphere(1))
    for size in (15, 8193, 100.5, True, "large"):
        with pytest.raises(InputError, match="16 to 4096 pixels a side but"):
            unwrap(ball, size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no way to unwrap called 'magic'; use one of auto"):
        unwrap(ball, method="magic")
    with pytest.raises(InputError, match="without triangles cannot be unwrapped"):
        unwrap(Mesh(np.zeros((3, 3)), np.zeros((0, 3))))
    with pytest.raises(InputError, match="neither vertex colors nor a texture"):
        bake(unwrap(ball, 64), ball, 64)
    with pytest.raises(InputError, match="no uv coordinates to bake a texture for; unwrap it"):
        bake(ball, fields.painted(ball), 64)
    with pytest.raises(InputError, match="there are 0 gaussians"):
        bake(unwrap(ball, 64), gaussians(np.zeros((0, 3)), np.zeros((0, 3))), 64)
