"""The shipped examples are what they say: masks, point maps and true meshes agree."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from gltf import assert_valid_glb
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "data").glob("*/example.json"))


@pytest.fixture(scope="module")
def checks():
    spec = importlib.util.spec_from_file_location("checks", ROOT / "tools/check_examples.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_shipped(checks):
    infos = [checks.read_folder(path) for path in FOLDERS]
    assert len(infos) >= 6
    assert sum(1 for f in infos if f.meshes and 4 <= len(f.masks) <= 10) >= 3
    assert sum(1 for f in infos if f.meshes and len(f.masks) == 1) >= 2
    size = sum(p.stat().st_size for p in (ROOT / "data").rglob("*") if p.is_file())
    assert size < checks.LARGEST_FOLDER


@pytest.mark.parametrize("path", FOLDERS, ids=lambda p: p.name)
def test_example_has_no_problems(checks, path):
    problems, rows = checks.check_folder(path)
    assert problems == []
    if path.name != "coffee":
        assert rows


@pytest.mark.slow
@pytest.mark.parametrize("path", FOLDERS, ids=lambda p: p.name)
def test_true_meshes_are_valid_gltf(path):
    for mesh in sorted(path.glob("meshes/*.glb")):
        assert_valid_glb(mesh)


def test_rasterizer_draws_a_tilted_square_at_its_depth(checks):
    # z = 2 + x; pixel centers of a 32 px picture with focal length 32
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    vertices = np.column_stack([corners, 2 + corners[:, 0]])
    K = np.array([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]])
    depth = checks.rasterize(vertices, np.array([[0, 1, 2], [0, 2, 3]]), K, 32, 32)
    v, u = np.mgrid[:32, :32] + 0.5
    slope = (u - 16) / 32  # x / z of the ray
    z = 2 / (1 - slope)
    inside = (np.abs(slope * z) <= 0.5) & (np.abs((v - 16) / 32 * z) <= 0.5)
    assert (np.isfinite(depth) == inside).all()
    np.testing.assert_allclose(depth[inside], z[inside], rtol=1e-12)


def test_checks_find_a_moved_mesh_and_overlapping_masks(checks):
    folder = checks.read_folder(ROOT / "data/teddy_bear")
    vertices, faces = folder.meshes[0]
    folder.meshes[0] = (vertices + np.array([0.02, 0, 0]), faces)
    problems, _ = checks.check_meshes(folder)
    assert any("IoU" in p for p in problems)
    folder.meshes[0] = (vertices * 1.01, faces)
    problems, _ = checks.check_meshes(folder)
    assert any("off the mesh" in p for p in problems)


def test_checks_find_a_mask_that_is_not_the_photo(checks, tmp_path):
    source = ROOT / "data/teddy_bear"
    for name in ("image.png", "0.png", "example.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    assert checks.check_masks(checks.read_folder(tmp_path)) == []
    (tmp_path / "1.png").write_bytes((source / "0.png").read_bytes())
    rgba = np.asarray(Image.open(source / "0.png")).copy()
    rgba[rgba[..., 3] > 0, 0] += 1
    Image.fromarray(rgba).save(tmp_path / "0.png")
    problems = " ".join(checks.check_masks(checks.read_folder(tmp_path)))
    assert "lists [0] but masks are [0, 1]" in problems
    assert "mask 0 does not carry the photo's colors" in problems
    assert "masks overlap" in problems
