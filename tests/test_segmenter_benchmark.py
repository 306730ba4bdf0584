"""The script that measures the embedded segmenter, on a small made-up room."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import segmenters
from PIL import Image

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "segmenters.json"


@pytest.fixture
def examples(tmp_path):
    """Two photos of a red and a blue block with their masks."""
    random = np.random.default_rng(0)
    for name, shift in (("one", 0), ("two", 12)):
        image = np.full((130, 180, 3), 200, np.uint8)
        masks = np.zeros((2, 130, 180), bool)
        masks[0, 20 + shift : 60 + shift, 30:70] = True
        masks[1, 70:110, 90 + shift : 150 + shift] = True
        image[masks[0]], image[masks[1]] = (200, 30, 30), (20, 40, 190)
        image = (image + random.integers(0, 4, image.shape)).astype(np.uint8)
        folder = tmp_path / "examples" / name
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / "image.png")
        for index, mask in enumerate(masks):
            Image.fromarray(mask).save(folder / f"{index}.png")
    return tmp_path / "examples"


def test_the_script_measures_examples_and_writes_a_report(examples, tmp_path, monkeypatch, capsys):
    path = tmp_path / "report.json"
    words = ["segmenters.py", "--examples", str(examples), str(path)]
    monkeypatch.setattr(sys, "argv", words)
    segmenters.main()
    report = json.loads(path.read_text())["examples"]
    assert [(row["example"], row["object"]) for row in report["table"]] == [
        (name, f"object {index}") for name in ("one", "two") for index in (0, 1)
    ]
    boxes = [row["box"] for row in report["table"]]
    assert report["summary"]["box"]["mean IoU"] == pytest.approx(np.mean(boxes), abs=1e-3)
    assert min(boxes) > 0.9
    assert report["summary"]["everything"]["found"] == 1
    kinds = report["summary"]["scene"]
    assert kinds["all masks"]["recall"] == kinds["without overlaps"]["recall"] == 1
    assert kinds["without overlaps"]["masks"] <= kinds["all masks"]["masks"]
    assert "segments that are an object" in capsys.readouterr().out


def test_held_out_numbers_come_from_the_other_rooms(examples, monkeypatch):
    monkeypatch.setattr(segmenters, "GRID", {"neutral": (0.3, 0.4)})
    rooms = {n: segmenters.load_example(examples / n) for n in ("one", "two")}
    report = segmenters.held_out(rooms, say=lambda text: None)
    assert set(report["chosen"]) == {"one", "two"}
    assert report["box"]["mean IoU"] > 0.9
    assert report["everything"]["found"] == 1


def test_the_report_in_the_repository_holds_every_object_of_the_rooms():
    report = json.loads(RESULTS.read_text())["rooms"]
    named = {(row["example"], row["object"]) for row in report["table"]}
    rooms = [segmenters.load_example(name) for name in segmenters.ROOMS]
    assert named == {(room.name, name) for room in rooms for name in room.names.values()}
    for what in ("box", "everything"):
        values = [row[what] for row in report["table"]]
        assert report["summary"][what]["mean IoU"] == pytest.approx(np.mean(values), abs=1e-3)
    found = np.mean([row["everything"] >= segmenters.FOUND for row in report["table"]])
    assert report["summary"]["everything"]["found"] == pytest.approx(found, abs=1e-3)


def test_precision_and_recall_are_those_counted_by_hand():
    fit = np.array([[0.9, 0.0], [0.6, 0.1], [0.2, 0.3], [0.0, 0.4]])
    photo = segmenters.Proposed([], np.zeros(4), fit)
    assert segmenters.quality([photo], [[0, 1, 2]]) == {
        "masks": 3,
        "precision": 0.667,
        "recall": 0.5,
        "objects found a mask": 0.333,
    }
    assert segmenters.quality([photo], [[]])["recall"] == 0


def test_the_probability_of_a_score_is_fitted():
    random = np.random.default_rng(0)
    scores = random.random(4000)
    right = random.random(4000) < 1 / (1 + np.exp(-(4 * scores - 2)))
    slope, constant = segmenters.fit_line([segmenters.Proposed([], scores, right[:, None] * 1.0)])
    assert slope == pytest.approx(4, abs=0.4)
    assert constant == pytest.approx(-2, abs=0.3)


def test_the_report_tells_what_becomes_a_scene():
    report = json.loads(RESULTS.read_text())
    for title in ("rooms", "others, not tuned on"):
        summary = report[title]["summary"]
        assert set(summary["scene"]) == {"all masks", "without overlaps"}
        assert summary["scene"]["all masks"]["recall"] == summary["everything"]["found"]
