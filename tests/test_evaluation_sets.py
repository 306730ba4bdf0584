"""Nothing that models are evaluated on is in the lists of what they were trained on."""

import json
import re
from pathlib import Path

import pytest

from sam3d_nb.evaluation.categories import category_of_models

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "benchmarks" / "results" / "household_manifest.json"
TRAINING_LISTS = [ROOT / "training" / f"{name}.json" for name in ("furniture", "furniture_earlier")]
ATTRIBUTION = ROOT / "training" / "ATTRIBUTION.md"


def evaluated() -> list[dict]:
    return json.loads(MANIFEST.read_text())["objects"]


def trained() -> set[str]:
    """Ids of all library models ever trained on, such as `Scopia#bed1`."""
    names = [name for path in TRAINING_LISTS for name in json.loads(path.read_text())]
    return {name.removeprefix("furniture/") for name in names}


def test_the_manifest_lists_the_household_set() -> None:
    objects = evaluated()
    assert len(objects) == len({entry["id"] for entry in objects}) >= 150
    files = {"image.png", "0.png", "pointmap.npz", "meshes/0.glb"}
    for entry in objects:
        assert entry["license"] == "CC0-1.0"
        assert entry["id"].startswith("Blend Swap CC-0#")
        assert entry["category"] == category_of_models()[entry["model"]]
        assert set(entry["sha256"]) == files
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in entry["sha256"].values())


def test_no_evaluated_model_is_trained_on() -> None:
    listed = trained()
    assert len(listed) > 100, "the training list is not empty"
    assert not {entry["id"] for entry in evaluated()} & listed
    assert not [name for name in listed if name.startswith("Blend Swap CC-0#")]


def test_no_evaluated_model_is_attributed() -> None:
    rows = set(re.findall(r"\| `([^`]+#[^`]+)` \|", ATTRIBUTION.read_text()))
    assert rows == trained(), "what is attributed is what is in the training lists"
    assert not {entry["id"] for entry in evaluated()} & rows


def test_held_out_seeds_cannot_be_trained_on() -> None:
    shapes = pytest.importorskip("training.data.shapes")
    assert not set(shapes.HELD_OUT_SEEDS) & set(shapes.TRAINING_SEEDS)
    with pytest.raises(ValueError, match="HELD_OUT_SEEDS"):
        shapes.procedural(shapes.HELD_OUT_SEEDS[:1], grid=16, color=8, points=8)
