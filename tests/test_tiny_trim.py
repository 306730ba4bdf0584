"""What a surface and its colors are in the photo's own view: its outline, its pixels."""

from dataclasses import replace

import numpy as np
import pytest
import shapes
import torch
from tiny_plain import matched_colors

from sam3d_nb.engine.sums import sums
from sam3d_nb.frames import FACING_CAMERA, Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.finish import finish
from sam3d_nb.mesh.topology import topology
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.tiny.crumbs import lowest, pieces, without_crumbs
from sam3d_nb.tiny.match import matched
from sam3d_nb.tiny.nearest import distance, nearest, outside, transform
from sam3d_nb.tiny.pierce import pierced
from sam3d_nb.tiny.sculpt import Sculptor
from sam3d_nb.tiny.trim import trimmed
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import Raster, rasterize

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE, FOCAL, DISTANCE = 120, 180.0, 3.0
CAMERA = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
POSE = Pose(FACING_CAMERA, (0.0, 0.0, DISTANCE), (1.5,) * 3)


def ball(radius: float, times: int = 5) -> Surface:
    vertices, faces = shapes.icosphere(times)
    attributes = torch.full((len(vertices), 6), 0.5)
    on_device = torch.from_numpy(vertices * radius).float()
    return Surface(on_device, torch.from_numpy(faces).long(), attributes)


def in_camera(surface: Surface) -> torch.Tensor:
    x, y, z = surface.vertices.double().cpu().unbind(1)
    center = torch.tensor(POSE.translation, dtype=torch.float64)
    return torch.stack([x, -z, y], 1) * POSE.scale[0] + center


def seen(surface: Surface) -> Raster:
    return rasterize(in_camera(surface), surface.faces.cpu(), Camera(SIZE, SIZE, CAMERA))


def sculptor(mask: np.ndarray, depth: float, *, exact: bool = True) -> Sculptor:
    return Sculptor(POSE, np.full((SIZE, SIZE, 3), depth), mask, CAMERA, exact)


@pytest.mark.parametrize("device", DEVICES)
def test_what_stands_out_moves_to_the_outline_and_keeps_its_depth(device: str) -> None:
    mask = seen(ball(0.4)).covered.numpy()
    wide = ball(0.41)
    on_device = Surface(*(value.to(device) for value in vars(wide).values()))
    found = trimmed(on_device, sculptor(mask, 5.0))
    before, after = (seen(surface).covered.numpy() for surface in (wide, found))
    assert (before & ~mask).sum() > 100
    assert (after & ~mask).sum() < 10
    assert (mask & ~after).sum() < 10
    moved = (in_camera(found) - in_camera(wide)).abs()
    assert moved[:, 2].max() < 1e-6
    assert 0.01 < moved.max() < 2 * 1.5 / 64
    assert (moved.amax(1) < 1e-6).float().mean() > 0.5
    assert len(found.vertices.unique(dim=0)) == len(found.vertices)
    assert found.vertices.dtype == torch.float32
    assert torch.equal(found.faces, on_device.faces)


def test_what_something_hides_stays_where_a_given_point_map_tells() -> None:
    mask, wide = seen(ball(0.4)).covered.numpy(), ball(0.41)
    points = np.where(mask, DISTANCE - 0.6, 1.0)[..., None].repeat(3, 2)  # in a hole of a wall
    hidden = trimmed(wide, Sculptor(POSE, points, mask, CAMERA))
    assert torch.allclose(hidden.vertices, wide.vertices, atol=1e-6)
    guessed = trimmed(wide, sculptor(mask, 1.0, exact=False))
    assert not torch.allclose(guessed.vertices, wide.vertices, atol=1e-3)


def test_what_is_far_beside_the_mask_stays() -> None:
    mask, larger = seen(ball(0.3)).covered.numpy(), ball(0.45)
    found = trimmed(larger, sculptor(mask, 5.0))
    rim = larger.vertices[:, [0, 2]].norm(dim=1) > 0.4
    assert torch.allclose(found.vertices[rim], larger.vertices[rim], atol=1e-6)


def test_a_mask_of_few_pixels_or_beside_the_surface_is_no_error() -> None:
    surface = ball(0.3)
    for rows, columns in ((slice(0, 1), slice(0, 1)), (slice(119, 120), slice(None))):
        mask = np.zeros((SIZE, SIZE), dtype=bool)
        mask[rows, columns] = True
        found = trimmed(surface, sculptor(mask, 5.0))
        assert torch.allclose(found.vertices, surface.vertices, atol=1e-6)
    wide = np.ones((3, 4000), dtype=bool)  # blocks of pixels: one row of them
    flat = Sculptor(POSE, np.full((3, 4000, 3), 5.0), wide, CAMERA)
    assert trimmed(surface, flat) is surface
    colors = torch.rand(len(surface.vertices), 3, dtype=torch.float64)
    nothing = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    photo = torch.zeros(SIZE, SIZE, 3, dtype=torch.float64)
    assert torch.equal(matched(colors, surface.faces, seen(surface), photo, nothing), colors)


@pytest.fixture(scope="module", params=[5, 4], ids=["fine", "coarse"])
def slit(request) -> tuple[Surface, np.ndarray, np.ndarray]:
    """A ball without a slit, the mask of one with a slit of two pixels, and what is seen there.

    Its edges are 1.3 or 2.6 pixels long.
    """
    surface = ball(0.4, request.param)
    mask = seen(surface).covered.numpy().copy()
    mask[30:90, 70:72] = False
    return surface, mask, np.where(mask, DISTANCE - 0.6, 9.0)[..., None].repeat(3, 2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_narrow_gap_is_opened_through_the_whole_object(slit, device: str) -> None:
    surface, mask, points = slit
    on_device = Surface(*(value.to(device) for value in vars(surface).values()))
    found = pierced(on_device, Sculptor(POSE, points, mask, CAMERA))
    after = seen(found).covered.numpy()
    assert seen(surface).covered.numpy()[45:75, 70:72].all()
    assert not after[45:75, 70:72].any()
    assert after[mask].all()
    assert found.vertices.device.type == device
    assert found.attributes.shape == (len(found.vertices), 6)
    # still one piece, whose only open edges are those of the gap
    used, *others = (found.faces.unique(), found.vertices.unique(dim=0), found.vertices)
    assert [len(used), len(others[0])] == [len(found.vertices)] * 2
    assert len(pieces(found.faces, len(found.vertices)).unique()) == 1
    edges, count = (
        found.faces.cpu()[:, [[0, 1], [1, 2], [2, 0]]]
        .flatten(0, 1)
        .sort(1)
        .values.unique(dim=0, return_counts=True)
    )
    assert set(count.tolist()) == {1, 2}
    x, y = (in_camera(found) @ torch.from_numpy(CAMERA).T)[:, :2].T / in_camera(found)[:, 2]
    rim = edges[count == 1].flatten()
    assert ((x[rim] > 69) & (x[rim] < 73) & (y[rim] > 29) & (y[rim] < 91)).all()


def test_finish_closes_a_gap_again(slit) -> None:
    surface, mask, points = slit
    found = pierced(surface, Sculptor(POSE, points, mask, CAMERA))
    mesh = Mesh(found.vertices.numpy(), found.faces.numpy())
    closed = finish(mesh, watertight=True)
    assert topology(closed).watertight
    vertices = torch.from_numpy(closed.vertices.copy())
    lids = Surface(vertices, torch.from_numpy(closed.faces.copy()).long(), vertices.repeat(1, 2))
    assert seen(lids).covered.numpy()[45:75, 70:72].mean() > 0.9


def test_only_what_a_given_point_map_looks_through_is_opened(slit) -> None:
    surface, mask, points = slit
    near = np.full_like(points, DISTANCE - 0.6)  # a flaw of the mask: the object itself is there
    for sculptor in (
        Sculptor(POSE, near, mask, CAMERA),
        Sculptor(POSE, points, mask, CAMERA, exact=False),
        Sculptor(POSE, points, seen(surface).covered.numpy(), CAMERA),
        Sculptor(POSE, points, np.zeros_like(mask), CAMERA),
    ):
        assert pierced(surface, sculptor) is surface
    wide = mask.copy()
    wide[30:90, 60:80] = False
    assert pierced(surface, Sculptor(POSE, points, wide, CAMERA)) is surface
    astray = replace(POSE, translation=(0.0, 0.0, 1e-4))  # so a millimeter is wider than the photo
    assert len(pierced(surface, Sculptor(astray, points, mask, CAMERA)).faces) > 0


@pytest.mark.parametrize("device", DEVICES)
def test_distances_to_a_mask_are_those_of_a_loop(device: str) -> None:
    mask = np.random.default_rng(0).random((9, 13)) < 0.15
    mask[4] = False  # a row without any
    on_device = torch.from_numpy(mask).to(device)
    square, also = (value.cpu().numpy() for value in transform(on_device))
    away, near = outside(on_device).cpu().numpy(), nearest(on_device).cpu().numpy()
    for place in np.ndindex(mask.shape):
        far = np.linalg.norm(np.argwhere(mask) - place, axis=1).min()
        deep = np.linalg.norm(np.argwhere(~mask) - place, axis=1).min()
        assert away[place] == pytest.approx(0.5 - deep if mask[place] else far - 0.5)
        assert square[place] == pytest.approx(far**2)
        for pixel in (near[place], also[place]):
            row, column = divmod(int(pixel), mask.shape[1])
            assert mask[row, column]
            assert np.hypot(row - place[0], column - place[1]) == pytest.approx(far)


@pytest.mark.parametrize("device", DEVICES)
def test_of_pixels_that_are_equally_near_every_device_takes_the_same(device: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = torch.from_numpy(rng.random(rng.integers(3, 24, 2)) < rng.choice([0.03, 0.1, 0.3]))
        if bool(mask.any()):
            assert torch.equal(transform(mask.to(device))[1].cpu(), nearest(mask))


def test_without_a_mask_everything_is_far() -> None:
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    assert bool((outside(nothing) > 1000).all())
    assert bool((outside(~nothing) < -1000).all())


def test_distances_are_worked_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.02
    square, index = transform(mask)
    monkeypatch.setattr("sam3d_nb.tiny.nearest.PIECE", 40 * 30 * 7)
    for found, wanted in zip(transform(mask), (square, index), strict=True):
        assert torch.equal(found, wanted)
    torch.testing.assert_close(square.double().sqrt(), distance(mask))


def scattered() -> Surface:
    """A ball of 80 triangles, shuffled, with one of 20 and two single triangles beside it."""
    parts, first = [], 0
    for vertices, faces in (
        shapes.icosphere(1),
        shapes.icosphere(0),
        (np.eye(3), np.array([[0, 1, 2]])),
        (np.eye(3), np.array([[2, 1, 0]])),
    ):
        parts.append((vertices + first, faces + first))
        first += len(vertices)
    vertices, faces = (np.concatenate(group) for group in zip(*parts, strict=True))
    random = np.random.default_rng(0)
    order = random.permutation(len(vertices))  # new vertex i was order[i]
    faces = random.permutation(np.argsort(order)[faces])
    attributes = torch.from_numpy(vertices[order]).float().repeat(1, 2)
    return Surface(attributes[:, :3], torch.from_numpy(faces), attributes)


@pytest.mark.parametrize("device", DEVICES)
def test_crumbs_are_dropped_and_the_rest_stays(device: str) -> None:
    surface = Surface(*(value.to(device) for value in vars(scattered()).values()))
    found = without_crumbs(surface)
    assert len(found.faces) == 80
    assert len(found.vertices) == 42
    assert torch.equal(found.vertices, found.attributes[:, :3])
    large = (surface.vertices[surface.faces] < 2).all(2).all(1)
    wanted = surface.vertices[surface.faces[large]]
    assert torch.equal(found.vertices[found.faces], wanted)
    assert without_crumbs(found) is found


def test_the_largest_piece_is_no_crumb() -> None:
    small = ball(0.4)
    lone = Surface(small.vertices, small.faces[:3], small.attributes)
    assert len(without_crumbs(lone).faces) == max(
        np.bincount(pieces(lone.faces, len(lone.vertices)).numpy()[lone.faces[:, 0]])
    )
    empty = Surface(small.vertices[:0], small.faces[:0], small.attributes[:0])
    assert without_crumbs(empty) is empty


@pytest.mark.parametrize("device", DEVICES)
def test_pieces_on_a_device_are_those_of_a_graph(device: str) -> None:
    random = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 300, (120, 3), generator=random)
    wanted = pieces(faces, 300)
    found = lowest(faces.to(device), 300).cpu()
    both = torch.stack([wanted, found], 1).unique(dim=0)
    assert len(both) == len(wanted.unique()) == len(found.unique()) > 20


def test_long_pieces_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    strip = torch.stack([order[:-2], order[1:-1], order[2:]], 1)
    steps = []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: steps.append(1) or equal(a, b))
    found = lowest(strip, 5000)
    assert bool((found == 0).all())
    assert len(steps) < 25


@pytest.mark.parametrize("device", DEVICES)
def test_colors_are_matched_on_a_device_as_pixel_by_pixel(device: str) -> None:
    surface, random = ball(0.4), np.random.default_rng(0)
    raster = seen(surface)
    mask = raster.covered.numpy() & (random.random((SIZE, SIZE)) < 0.8)
    photo = random.random((SIZE, SIZE, 3))
    colors = random.random((len(surface.vertices), 3))
    on_device = Raster(*(value.to(device) for value in vars(raster).values()))
    found = matched(
        torch.from_numpy(colors).to(device),
        surface.faces.to(device),
        on_device,
        torch.from_numpy(photo).to(device),
        torch.from_numpy(mask).to(device),
    )
    wanted = matched_colors(colors, surface.faces.numpy(), raster, photo, mask)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, atol=1e-6)
    errors = [
        np.abs(
            (now[surface.faces[raster.face]] * raster.barycentric[..., None].numpy()).sum(2) - photo
        )
        for now in (colors, wanted)
    ]
    assert errors[1][mask].mean() < 0.7 * errors[0][mask].mean()
    unseen = np.setdiff1d(np.arange(len(colors)), surface.faces[raster.face[mask]].numpy())
    np.testing.assert_array_equal(found.cpu().numpy()[unseen], colors[unseen])


@pytest.mark.parametrize("device", DEVICES)
def test_sums_are_those_of_numpy_in_any_order(device: str) -> None:
    random = np.random.default_rng(0)
    values, index = random.normal(size=(5000, 3)) * 1e-3, random.integers(0, 40, size=5000)
    wanted = np.zeros((41, 3))
    np.add.at(wanted, index, values)
    found = sums(*(torch.from_numpy(value).to(device) for value in (values, index)), 41)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, atol=1e-12)
    order = random.permutation(5000)
    turned = sums(*(torch.from_numpy(value[order]).to(device) for value in (values, index)), 41)
    assert torch.equal(found, turned)
    assert sums(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2).shape == (2, 3)
    assert not sums(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), 2).any()
