"""The script that times the network at full size by the published method, small and on the CPU."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import injected
import profile_h200

from sam3d_nb.profiling.results import load_results

WORDS = ["--small", "--device", "cpu", "--steps", "1", "1", "--warmup", "0", "--active", "1"]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    folder = tmp_path / "photo"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "image.png")
    for index in range(2):
        mask = np.zeros((40, 60), np.uint8)
        mask[5:35, 20 * index : 20 * index + 30] = 255
        Image.fromarray(mask).save(folder / f"{index}.png")
    return str(folder)


def test_both_benchmarks_are_run_and_reported(photo: str, tmp_path: Path) -> None:
    place, weights = tmp_path / "out", tmp_path / "weights"
    words = [*WORDS, "--images", photo, "--output_dir", str(place), "--weights", str(weights)]
    assert profile_h200.main([*words, "--pairs", "1"]) == 0
    kept, anew = (load_results(place / name) for name in ("kept", "loaded_anew"))
    scene = load_results(place / "scene")
    assert [row.label for row in kept.rows] == ["0_photo"]
    assert [row.label for row in scene.rows] == ["0_photo", "1_photo"]
    assert scene.scenes().loc["photo", "measured"] > 0
    assert [row.label for row in anew.rows] == ["0_photo"]
    assert anew.by_stage().index[0] == "load model"
    identity = json.loads((place / "kept" / "header.json").read_text())["identity"]
    assert identity["model"]["name"] == "sam-3d-objects with stand-in weights"
    assert len(identity["weights_sha256"]) == 64
    voxels = len(injected.shape_voxels("unknown", 16))
    assert {run.voxels for row in kept.rows for run in row.runs} == {voxels}
    assert all((run.faces or 0) > 100 for row in kept.rows for run in row.runs)
    text = (place / "report.md").read_text()
    for words in ("without the timer", "other / this = ", "scene of 10 objects", "45.494"):
        assert words in text, words
    assert len(list(place.glob("*.png"))) == 12


def test_when_the_time_is_up_nothing_is_begun(photo: str, tmp_path: Path) -> None:
    words = ["--images", photo, "--output_dir", str(tmp_path / "out"), "--seconds", "0"]
    assert profile_h200.main([*WORDS, *words, "--pairs", "0"]) == 1
    assert load_results(tmp_path / "out" / "kept").rows == ()
    assert "the time was up" in (tmp_path / "out" / "report.md").read_text()
    shutil.rmtree(tmp_path / "out")


def test_one_benchmark_alone_is_reported(photo: str, tmp_path: Path) -> None:
    words = ["--images", photo, "--output_dir", str(tmp_path / "out"), "--only", "loaded_anew"]
    assert profile_h200.main([*WORDS, *words, "--pairs", "0"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["loaded_anew"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "kept was not asked for" in text
    assert "load model" in text


def test_voxels_are_those_of_the_true_mesh() -> None:
    key = next(k for k, item in injected.objects().items() if item.name == "0_teddy_bear")
    voxels = injected.shape_voxels(key, 64)
    assert 5_000 < len(voxels) < 30_000
    assert voxels.min() == 0
    assert voxels.max() <= 63
    assert voxels[:, 1:].amax(0).max() - voxels[:, 1:].amin(0).min() > 60
