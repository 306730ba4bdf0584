"""The silhouette model: closed for every mask, true to the outline, at the right place."""

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam3d_nb.errors import InputError
from sam3d_nb.frames import FACING_CAMERA, default_intrinsics, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.inflate import inflate
from sam3d_nb.mesh.outline import trace
from sam3d_nb.object3d import Object3D
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize
from sam3d_nb.zoo import load_model

SIDE = 192
V, U = np.mgrid[:SIDE, :SIDE] + 0.5


def ball(u: float = 96, v: float = 96, radius: float = 60) -> np.ndarray:
    return (U - u) ** 2 + (V - v) ** 2 < radius**2


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def noise() -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(SIDE, SIDE)), 3)
    return field > 0.05


MASKS: dict[str, Callable[[], np.ndarray]] = {
    "ball": ball,
    "corner of the photo": lambda: ball(0, 0),
    "whole photo": lambda: np.ones((SIDE, SIDE), dtype=bool),
    "ring": lambda: ball() & ~ball(radius=40),
    "two pieces": lambda: ball(50, 60, 30) | ball(140, 120, 35),
    "touching at a corner": lambda: drawn((40, 96, 40, 96), (96, 150, 96, 150)),
    "grid of holes": lambda: ball() & ((U % 16 > 5) | (V % 16 > 5)),
    "square": lambda: drawn((40, 150, 30, 160)),
    "table": lambda: drawn((60, 72, 20, 170), (72, 160, 24, 28), (72, 160, 160, 164)),
    "random blobs": noise,
    "small": lambda: drawn((90, 98, 90, 100)),
    "line": lambda: drawn((95, 96, 20, 170)),
    "nothing but specks": lambda: (U % 4 < 1) & (V % 5 < 1),
    "diagonal line": lambda: np.eye(SIDE, dtype=bool),
}


def reconstruct(mask: np.ndarray, **options: object) -> Object3D:
    photo = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    return load_model("silhouette").reconstruct(photo, mask, **options)  # type: ignore[arg-type]


@cache
def of(name: str) -> Object3D:
    return reconstruct(MASKS[name]())


def assert_closed(mesh: Mesh) -> None:
    """Every edge lies in exactly two faces, which run along it in opposite directions."""
    count, faces = len(mesh.vertices), mesh.faces.astype(np.int64)
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    forward, backward = np.sort(start * count + end), np.sort(end * count + start)
    assert (np.diff(forward) > 0).all()
    np.testing.assert_array_equal(forward, backward)
    a, b, c = mesh.vertices[faces].transpose(1, 0, 2)
    assert (a * np.cross(b, c)).sum() > 0  # six times the volume
    assert np.bincount(start, minlength=count).min() > 0


def projection(result: Object3D, shape: tuple[int, int], camera: np.ndarray) -> np.ndarray:
    mesh = result.mesh_in_camera()
    vertices, faces = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces)
    return rasterize(vertices, faces, Camera(*shape, camera)).covered.numpy()


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union."""
    return (first & second).sum() / (first | second).sum()


def test_another_library_agrees_that_it_is_closed() -> None:
    mesh = of("ring").mesh
    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.volume > 0
    assert shape.euler_number == 0  # a torus


def center(mesh: Mesh) -> np.ndarray:
    return mesh.bounds.mean(0)


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_becomes_a_closed_mesh(name: str) -> None:
    mesh = of(name).mesh
    assert_closed(mesh)
    np.testing.assert_allclose(mesh.bounds.sum(0), 0, atol=1e-5)
    assert np.ptp(mesh.bounds, axis=0).max() == pytest.approx(1, abs=1e-5)
    assert mesh.uv is not None
    assert mesh.uv.min() >= 0
    assert mesh.uv.max() <= 1


@pytest.mark.parametrize("name", [n for n in MASKS if "line" not in n and "specks" not in n])
def test_the_projection_is_the_mask(name: str) -> None:
    covered = projection(of(name), (SIDE, SIDE), default_intrinsics(SIDE, SIDE))
    assert overlap(covered, MASKS[name]()) >= 0.97


@pytest.mark.parametrize("name", ["corner of the photo", "table"])
def test_the_projection_is_the_mask_far_from_the_middle_of_a_wide_photo(name: str) -> None:
    camera = default_intrinsics(SIDE, SIDE, field_of_view=70)
    camera[:2, 2] += (70, -40)
    result = reconstruct(MASKS[name](), intrinsics=camera)
    assert overlap(projection(result, (SIDE, SIDE), camera), MASKS[name]()) >= 0.97


@pytest.mark.parametrize("degrees", range(5, 365, 72))
@pytest.mark.parametrize("radius", [10, 60])
def test_thin_parts_neither_vanish_nor_break_off(radius: int, degrees: int) -> None:
    """A ball with a wire of one pixel in any direction stays one piece."""
    mask = ball(radius=radius)
    angle = np.radians(degrees)
    for step in np.arange(radius - 3, 90, 0.25):
        mask[int(96 + step * np.sin(angle)), int(96 + step * np.cos(angle))] = True
    result = reconstruct(mask)
    covered = projection(result, (SIDE, SIDE), default_intrinsics(SIDE, SIDE))
    assert ndimage.binary_dilation(covered)[mask].all()
    count, faces = len(result.mesh.vertices), result.mesh.faces
    links = coo_array(
        (np.ones(faces.size), (faces.reshape(-1), np.roll(faces, 1, axis=1).reshape(-1))),
        shape=(count, count),
    )
    assert connected_components(links)[0] == 1


def test_a_thin_part_of_a_large_photo_does_not_vanish() -> None:
    """Cells are 9 pixels wide here, the wire is 2."""
    mask = np.zeros((1200, 1200), dtype=bool)
    mask[300:1200, 100:1100] = True
    mask[20:300, 600:602] = True
    outline = trace(mask)
    assert outline.cell > 8
    assert outline.points[:, 1].min() < 30
    assert outline.border.sum() > 100


def test_specks_and_pinholes_are_left_out() -> None:
    clean = ball()
    dirty = clean.copy()
    dirty[5, 5] = True
    dirty[96, 96:98] = False
    np.testing.assert_array_equal(trace(dirty).points, trace(clean).points)


def test_a_disc_becomes_a_ball() -> None:
    outline = trace(ball(90, 100, 60))
    points, _, border, height = inflate(outline.points, outline.faces, outline.border, outline.cell)
    radius = np.sqrt(((points - (90, 100)) ** 2).sum(1) + height**2)
    np.testing.assert_allclose(radius, 60, atol=0.6)
    assert (height[border] == 0).all()
    assert (height[~border] > 0).all()


def test_the_height_agrees_with_finite_differences() -> None:
    """h^2 of a rectangle against plain relaxation on the pixel grid."""
    mask = drawn((40, 100, 40, 120))
    squared = np.zeros((SIDE, SIDE))
    inside = squared[40:100, 40:120]
    for _ in range(6000):
        inside[:] = (
            squared[39:99, 40:120] + squared[41:101, 40:120]
            + squared[40:100, 39:119] + squared[40:100, 41:121] + 4
        ) / 4  # fmt: skip
    outline = trace(mask)
    points, _, _, height = inflate(outline.points, outline.faces, outline.border, outline.cell)
    middle = np.linalg.norm(points - (80, 70), axis=1).argmin()
    assert height[middle] ** 2 == pytest.approx(squared[70, 80], rel=0.05)


@pytest.mark.parametrize("degrees", [3.0, 25.0])
def test_a_ball_is_found_again_in_perspective(degrees: float) -> None:
    """A ball that the camera sees under this angle, near or far."""
    sine = np.sin(np.radians(degrees))
    focal = 70 / np.tan(np.radians(degrees))
    camera = np.array([[focal, 0, 96], [0, focal, 96], [0, 0, 1.0]])
    result = reconstruct(ball(radius=70), intrinsics=camera)
    mesh = result.mesh_in_camera()
    center = np.array(result.pose.translation)
    np.testing.assert_allclose(center[:2], 0, atol=1e-3 * center[2])
    radius = np.linalg.norm(mesh.vertices - center, axis=1)
    np.testing.assert_allclose(radius, sine * center[2], rtol=0.03)
    facing = rotation_matrix(FACING_CAMERA)
    np.testing.assert_allclose(rotation_matrix(result.pose.rotation), facing, atol=1e-6)


def test_seen_from_afar_front_and_back_mirror_each_other() -> None:
    """Same texel and opposite depth."""
    camera = default_intrinsics(SIDE, SIDE, field_of_view=0.5)
    mesh = reconstruct(MASKS["table"](), intrinsics=camera).mesh
    assert mesh.uv is not None
    depths: dict[tuple[float, float], list[float]] = {}
    for depth, uv in zip(mesh.vertices[:, 2], mesh.uv.tolist(), strict=True):
        depths.setdefault(tuple(uv), []).append(float(depth))
    pairs = np.array([d for d in depths.values() if len(d) == 2])
    assert len(pairs) > 0.4 * len(mesh.vertices)
    np.testing.assert_allclose(pairs.sum(1), 0, atol=2e-3)
    assert np.abs(pairs).max() > 0.02


def test_the_photo_lies_on_the_front() -> None:
    """Every vertex carries the color of the pixel that it projects to."""
    photo = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    photo[..., 0], photo[..., 1] = U, V
    result = load_model("silhouette").reconstruct(photo, ball())
    mesh, camera = result.mesh_in_camera(), default_intrinsics(SIDE, SIDE)
    pixels = (mesh.vertices @ camera.T)[:, :2] / mesh.vertices[:, 2:]
    inner = ball(radius=55)[pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    assert mesh.texture is not None
    assert mesh.uv is not None
    size = mesh.texture.shape[1], mesh.texture.shape[0]
    column, row = (mesh.uv[inner] * size).astype(int).T
    np.testing.assert_allclose(mesh.texture[row, column, :2] + 0.5, pixels[inner], atol=0.51)


def test_the_visible_surface_lies_at_the_depth_of_the_point_map() -> None:
    camera = np.array([[200, 0, 96], [0, 200, 96], [0, 0, 1.0]])
    depth = np.where(ball(), 3.0, 8.0)
    depth[90:100, 90:100] = np.nan
    depth[100:104, 100:104] = 50  # a few wild values
    points = np.dstack([(U - 96) / 200 * depth, (V - 96) / 200 * depth, depth])
    result = reconstruct(ball(), pointmap=points)
    mesh = result.mesh_in_camera()
    raster = rasterize(
        torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces), Camera(SIDE, SIDE, camera)
    )
    seen = raster.depth[raster.covered]
    assert float(seen.median()) == pytest.approx(3.0, rel=0.01)
    sine = np.sin(np.arctan(60 / 200))
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(2 * sine * center(mesh)[2], rel=0.01)


def test_without_a_point_map_it_lies_one_metre_away() -> None:
    mesh = reconstruct(ball(radius=20)).mesh_in_camera()
    assert mesh.vertices[:, 2].min() < 1 < mesh.vertices[:, 2].max()
    assert mesh.vertices[:, 2].min() > 0.8


def test_an_object_without_depth_takes_that_of_the_photo() -> None:
    depth = np.where(ball(), np.nan, 8.0)
    points = np.dstack([(U - 96) / 200 * depth, (V - 96) / 200 * depth, depth])
    with pytest.warns(UserWarning, match="no depth within the mask"):
        result = reconstruct(ball(), pointmap=points)
    assert result.pose.translation[2] == pytest.approx(8, rel=0.4)


def test_a_wide_view_keeps_the_object_in_front_of_the_camera() -> None:
    camera = default_intrinsics(SIDE, SIDE, field_of_view=140)
    result = reconstruct(MASKS["whole photo"](), intrinsics=camera)
    assert_closed(result.mesh)
    assert result.mesh_in_camera().vertices[:, 2].min() > 0


def test_intrinsics_that_see_behind_themselves_get_a_sentence() -> None:
    camera = np.array([[1e-3, 0, 20], [0, 1e-3, 20], [0, 0, 1.0]])
    with pytest.raises(InputError, match="check K"):
        reconstruct(MASKS["whole photo"](), intrinsics=camera)


def test_a_photo_of_768_pixels_takes_under_three_seconds() -> None:
    side = 768
    v, u = np.mgrid[:side, :side] + 0.5
    angle, radius = np.arctan2(v - 384, u - 384), np.hypot(u - 384, v - 384)
    mask = (radius < 300 + 60 * np.sin(7 * angle)) & (radius > 80)
    points = np.dstack([(u - 384) / 800, (v - 384) / 800, np.ones_like(u)])
    reconstruct(ball())  # imports
    started = time.perf_counter()
    result = reconstruct(mask, pointmap=points)
    assert time.perf_counter() - started < 3
    assert len(result.mesh.faces) < 150_000
