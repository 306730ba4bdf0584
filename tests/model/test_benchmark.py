import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import measure
import model_h100
import stages


def test_the_script_runs_every_stage_on_the_cpu(tmp_path: Path, capsys) -> None:
    path = tmp_path / "deep" / "report.json"
    words = ["--small", "--device", "cpu", "--dtypes", "bfloat16", "--runs", "1"]
    words += ["--steps", "1", "--accuracy", "--output", str(path)]
    assert model_h100.main(words) == 0
    report = json.loads(path.read_text())
    rows = report["stages"]
    wanted = [
        (stage.name, mode)
        for stage in stages.STAGES
        for mode in ("eager", "accelerated")[: stage.accelerates + 1]
    ]
    assert [(row["stage"], row["mode"]) for row in rows] == wanted
    assert all(row["finite"] and row["median_s"] > 0 and row["floor_s"] > 0 for row in rows)
    assert all(row["faces"] > 1000 for row in rows if "field" in row["stage"])
    assert len(report["accuracy"]) == len(stages.PROBES)
    errors = [e for row in report["accuracy"] for e in row["relative_rms"].values()]
    assert all(0 < error < 0.1 for error in errors)
    last = capsys.readouterr().out.splitlines()[-len(rows) - 1 :]
    assert last[0].startswith("stage ")
    assert last[-1].startswith(stages.STAGES[-1].name)


def test_a_stage_that_fails_is_a_row_that_says_why(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def build(_: stages.Setting) -> stages.Run:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(model_h100, "STAGES", (stages.Stage("broken", build),))
    words = ["--small", "--device", "cpu", "--dtypes", "float32"]
    assert model_h100.main(words) == 1
    assert "RuntimeError: no such kernel" in capsys.readouterr().out.splitlines()[-1]


def test_operations_are_counted_by_kind() -> None:
    a, q = torch.randn(3, 5), torch.randn(1, 2, 7, 4)

    def run() -> None:
        a @ a.T
        torch.nn.functional.scaled_dot_product_attention(q, q, q)

    assert measure.count_work(run) == measure.Work(2 * 3 * 5 * 3, 4 * 2 * 7 * 7 * 4)


def test_sequences_of_different_length_are_counted_each() -> None:
    starts = torch.tensor([0, 3, 8], dtype=torch.int32)
    q = torch.randn(8, 2, 4)
    assert measure._varlen_attention(q, q, q, starts) == 4 * (9 + 25) * 2 * 4


def test_stand_ins_follow_the_rule_of_the_golden_weights() -> None:
    linear = stages.fill(torch.nn.Linear(400, 300))
    assert linear.weight.std() == pytest.approx(400**-0.5, rel=0.02)
    assert linear.bias.std() == pytest.approx(0.1, rel=0.2)
    norm = stages.fill(torch.nn.LayerNorm(1000))
    assert norm.weight.mean() == pytest.approx(1, abs=0.02)
    half = stages.fill(torch.nn.Linear(400, 300).half())
    assert torch.equal(half.weight, linear.weight.half())


def test_the_injected_field_makes_a_closed_surface_inside_the_voxels() -> None:
    setting = stages.Setting(torch.device("cpu"), torch.float32, small=True)
    mesh = stages.mesh_of_shape(setting)()
    sides = torch.cat([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    there = sides[:, 0] * len(mesh.vertices) + sides[:, 1]
    back = sides[:, 1] * len(mesh.vertices) + sides[:, 0]
    assert torch.equal(there.sort().values, back.sort().values)
