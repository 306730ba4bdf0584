"""The rasterizer against plain loops, a ray caster and shapes whose area is known."""

from fractions import Fraction
from time import perf_counter

import numpy as np
import pytest
import torch
from shapes import box, icosphere
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.view.camera import Camera, orbit_camera
from sam3d_nb.view.raster import rasterize
from sam3d_nb.view.scan import STEPS, scan

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def flat_camera(height: int, width: int) -> Camera:
    """Orthographic; a unit is a pixel and (x, y) is (u, v)."""
    return Camera(height, width, np.eye(3), orthographic=True)


def photo_camera(size: int, focal: float | None = None) -> Camera:
    f = focal or size
    return Camera(size, size, np.array([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]]))


def soup(count: int, seed: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(count * 3, 3, generator=generator, dtype=torch.float64)
    return vertices * (high - low) + low, torch.arange(count * 3).view(count, 3)


def plain_scan(corners: Tensor, height: int, width: int) -> list[tuple[int, int, float]]:
    """One triangle and one pixel at a time, in exact rational arithmetic."""
    found = []
    for face, rows in enumerate(corners.tolist()):
        points = [(round(x / w * STEPS), round(y / w * STEPS)) for x, y, w, _ in rows]
        depths = [Fraction(q / w) for _, _, w, q in rows]

        def edge(i: int, p: tuple[int, int], points: list[tuple[int, int]] = points) -> int:
            (ax, ay), (bx, by) = points[i], points[(i + 1) % 3]
            return (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)

        area = edge(0, points[2])
        if area < 0:
            points.reverse()
            depths.reverse()
        if area == 0:
            continue
        for v in range(height):
            for u in range(width):
                p = (u * STEPS + STEPS // 2, v * STEPS + STEPS // 2)
                values = [edge(i, p) for i in range(3)]
                inside = True
                for i, value in enumerate(values):
                    (ax, ay), (bx, by) = points[i], points[(i + 1) % 3]
                    owned = by < ay or (by == ay and bx > ax)
                    inside &= value > 0 or (value == 0 and owned)
                if inside:
                    weights = [Fraction(values[(i + 1) % 3], abs(area)) for i in range(3)]
                    depth = sum(w * d for w, d in zip(weights, depths, strict=True))
                    found.append((face, v * width + u, float(depth)))
    return sorted(found)


def cast_rays(vertices: Tensor, faces: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Möller-Trumbore for every pixel and triangle: (face, depth, distance to nearest edge)."""
    v, u = torch.meshgrid(
        torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
    )
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).double().view(-1, 3)
    rays = pixels @ torch.linalg.inv(torch.tensor(camera.intrinsics)).T  # z is 1
    a, b, c = camera.to_camera(vertices)[faces].unbind(1)  # (F, 3)
    p = torch.linalg.cross(rays[:, None].expand(-1, len(a), -1), (c - a)[None])
    scale = (p * (b - a)).sum(-1)
    w1 = (p * -a).sum(-1) / scale
    q = torch.linalg.cross(-a, b - a)
    w2 = (rays @ q.T) / scale
    z = (q * (c - a)).sum(-1) / scale
    margin = torch.stack([1 - w1 - w2, w1, w2]).amin(0)  # (P, F)
    z = torch.where((margin > 0) & (z > 0), z, torch.inf)
    depth, face = z.min(1)
    return torch.where(depth.isfinite(), face, -1), depth, margin.abs().amin(1)


@pytest.mark.parametrize("piece", [7, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_scan_is_the_plain_loop(seed: int, piece: int) -> None:
    vertices, faces = soup(12, seed, -3.0, 15.0)
    if seed % 2:
        vertices = (vertices * 2).round() / 2  # corners and edges on pixel centers
    corners = flat_camera(11, 13).corners(vertices, faces)
    pieces = [torch.stack([x.double() for x in part], 1) for part in scan(corners, 11, 13, piece)]
    found = sorted(map(tuple, torch.cat(pieces).tolist()))
    expected = plain_scan(corners, 11, 13)
    assert [f[:2] for f in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([f[2] for f in found], [e[2] for e in expected], atol=1e-9)
    assert all(len(part) <= piece + 13 for part in pieces)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-8.0, 9.0)])
def test_pinhole_view_is_the_ray_caster_also_through_the_camera(
    device: str, low: float, high: float
) -> None:
    vertices, faces = soup(60, 5, low, high)  # many triangles reach behind the camera
    camera = photo_camera(24)
    raster = rasterize(vertices.to(device), faces.to(device), camera)
    face, depth, edge = cast_rays(vertices, faces, camera)
    clear = edge > 1e-3  # snapping moves edges by up to 1/2048 pixel
    assert clear.float().mean() > 0.5
    assert (face >= 0)[clear].any()
    assert torch.equal(raster.face.cpu().view(-1)[clear], face[clear])
    seen = clear & (face >= 0)
    torch.testing.assert_close(
        raster.depth.cpu().view(-1)[seen].double(), depth[seen], rtol=1e-5, atol=0
    )
    weights = raster.barycentric.cpu().view(-1, 3)[seen].double()
    points = (weights[..., None] * vertices[faces[face[seen]]]).sum(1)
    torch.testing.assert_close(points[:, 2], depth[seen], rtol=1e-5, atol=1e-5)


def test_barycentrics_are_perspective_correct() -> None:
    vertices = torch.tensor([[-1.0, -1, 1], [9, -9, 9], [-9, 9, 9]])
    raster = rasterize(vertices, torch.tensor([[0, 1, 2]]), photo_camera(64))
    v, u = (x.float() + 0.5 for x in raster.covered.nonzero().unbind(1))
    points = raster.barycentric[raster.covered] @ vertices
    torch.testing.assert_close(points[:, 0] / points[:, 2] * 64 + 32, u, rtol=0, atol=1e-3)
    torch.testing.assert_close(points[:, 1] / points[:, 2] * 64 + 32, v, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_triangulated_square_covers_each_pixel_once(seed: int) -> None:
    """No crack and no double edge: the square's pixels, each by exactly one triangle."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1)
    grid[1:-1, 1:-1] += generator.uniform(-0.4, 0.4, (7, 7, 2))
    grid = np.round(grid * 4) / 4 if seed == 0 else grid  # also exactly on pixel centers
    index = np.arange(81).reshape(9, 9)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = torch.tensor(
        np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    )
    vertices = torch.tensor(np.concatenate([grid.reshape(-1, 2) * 4, np.ones((81, 1))], 1))
    hits = torch.zeros(40 * 40, dtype=torch.int64)
    for _, pixel, _ in scan(flat_camera(40, 40).corners(vertices, faces), 40, 40):
        hits += torch.bincount(pixel, minlength=40 * 40)
    expected = torch.zeros(40, 40, dtype=torch.int64)
    expected[:32, :32] = 1
    assert torch.equal(hits.view(40, 40), expected)


def test_a_closed_surface_is_crossed_an_even_number_of_times() -> None:
    vertices, faces = icosphere(3)
    camera = orbit_camera((0, 0, 0), 1.0, 33, 21, size=97)
    corners = camera.corners(torch.tensor(vertices), torch.tensor(faces))
    hits = sum(torch.bincount(pixel, minlength=97 * 97) for _, pixel, _ in scan(corners, 97, 97))
    assert set(hits.unique().tolist()) == {0, 2}


def test_areas_of_known_shapes() -> None:
    vertices, faces = icosphere(4)
    size = 200
    disk = rasterize(
        torch.tensor(vertices),
        torch.tensor(faces),
        orbit_camera((0, 0, 0), 1.25, size=size, orthographic=True),
    )
    assert disk.covered.sum().item() == pytest.approx(np.pi * 80**2, rel=2e-3)
    assert disk.depth.min().item() == pytest.approx(1.25 / np.sin(np.radians(15)) - 1, abs=1e-3)
    vertices, faces = box((2.0, 1.0, 0.5))
    front = rasterize(
        torch.tensor(vertices) + torch.tensor([0.0, 0.0, 2.25]),
        torch.tensor(faces),
        photo_camera(100, focal=50.0),
    )
    expected = torch.zeros(100, 100, dtype=torch.bool)
    expected[37:62, 25:75] = True  # 50 by 25 pixels; the upper edge is on centers and counts
    assert torch.equal(front.covered, expected)
    assert front.depth[front.covered].unique().tolist() == [2.0]


def test_orbit_directions() -> None:
    """Colored sides: azimuth 0 sees +z, 90 sees +x, elevation 90 sees +y; up is up."""
    points = torch.tensor([[0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]])
    for azimuth, elevation, nearest in ((0, 0, 0), (90, 0, 1), (0, 90, 2)):
        camera = orbit_camera((0, 0, 0), 1.0, azimuth, elevation)
        assert int(camera.to_camera(points)[:, 2].argmin()) == nearest
    camera = orbit_camera((0, 0, 0), 1.0, 0, 0)
    assert camera.to_camera(points)[2, 1] < 0  # +y of the world is up on the screen
    assert camera.to_camera(points)[1, 0] > 0  # +x is right
    np.testing.assert_allclose(camera.position, [0, 0, 1 / np.sin(np.radians(15))], atol=1e-12)


def test_equal_depth_shows_the_lowest_index_and_depth_order_holds() -> None:
    triangle = torch.tensor([[0.0, 0, 0], [8, 0, 0], [0, 8, 0]])
    back, front = triangle + torch.tensor([0, 0, 2.0]), triangle - torch.tensor([0, 0, 2.0])
    faces = torch.arange(9).view(3, 3)
    twice = rasterize(torch.cat([back, triangle, triangle]), faces, flat_camera(8, 8))
    assert set(twice.face.unique().tolist()) == {-1, 1}
    three = rasterize(torch.cat([back, triangle, front]), faces, flat_camera(8, 8))
    assert set(three.face.unique().tolist()) == {-1, 2}


def test_nothing_to_see() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    behind = torch.tensor([[0.0, 0, -1], [1, 0, -1], [0, 1, -1]])
    for vertices, faces in (
        (torch.zeros(0, 3), none),
        (behind, none),
        (behind, torch.tensor([[0, 1, 2]])),
        (behind.abs(), torch.tensor([[0, 1, 1]])),
    ):
        raster = rasterize(vertices, faces, photo_camera(8))
        assert not raster.covered.any()
        assert torch.isinf(raster.depth).all()
        assert not raster.barycentric.any()


def test_a_triangle_far_beyond_the_picture_does_not_overflow() -> None:
    vertices = torch.tensor([[-1e9, -1e9, 1.0], [1e9, -1e9, 1.0], [0, 1e9, 1.0]])
    assert rasterize(vertices, torch.tensor([[0, 1, 2]]), photo_camera(32)).covered.all()
    floor = torch.tensor([[-1e6, 1.0, -1e6], [1e6, 1.0, -1e6], [0, 1.0, 1e9]])
    seen = rasterize(floor, torch.tensor([[0, 1, 2]]), photo_camera(32)).covered
    assert seen[16:].all()
    assert not seen[:16].any()


def test_bad_shapes_and_cameras_get_a_sentence() -> None:
    with pytest.raises(InputError, match=r"\(V, 3\) and faces \(F, 3\) but got \(4, 2\)"):
        rasterize(torch.zeros(4, 2), torch.zeros(1, 3, dtype=torch.int64), photo_camera(8))
    with pytest.raises(InputError, match="0 x 8"):
        flat_camera(0, 8)
    with pytest.raises(InputError, match="positive focal lengths"):
        Camera(8, 8, np.diag([-1.0, 1, 1]))
    with pytest.raises(InputError, match="translation"):
        Camera(8, 8, np.eye(3), translation=np.array([0, np.nan, 0]))


def test_three_hundred_thousand_triangles_take_seconds() -> None:
    vertices, faces = icosphere(7)  # 327,680 triangles
    camera = orbit_camera((0, 0, 0), 1.0, 30, 20, size=512)
    started = perf_counter()
    raster = rasterize(torch.tensor(vertices), torch.tensor(faces), camera)
    assert perf_counter() - started < 10  # 0.3 s alone on two cores
    assert raster.covered.float().mean().item() == pytest.approx(np.pi / 4, rel=1e-3)
