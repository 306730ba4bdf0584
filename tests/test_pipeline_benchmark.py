"""The script that times the whole pipeline runs, small and on the CPU."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import pipeline_h100

WORDS = ["--small", "--device", "cpu", "--dtype", "float32", "--runs", "1", "--steps", "2", "2"]


def test_the_script_times_cases_and_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert pipeline_h100.main([*WORDS, "--cases", "8 GiB", "few", "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    names = [row["name"] for row in report["cases"]]
    assert names == [c.name for c in pipeline_h100.CASES if "few" in c.name or "8 GiB" in c.name]
    for row in report["cases"]:
        assert row["median_s"] > 0
        assert row["faces"] > 1000
        assert row["same_bits"]
        assert sum(row["stages_s"].values()) == pytest.approx(row["median_s"])
        assert row["cancel_s"] < 1
        assert row["steps"] == ([4, 12] if row["few_step"] else [2, 2])
    assert "stand-in" in report["weights"]
    assert "resident in 8 GiB" in capsys.readouterr().out


def test_a_case_that_fails_is_a_row_that_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(pipeline_h100, "timed", fail)
    assert pipeline_h100.main([*WORDS, "--cases", "8 GiB"]) == 1
    assert "MemoryError: no room" in capsys.readouterr().out
