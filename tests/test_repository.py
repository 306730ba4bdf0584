"""What the repository ships: notebooks, sample data, lock file, texts."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from gltf import assert_valid_glb
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from sam3d_nb.errors import Sam3dError
from sam3d_nb.evaluation.report import METRICS
from sam3d_nb.examples import load_example

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLES = sorted(path.name for path in (ROOT / "data").iterdir() if path.is_dir())
MAX_CELL_LINES = 5
MEASURED = ROOT / "docs" / "measured.md"
CARD = ROOT / "sam3d_nb" / "tiny" / "weights" / "CARD.md"

MODELS_COMPARED = ("tiny", "silhouette")
METRICS_OF_TINY = (
    "f_score",
    "chamfer",
    "volume_iou",
    "aligned_f_score",
    "silhouette_iou",
    "color_psnr",
    "surface_color_psnr",
    "rotation_error",
    "translation_error",
    "scale_error",
)


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


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_load_and_their_meshes_are_valid(name: str) -> None:
    """What test_example_data.py checks from the files, seen through the package."""
    example = load_example(ROOT / "data" / name)
    assert example.info["license"] == "CC0-1.0"
    assert [o["index"] for o in example.info["objects"]] == list(example.masks)
    for entry in example.info["objects"]:
        assert entry["license"] == "CC0-1.0"
        assert example.names[entry["index"]] == entry["name"]
        assert example.mask(entry["index"]).sum() == entry["pixels"]
        mesh = example.true_mesh(entry["index"])
        assert (mesh is None) == (name == "coffee"), "only the real photo has no truth"
        if mesh is not None:
            assert mesh.colors is not None or mesh.texture is not None
            assert_valid_glb(example.folder / "meshes" / f"{entry['index']}.glb")


def locked() -> dict[str, Version]:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(r.name): Version(str(r.specifier).removeprefix("=="))
        for r in requirements
    }


def test_lock_agrees_with_the_project() -> None:
    project_table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project_table["dependencies"], *project_table["optional-dependencies"]["test"]]
    versions = locked()
    for line in wanted:
        requirement = Requirement(line)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, (
            f"run tools/lock.sh: {line}"
        )


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
        if path.suffix not in {".png", ".jpg", ".npz", ".glb", ".safetensors"}
        for match in pattern.finditer(path.read_bytes())
    ]
    assert not found


def test_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {cls.exit_code for cls in [Sam3dError, *Sam3dError.__subclasses__()]}
    assert stated == raised | {0, 2, 130}


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings in lower case, with dashes, without signs."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings_that_exist() -> None:
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    assert ROOT / "README.md" in pages
    missing = []
    for page in pages:
        targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
        for target in (target for target in targets if not re.match(r"[a-z]+:", target)):
            path, _, anchor = target.partition("#")
            place = page.parent / path if path else page
            if not place.exists() or (anchor and anchor not in anchors(place)):
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def test_readme_leads_to_every_page_of_docs() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md")]
    assert [str(page) for page in pages if f"]({page})" not in text] == []


def test_readme_has_the_numbers_of_the_page_of_measurements() -> None:
    """Its section is a part of docs/measured.md, whose numbers are compared with the reports."""
    text = (ROOT / "README.md").read_text()
    section = text.split("\n## How good it is\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 7
    measured = MEASURED.read_text().splitlines()
    assert [row for row in rows if row not in measured] == []


@pytest.mark.parametrize("page", [MEASURED, CARD], ids=lambda path: path.stem)
def test_means_of_tiny_are_those_of_the_reports(page: Path) -> None:
    """A row a metric: `tiny`, `silhouette` on household objects, then on held-out ones."""
    lines = page.read_text().splitlines()
    names = [f"{kind}_{model}" for kind in ("household", "heldout") for model in MODELS_COMPARED]
    reports = [
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()) for name in names
    ]
    for first, second in zip(reports[::2], reports[1::2], strict=True):
        objects = [{(row["example"], row["index"]) for row in r["rows"]} for r in (first, second)]
        assert objects[0] == objects[1]
    for metric in METRICS_OF_TINY:
        means = [f"{report['summary'][metric]['mean']:.3f}" for report in reports]
        assert f"| {METRICS[metric]} | {' | '.join(means)} |" in lines


def test_means_of_the_baseline_are_those_of_the_report() -> None:
    """Their table is the one that `sam3d-nb evaluate` wrote."""
    report = json.loads((ROOT / "benchmarks" / "results" / "silhouette.json").read_text())
    lines = MEASURED.read_text().splitlines()
    for name, row in report["summary"].items():
        mean, low, high = (f"{row[key]:.3f}" for key in ("mean", "low", "high"))
        assert f"| {METRICS[name]} | {mean} | {low} to {high} | {row['n']} |" in lines
    assert {f"{row['example']}/{row['index']}" for row in report["rows"]} == {
        f"{name}/{index}" for name in EXAMPLES for index in load_example(name).masks
    }
