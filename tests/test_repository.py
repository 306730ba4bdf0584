"""What the repository ships: notebooks, sample data, lock file, texts."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from gltf import assert_valid_glb
from packaging.requirements import Requirement
from packaging.version import Version

from sam3d_nb.errors import Sam3dError
from sam3d_nb.examples import Example, load_example
from sam3d_nb.frames import project

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLES = sorted(path.name for path in (ROOT / "data").iterdir() if path.is_dir())
MAX_CELL_LINES = 5
MAX_DATA_BYTES = 40_000_000


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text())["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_without_outputs(notebook: Path) -> None:
    assert json.loads(notebook.read_text())["metadata"]["kernelspec"]["name"] == "python3"
    previous = "code"
    for cell in cells(notebook):
        kind, source = cell["cell_type"], "".join(cell["source"])
        if kind == "code":
            assert previous == "markdown", f"no prose before: {source}"
            assert not cell["outputs"]
            assert cell["execution_count"] is None
            assert len(source.splitlines()) <= MAX_CELL_LINES, source
            assert not re.search(r"^\s*(def|class|async)\s|lambda", source, re.MULTILINE), source
        previous = kind


def test_notebooks_are_there() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names[:2] == ["01_setup.ipynb", "02_single_object.ipynb"]


def test_data_is_small_enough_to_ship() -> None:
    size = sum(path.stat().st_size for path in (ROOT / "data").rglob("*") if path.is_file())
    assert size < MAX_DATA_BYTES


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    return load_example(ROOT / "data" / request.param)


def test_examples_have_photo_masks_and_license(example: Example) -> None:
    height, width = example.image.shape[:2]
    assert min(height, width) >= 256
    assert max(height, width) <= 1024
    assert example.info["license"] == "CC0-1.0"
    assert example.info["source"]
    assert [o["index"] for o in example.info["objects"]] == list(example.masks)
    for entry in example.info["objects"]:
        assert entry["license"] == "CC0-1.0"
        assert entry["name"]
        assert entry["pixels"] == example.mask(entry["index"]).sum()


def test_masks_do_not_overlap(example: Example) -> None:
    total = sum(example.mask(index).astype(int) for index in example.masks)
    assert np.max(total) == 1


def test_point_maps_fit_the_camera(example: Example) -> None:
    """Every known point is projected to the center of its own pixel."""
    if example.pointmap is None:
        assert example.name == "coffee", "only the real photo has no point map"
        return
    assert example.intrinsics is not None
    known = np.isfinite(example.pointmap).all(-1)
    assert all(known[example.mask(i)].mean() > 0.99 for i in example.masks)
    v, u = np.nonzero(known)
    pixels = project(example.pointmap[known], example.intrinsics)
    off = np.abs(pixels - np.stack([u + 0.5, v + 0.5], axis=1)).max(axis=1)
    assert np.quantile(off, 0.99) < 0.75
    assert (example.pointmap[known][:, 2] > 0).all()


def test_true_meshes_lie_where_the_photo_shows_them(example: Example) -> None:
    """The points of the point map inside a mask lie on the mesh's box, within a centimeter."""
    if example.pointmap is None:
        return
    for index in example.masks:
        mesh = example.true_mesh(index)
        assert mesh is not None
        points = example.pointmap[example.mask(index)]
        points = points[np.isfinite(points).all(-1)]
        low, high = mesh.bounds
        margin = 0.01 + 0.01 * np.linalg.norm(high - low)
        inside = ((points > low - margin) & (points < high + margin)).all(-1)
        assert inside.mean() > 0.97, f"object {index}: {inside.mean():.3f}"
        assert mesh.colors is not None or mesh.texture is not None


def test_true_meshes_are_valid_glb(example: Example) -> None:
    for index in example.masks:
        path = example.folder / "meshes" / f"{index}.glb"
        if path.is_file():
            assert_valid_glb(path)


def locked() -> dict[str, Version]:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name: Version(str(r.specifier).removeprefix("==")) for r in requirements}


def test_lock_agrees_with_the_project() -> None:
    project_table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project_table["dependencies"], *project_table["optional-dependencies"]["test"]]
    versions = locked()
    for line in wanted:
        requirement = Requirement(line)
        assert versions[requirement.name] in requirement.specifier, f"run tools/lock.sh: {line}"


def test_lock_works_on_every_platform() -> None:
    """Nothing in it is bound to one index, one build or CUDA, and no torchvision slips in."""
    text = (ROOT / "requirements" / "lock.txt").read_text()
    assert "://" not in text
    assert "--" not in text
    assert "+" not in text
    names = set(locked())
    assert not {n for n in names if n.startswith(("nvidia-", "cuda-", "triton", "torchvision"))}


def test_no_paths_of_one_machine() -> None:
    pattern = re.compile(rb"/(?:root|work|Users|home/(?!user\b))[/\w]")
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        if path.suffix not in {".png", ".npz", ".glb", ".safetensors"}
        for match in pattern.finditer(path.read_bytes())
    ]
    assert not found


def test_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {cls.exit_code for cls in [Sam3dError, *Sam3dError.__subclasses__()]}
    assert stated == raised | {0, 2, 130}


def test_readme_points_at_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []
