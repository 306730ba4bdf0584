"""What training may use: CC-BY catalogs only, every model attributed, evaluation kept apart.

Both lists count: models in the pack, and those that the weights saw in runs with an earlier pack.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sam3d_nb.tiny.shipped import FOLDER
from training.data.furniture import (
    ATTRIBUTION,
    CATALOGS,
    EARLIER,
    EVALUATION_CATALOG,
    LIST,
    Packed,
    _ordered,
    pack,
    read,
)
from training.data.shapes import HELD_OUT_SEEDS, TRAINING_SEEDS, procedural
from training.data.simplify import simplified

ROOT = Path(__file__).resolve().parents[2]
PACKED, SEEN_EARLIER = (json.loads(path.read_text()) for path in (LIST, EARLIER))
NAMES = PACKED + SEEN_EARLIER
RUNS = (
    *(range(0, 5_000), range(5_000, 7_500), range(20_000, 25_000), range(50_000, 51_500)),
    *(range(100_000, 108_000), range(200_000, 208_000)),
    *(range(300_000, 304_000), range(310_000, 313_600)),
)
"""Seeds of the procedural objects that the weights of version 3 saw, see training/LOG.md."""
CATALOG_IDS = {"Blend Swap CC-BY", "Kator Legaz", "Reallusion", "Scopia"}


def test_training_uses_the_cc_by_catalogs_only() -> None:
    assert EVALUATION_CATALOG not in CATALOGS
    assert len(NAMES) == len(set(NAMES)) > 500
    assert {name.removeprefix("furniture/").split("#")[0] for name in NAMES} == CATALOG_IDS
    assert len(SEEN_EARLIER) == 12


def test_no_model_of_the_examples_is_trained_on() -> None:
    listed = []
    for path in ROOT.glob("data/*/example.json"):
        for item in json.loads(path.read_text()).get("objects", []):
            if "license" in item and "model" in item:
                listed.append(item["model"])
                assert item["license"].startswith("CC0")
    assert len(listed) > 20
    assert not {f"furniture/Blend Swap CC-0#{model}" for model in listed} & set(NAMES)


@pytest.mark.parametrize("name", ["household", "heldout"])
def test_evaluation_sets_are_not_trained_on(name: str) -> None:
    manifest = json.loads((ROOT / f"benchmarks/results/{name}_manifest.json").read_text())
    models = [entry.get("id", entry["model"]) for entry in manifest["objects"]]
    assert len(models) == len(set(models)) >= 60
    assert not {f"furniture/{model}" for model in models} & set(NAMES)
    seeds = [int(model.split("/")[-1]) for model in models if model.startswith("procedural/")]
    assert len(seeds) == (len(models) if name == "heldout" else 0)
    for seed in seeds:
        assert seed in HELD_OUT_SEEDS
        assert not any(seed in seen for seen in RUNS)


def test_the_runs_had_no_held_out_seed() -> None:
    for seen in RUNS:
        assert set(seen) <= set(TRAINING_SEEDS)
        assert not set(seen) & set(HELD_OUT_SEEDS)
    with pytest.raises(ValueError, match="HELD_OUT_SEEDS"):
        procedural(HELD_OUT_SEEDS[:1], grid=16, color=8, points=8)


def test_every_model_is_attributed() -> None:
    text = ATTRIBUTION.read_text()
    now, title, earlier = text.partition("## Used by earlier runs only")
    assert title
    for part, names in ((now, PACKED), (earlier, SEEN_EARLIER)):
        rows = [line for line in part.splitlines() if line.startswith("| ")]
        rows = [row for row in rows if row != "| model | author | id |"]
        assert len(rows) == len(names)
        for name in names:
            assert f"`{name.removeprefix('furniture/')}` |" in part
        assert "Attribution 3.0" in part
        assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))


def test_card_and_attribution_lie_beside_the_weights() -> None:
    assert (FOLDER / "ATTRIBUTION.md").read_text() == ATTRIBUTION.read_text()
    card = (FOLDER / "CARD.md").read_text()
    assert "(ATTRIBUTION.md)" in card
    assert "Apache" in card
    assert "no substitute" in card
    for path in FOLDER.glob("*.safetensors"):
        assert path.stem in card, "the card names every file of weights"


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
