"""The view cube holds what is seen of an object."""

import numpy as np
import pytest

from sam3d_nb.frames import FACING_CAMERA, Pose
from sam3d_nb.tiny.hold import MARGIN, holding
from sam3d_nb.tiny.observe import within

SIZE = 40


@pytest.fixture
def seen() -> tuple[np.ndarray, np.ndarray]:
    """A slanted plate one wide, one high and half deep, three away, and its mask."""
    across = np.linspace(-0.5, 0.5, SIZE)
    x, y = np.meshgrid(across, across)
    points = np.full((SIZE + 10, SIZE + 10, 3), 9.0)
    points[5:-5, 5:-5] = np.stack([x, y, 3 + x / 2], -1)
    mask = np.zeros(points.shape[:2], dtype=bool)
    mask[5:-5, 5:-5] = True
    return points, mask


def pose(x: float, y: float, z: float, side: float) -> Pose:
    return Pose(FACING_CAMERA, (x, y, z), (side,) * 3)


def test_a_cube_that_holds_the_points_stays(seen):
    large = pose(0.1, -0.1, 3.2, 1.6)
    assert holding(large, *seen) == large


def test_a_small_cube_grows_and_a_shifted_one_moves_no_farther_than_needed(seen):
    found = holding(pose(0.0, 0.0, 3.0, 0.8), *seen)
    side = found.scale[0]
    assert 0.9 < side < 1.05  # without the border and the utmost points
    np.testing.assert_allclose(found.translation, (0, 0, 3), atol=0.05)
    moved = holding(pose(0.5, 0.0, 3.4, 1.2), *seen)
    assert moved.scale[0] == 1.2
    assert moved.translation[0] == pytest.approx(0.6 - 0.48, abs=0.05)
    assert moved.translation[1] == 0
    low, high = np.array(moved.translation) - 0.6, np.array(moved.translation) + 0.6
    inner = seen[0][8:-8, 8:-8]
    assert ((inner > low) & (inner < high)).all()


def test_points_that_do_not_go_with_the_mask_change_nothing(seen):
    points, mask = seen
    tiny = pose(0.0, 0.0, 3.0, 0.3)
    assert holding(tiny, points, mask) == tiny
    assert holding(tiny, np.full_like(points, np.nan), mask) == tiny
    assert holding(tiny, points, np.zeros_like(mask)) == tiny


def test_few_points_are_taken_with_their_border(seen):
    points, mask = seen
    line = np.zeros_like(mask)
    line[20] = mask[20]  # nothing is left without a border
    found = holding(pose(0.0, 0.0, 3.0, 0.8), points, line)
    assert found.scale[0] == pytest.approx(MARGIN, abs=0.03)


def test_thin_parts_count_where_they_are_near_the_rest():
    points = np.full((40, 60, 3), 9.0)
    across = (np.arange(60) - 20) / 20
    points[..., 0], points[..., 1] = across, (np.arange(40)[:, None] - 20) / 20
    mask = np.zeros(points.shape[:2], dtype=bool)
    mask[10:30, 10:30] = True
    points[mask, 2] = 3.0
    assert within(points, mask)[:, 0].max() == across[28]
    mask[20, 30:34] = True  # a peg, one pixel thick
    points[20, 30:34, 2] = 3.0
    assert within(points, mask)[:, 0].max() == across[33]
    points[20, 30:34, 2] = 9.0  # the depth of the wall: what is that thin is often taken for it
    assert within(points, mask)[:, 0].max() == across[29]
    lines = np.zeros_like(mask)
    lines[5:35:3, 5:55] = True  # all is thin
    assert len(within(points, lines)) == lines.sum()


def test_of_lines_that_cross_nearly_all_counts():
    points = np.full((40, 60, 3), 3.0)
    mask = np.zeros(points.shape[:2], dtype=bool)
    mask[20, 5:55] = mask[5:35, 30] = True  # the crossing is within, the four beside it border
    assert len(within(points, mask)) == mask.sum() - 4
