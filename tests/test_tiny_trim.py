"""What a surface and its colors are in the photo's own view: its outline, its pixels."""

import numpy as np
import pytest
import shapes
import torch
from tiny_plain import matched_colors

from sam3d_nb.engine.sums import sums
from sam3d_nb.frames import FACING_CAMERA, Pose
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.tiny.match import matched
from sam3d_nb.tiny.sculpt import Sculptor, nearest, outside
from sam3d_nb.tiny.trim import trimmed
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import Raster, rasterize

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE, FOCAL, DISTANCE = 120, 180.0, 3.0
CAMERA = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
POSE = Pose(FACING_CAMERA, (0.0, 0.0, DISTANCE), (1.5,) * 3)


def ball(radius: float) -> Surface:
    vertices, faces = shapes.icosphere(5)
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
    hidden = trimmed(wide, sculptor(mask, 1.0))  # behind a wall
    assert torch.allclose(hidden.vertices, wide.vertices, atol=1e-6)
    guessed = trimmed(wide, sculptor(mask, 1.0, exact=False))
    assert not torch.allclose(guessed.vertices, wide.vertices, atol=1e-3)


def test_what_is_far_beside_the_mask_stays() -> None:
    mask, larger = seen(ball(0.3)).covered.numpy(), ball(0.45)
    found = trimmed(larger, sculptor(mask, 5.0))
    rim = larger.vertices[:, [0, 2]].norm(dim=1) > 0.4
    assert torch.allclose(found.vertices[rim], larger.vertices[rim], atol=1e-6)


def test_distances_to_an_outline_are_those_of_a_loop() -> None:
    mask = np.random.default_rng(0).random((9, 11)) < 0.3
    away, near = outside(mask), nearest(mask)
    places = np.argwhere(mask)
    for place in np.ndindex(mask.shape):
        far = np.linalg.norm(places - place, axis=1)
        if mask[place]:
            deep = np.linalg.norm(np.argwhere(~mask) - place, axis=1).min()
            assert away[place] == pytest.approx(0.5 - deep)
        else:
            assert away[place] == pytest.approx(far.min() - 0.5)
        row, column = divmod(int(near[place]), mask.shape[1])
        assert mask[row, column]
        assert np.hypot(row - place[0], column - place[1]) == pytest.approx(far.min())
    only = np.zeros_like(mask)
    only[tuple(places[3])] = True
    assert (nearest(mask, only) == np.ravel_multi_index(tuple(places[3]), mask.shape)).all()
    assert (nearest(mask, ~mask) == near).all()  # none is known: all count


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
    assert not sums(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), 2).any()
