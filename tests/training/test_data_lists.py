"""What training may use: CC-BY catalogs only, every model attributed, evaluation kept apart."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.data.furniture import (
    CATALOGS,
    EVALUATION_CATALOG,
    Packed,
    _ordered,
    pack,
    read,
)
from training.data.shapes import HELD_OUT_SEEDS
from training.data.simplify import simplified

ROOT = Path(__file__).resolve().parents[2]
NAMES = json.loads((ROOT / "training/furniture.json").read_text())
CATALOG_IDS = {"Blend Swap CC-BY", "Kator Legaz", "Reallusion", "Scopia"}


def test_training_uses_the_cc_by_catalogs_only() -> None:
    assert EVALUATION_CATALOG not in CATALOGS
    assert len(NAMES) == len(set(NAMES)) > 500
    assert {name.removeprefix("furniture/").split("#")[0] for name in NAMES} == CATALOG_IDS


def test_no_model_of_the_examples_is_trained_on() -> None:
    listed = []
    for path in ROOT.glob("data/*/example.json"):
        for item in json.loads(path.read_text()).get("objects", []):
            if "license" in item and "model" in item:
                listed.append(item["model"])
                assert item["license"].startswith("CC0")
    assert len(listed) > 20
    assert not {f"furniture/Blend Swap CC-0#{model}" for model in listed} & set(NAMES)


@pytest.mark.parametrize("name", ["household_manifest", "heldout_manifest"])
def test_evaluation_sets_are_not_trained_on(name: str) -> None:
    path = ROOT / f"benchmarks/results/{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    text = path.read_text()
    assert not [n for n in NAMES if f'"{n.removeprefix("furniture/")}"' in text]
    for word in text.replace("/", " ").replace('"', " ").split():
        if word.isdigit() and len(word) == 7:
            assert int(word) in HELD_OUT_SEEDS


def test_every_model_is_attributed() -> None:
    text = (ROOT / "training/ATTRIBUTION.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == len(NAMES) + 4  # a heading for each catalog
    for name in NAMES:
        assert f"`{name.removeprefix('furniture/')}` |" in text
    assert "Attribution 3.0" in text
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))


def test_packed_models_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    models = []
    for i in range(3):
        vertices = np.round(rng.random((30, 3)) * 4095)
        faces = np.array([rng.choice(30, 3, replace=False) for _ in range(20 + i)])
        colors = rng.random((len(faces), 3))
        models.append((vertices, faces, colors))
    packed = [Packed(f"m{i}", *_ordered(*m), error=0.0) for i, m in enumerate(models)]
    assert len(pack(packed, tmp_path / "x.npz")) == 3
    for (name, triangles, colors), (vertices, faces, paint), i in zip(
        read(tmp_path / "x.npz"), models, range(3), strict=True
    ):
        assert name == f"m{i}"
        wanted = (vertices[faces] / 4095 - 0.5).mean(1)
        order, other = (np.lexsort(np.round(x, 4).T) for x in (wanted, triangles.mean(1)))
        assert np.abs(wanted[order] - triangles.mean(1)[other]).max() < 1e-5
        assert np.abs(paint[order] * 255 - colors[other]).max() < 0.51


def test_models_that_lost_much_are_left_out(tmp_path: Path) -> None:
    one = np.zeros((3, 3), np.uint16), np.array([[0, 1, 2]], np.uint16), np.zeros((1, 3), np.uint8)
    models = [Packed("good", *one, error=0.01), Packed("bad", *one, error=0.5)]
    assert [m.name for m in pack(models, tmp_path / "x.npz")] == ["good"]


def test_simplification_keeps_thin_parts() -> None:
    grid = np.linspace(0, 1, 41)
    x, z = np.meshgrid(grid, grid)
    plate = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], 1)
    quad = np.arange(41 * 41).reshape(41, 41)
    a, b, c, d = (q.ravel() for q in (quad[:-1, :-1], quad[:-1, 1:], quad[1:, :-1], quad[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    leg = plate * (0.02, 1, 0.02) + (0, 0.2, 0)
    vertices, faces = np.concatenate([plate, leg]), np.concatenate([faces, faces + len(plate)])
    samples = np.concatenate([plate, leg])
    v, f, lost = simplified(vertices, faces, samples)
    assert len(f) < len(faces)
    assert lost < 0.015
    assert np.abs(v[np.unique(f)].max(0) - vertices.max(0)).max() < 0.02
