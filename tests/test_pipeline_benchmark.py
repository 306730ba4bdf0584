"""The script that times the whole pipeline runs, small and on the CPU."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import pipeline_case
import pipeline_gpu

NARROW = "resident in 8 GiB"
WORDS = ["--small", "--device", "cpu", "--dtype", "float32", "--runs", "1", "--steps", "2", "2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    assert pipeline_gpu.main([*WORDS, "--weights", str(folder), "--only-write"]) == 0
    return str(folder)


def test_the_script_times_cases_and_writes_a_report(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    words = [*WORDS, "--weights", weights, "--ready", "1"]
    words += ["--cases", "scene of 10 true shapes", "staged in 5 GiB, few steps"]
    words += ["--objects", "2", "--scenes", "1", "--output", str(path)]
    assert pipeline_gpu.main(words) == 0
    report = json.loads(path.read_text())
    scene, few = report["cases"]
    assert (few["name"], scene["name"]) == ("staged in 5 GiB, few steps", "scene of 10 true shapes")
    assert few["faces"] > 1000
    assert few["same_bits"]
    assert sum(few["stages_s"].values()) == pytest.approx(few["median_s"])
    assert few["cancel_s"] < 1
    assert (few["steps"], scene["steps"]) == ([4, 12], [2, 2])
    assert len(scene["objects_s"][0]) == 2
    assert sum(scene["objects_s"][0]) < scene["median_s"]
    assert len(set(scene["voxels"])) == 2  # shapes of their own
    ready = report["ready"]
    assert ready["runs_s"] == [pytest.approx(sum(s[0] for s in ready["steps_s"].values()))]
    assert ready["steps_s"]["torch"][0] > ready["steps_s"]["device"][0]
    assert ready["read_s"]["read"][0] > 0 < ready["read_s"]["mapped"][0]
    assert "stand-in" in report["weights"]
    assert "staged in 5 GiB" in capsys.readouterr().out


def test_a_scene_of_true_shapes_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in pipeline_case.CASES if case.true_shapes)
    monkeypatch.setattr(pipeline_case, "SCENE", "coffee")
    with pytest.raises(SystemExit, match="true mesh"):
        pipeline_case.scene(None, case, SimpleNamespace(objects=10))


def test_a_case_that_fails_is_a_row_that_says_why(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    os.truncate(tmp_path / "sam-3d-objects" / "moge.safetensors", 1000)
    assert pipeline_gpu.main([*WORDS, "--weights", str(tmp_path), "--cases", NARROW]) == 1
    told = capsys.readouterr().out
    assert f"{NARROW}: sam3d_nb.errors.WeightsError: " in told
    assert "moge.safetensors" in told
