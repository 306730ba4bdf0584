"""The sheet of pictures: who is on it, from where, and that failures are shown."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import write_scene
from shapes import box, icosphere, mesh

from sam3d_nb.errors import ReconstructionError
from sam3d_nb.pipeline import Model, Run
from sam3d_nb.request import Request
from sam3d_nb.zoo import load_model

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("sheet", ROOT / "tools" / "sheet.py")
assert SPEC is not None
assert SPEC.loader is not None
sheet = importlib.util.module_from_spec(SPEC)
sys.modules["sheet"] = sheet  # dataclasses look their module up
SPEC.loader.exec_module(sheet)


class Failing(Model):
    """A model that never finds anything."""

    name = "failing"
    version = "1"

    def run(self, request: Request) -> Run:
        yield from ()
        raise ReconstructionError("nothing came out; try another seed")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for number in range(6):
        things = [mesh(box((0.2, 0.1, 0.1)), (-0.2, 0, 1)), mesh(icosphere(1, 0.1), (0.2, 0, 1))]
        write_scene(tmp_path / f"e{number}", things, truth=number > 0)
    return sorted(tmp_path.iterdir())


def test_the_seed_alone_draws_the_objects(folders: list[Path]) -> None:
    drawn = sheet.draw_objects(folders, 5, 3)
    assert drawn == sheet.draw_objects(folders, 5, 3)
    assert drawn != sheet.draw_objects(folders, 5, 4)
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn)
    assert len(sheet.draw_objects(folders, 100, 0)) == 12


def test_photo_prediction_and_truth_are_drawn(folders: list[Path]) -> None:
    model = load_model("silhouette")
    blind, told = sheet.reconstruct(model, [(folders[0], 0), (folders[1], 1)])
    size, line = 60, round(60 * 0.16)

    def filled(entry) -> list[bool]:
        row = np.asarray(sheet.draw_entry(entry, size)).astype(int)[line:]
        places = [0, *range(64, 256, 64), *range(264, 456, 64)]  # photo, prediction, truth
        return [bool(np.ptp(row[10:-10, x + 8 : x + 52], axis=(0, 1)).max() > 60) for x in places]

    assert filled(told) == [True] * 7
    assert filled(blind)[:4] == [True] * 4
    assert "F-score" in told.caption
    assert "F-score" not in blind.caption
    (failed,) = sheet.reconstruct(Failing(), [(folders[1], 1)])
    assert filled(failed)[0]
    assert filled(failed)[4:] == [True] * 3
    assert "nothing came out" in failed.reason
    page = sheet.draw_sheet([told, blind, failed], "three", size)
    assert page.width == 2 * (sheet.draw_entry(told, size).width + 4 * sheet.GAP)


def test_both_stand_upright_where_the_example_tells_it(folders: list[Path]) -> None:
    example = sheet.load_example(folders[1])
    np.testing.assert_allclose(sheet.upright_axes(example), np.diag([1, -1, -1]), atol=1e-12)
    up = np.array([0.1, -0.9, -0.3]) / np.linalg.norm([0.1, -0.9, -0.3])
    example.info["camera"]["up"] = up.tolist()
    turn = sheet.upright_axes(example)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(turn @ up, [0, 1, 0], atol=1e-12)
    assert (turn @ [0, 0, 1.0])[2] < 0, "what is before the camera is away from the viewer"
    assert abs((turn @ [0, 0, 1.0])[0]) < 1e-12
    del example.info["camera"]["up"]
    pose = np.eye(4)
    pose[:3, 2] = up
    example.info["camera"]["world_to_camera"] = pose.tolist()
    np.testing.assert_allclose(sheet.upright_axes(example), turn, atol=1e-12)


def test_the_file_keeps_its_limit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)
    page = Image.fromarray(noise)
    path = tmp_path / "docs" / "sheet.png"
    assert sheet.save_small(page, path, 10_000) == path.stat().st_size <= 10_000
    with Image.open(path) as kept:
        assert kept.width < 120
    assert sheet.save_small(page, path) > 40_000
    with pytest.raises(SystemExit, match="does not fit 100 bytes"):
        sheet.save_small(page, path, 100)
