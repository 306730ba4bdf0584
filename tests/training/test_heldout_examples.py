"""Examples of held-out objects: photo, mask, points and true mesh agree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sam3d_nb.evaluation.outline import outline
from sam3d_nb.examples import load_example
from training.data.objects import Objects
from training.data.shade import Noise
from training.data.shapes import HELD_OUT_SEEDS, KINDS, procedural
from training.heldout import Photo, category, cube_surface, shoot, write_example

SIZE = 96


@pytest.fixture(scope="module")
def objects() -> Objects:
    return procedural(HELD_OUT_SEEDS[:4], grid=48, color=24, points=64, held_out=True)


@pytest.fixture(scope="module")
def photos(objects: Objects) -> list[Photo]:
    noise = Noise(objects.device)
    return [shoot(objects, index, 0, noise, SIZE) for index in range(4)]


def test_mask_and_points_are_those_of_the_mesh(photos: list[Photo]) -> None:
    for photo in photos:
        assert max(photo.mask.shape) == SIZE
        assert photo.image.shape == photo.points.shape == (*photo.mask.shape, 3)
        drawn = outline(photo.mesh, photo.K, *photo.mask.shape)
        assert (photo.mask & drawn).sum() > 0.93 * photo.mask.sum(), "it may be hidden, not more"
        rows, columns = np.nonzero(photo.mask)
        points = photo.points[photo.mask].astype(np.float64)
        seen = points @ photo.K.T
        np.testing.assert_allclose(
            seen[:, :2] / seen[:, 2:], np.stack([columns, rows], 1) + 0.5, atol=1e-2
        )
        side = np.ptp(photo.mesh.bounds, axis=0).max()
        gaps = np.linalg.norm(points[:, None] - photo.mesh.vertices[None], axis=2).min(1)
        assert gaps.max() < 0.04 * side, "a cell of the grid is 0.023"


def test_the_same_seed_gives_the_same_photo(objects: Objects, photos: list[Photo]) -> None:
    again = shoot(objects, 1, 0, Noise(objects.device), SIZE)
    np.testing.assert_array_equal(again.image, photos[1].image)
    other = shoot(objects, 1, 1, Noise(objects.device), SIZE)
    assert not np.array_equal(other.K, again.K)


def test_surfaces_face_outwards_and_are_closed() -> None:
    line = torch.linspace(-0.55, 0.55, 40)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    vertices, faces = cube_surface((x / 0.5) ** 2 + (y / 0.25) ** 2 + (z / 0.125) ** 2 - 1)
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [1, 0.5, 0.25], atol=0.02)
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.5 * 0.25 * 0.125, rel=0.03)
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_examples_are_read_back(tmp_path: Path, photos: list[Photo]) -> None:
    folder = tmp_path / "held"
    write_example(folder, "procedural/office chair/7", photos[2], 0)
    example = load_example(folder)
    np.testing.assert_array_equal(example.mask(0), photos[2].mask)
    np.testing.assert_array_equal(example.pointmap, photos[2].points)
    assert example.names == {0: "office chair"}
    assert example.info["objects"][0]["category"] == "seating"
    true = example.true_mesh(0)
    assert true is not None
    np.testing.assert_allclose(true.bounds, photos[2].mesh.bounds, atol=1e-5)
    assert true.colors is not None
    assert len(list(tmp_path.iterdir())) == 1


def test_every_kind_has_a_category() -> None:
    assert not [name for name in KINDS if category(name) == "other"]
