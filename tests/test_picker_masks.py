"""Run lengths and brush strokes against plain loops."""

import numpy as np
import pytest

from sam3d_nb.errors import InputError
from sam3d_nb.masks import runs as runs_module
from sam3d_nb.masks.brush import MAX_POINTS, make_stroke, paint
from sam3d_nb.masks.picture import drawn_mask, scaled, scaled_shape
from sam3d_nb.masks.runs import count_pixels, decode_runs, encode_runs, sample


def plain_runs(mask: np.ndarray) -> list[int]:
    lengths, current = [0], False
    for pixel in mask.ravel().tolist():
        if pixel != current:
            lengths.append(0)
            current = pixel
        lengths[-1] += 1
    return lengths


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (13, 17)])
def test_runs_are_those_of_a_loop(share: float, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).random(shape) < share
    runs = encode_runs(mask)
    assert runs.tolist() == plain_runs(mask)
    assert runs.dtype == np.uint32
    assert np.array_equal(decode_runs(runs, shape), mask)
    assert count_pixels(runs) == mask.sum()


def test_both_ways_to_decode_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(2).random((40, 50)) < 0.5
    few = decode_runs(encode_runs(mask), mask.shape)
    monkeypatch.setattr(runs_module, "FEW_RUNS", 0)
    assert np.array_equal(decode_runs(encode_runs(mask), mask.shape), few)


def test_strided_masks_are_encoded_by_what_they_show() -> None:
    mask = np.random.default_rng(3).random((20, 30)) < 0.5
    assert np.array_equal(decode_runs(encode_runs(mask[:, ::-2]), (20, 15)), mask[:, ::-2])


@pytest.mark.parametrize("runs", [[], [5], [3, 4, 100]])
def test_runs_that_do_not_fill_the_mask(runs: list[int]) -> None:
    with pytest.raises(InputError, match="do not fill a mask of 5 x 4"):
        decode_runs(np.array(runs, dtype=np.uint32), (4, 5))


def test_sampling_takes_the_pixel_below_the_center() -> None:
    mask = np.random.default_rng(4).random((31, 47)) < 0.5
    small = sample(mask, (10, 13))
    for row in range(10):
        for column in range(13):
            assert small[row, column] == mask[int((row + 0.5) * 3.1), int((column + 0.5) * 47 / 13)]


def test_sizes_for_the_browser() -> None:
    assert scaled_shape((400, 600)) == (400, 600)
    assert scaled_shape((6000, 4000)) == (1600, 1067)
    assert scaled_shape((1, 50_000)) == (1, 1600)
    assert scaled(np.zeros((2000, 3200, 3), np.uint8)).shape == (1000, 1600, 3)
    assert drawn_mask(np.zeros((5, 5), bool))["place"] is None
    dot = np.zeros((900, 1600), bool)
    dot[37, 802] = True
    assert drawn_mask(dot)["place"] == [802.5, 37.5]


def plain_stroke(shape: tuple[int, int], points: np.ndarray, radius: float) -> np.ndarray:
    """Pixels whose center is near the line, by the distance to each segment."""
    mask = np.zeros(shape, dtype=bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            center = np.array([column + 0.5, row + 0.5])
            for a, b in zip(points, points[1:] if len(points) > 1 else points, strict=False):
                length = np.dot(b - a, b - a)
                along = np.clip(np.dot(center - a, b - a) / length, 0, 1) if length else 0
                mask[row, column] |= np.linalg.norm(center - a - along * (b - a)) <= radius
    return mask


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("radius", [0.9, 3.3, 11])
def test_strokes_are_exact(count: int, radius: float) -> None:
    """Points on a grid of thirds, so that no pixel is at the very edge; also beside the photo."""
    rng = np.random.default_rng(count)
    points = (rng.integers(-10, 50, (count, 2)) + 1 / 3).astype(np.float64)
    mask = np.zeros((36, 42), dtype=bool)
    paint(mask, make_stroke(points, radius))
    assert np.array_equal(mask, plain_stroke(mask.shape, points, radius))
    full = np.ones_like(mask)
    paint(full, make_stroke(points, radius, erase=True))
    assert np.array_equal(full, ~mask)


def test_the_smallest_brush_hits_the_pixel_below_it() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    paint(mask, make_stroke([(2.01, 3.99)], 0.01))
    assert np.argwhere(mask).tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("points", "radius"),
    [
        ([], 3),
        ([[1, 2]] * (MAX_POINTS + 1), 3),
        ([1, 2], 3),
        ([["a", "b"]], 3),
        ([[1, np.inf]], 3),
        ([[1, 2]], 0),
        ([[1, 2]], np.nan),
        ([[1, 2]], None),
    ],
)
def test_strokes_that_are_none(points: list, radius: float) -> None:
    with pytest.raises(InputError, match="stroke"):
        make_stroke(points, radius)
