"""What is built out of the repository has everything that runs: code, weights, their papers."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from sam3d_nb.tiny.shipped import FOLDER, NAME
from sam3d_nb.weights.folder import MANIFEST, read_manifest

ROOT = Path(__file__).resolve().parent.parent
PAPERS = {"CARD.md", "ATTRIBUTION.md", MANIFEST}
LARGEST_WHEEL, LARGEST_SOURCE = 80e6, 100e6  # bytes


def in_git(*arguments: str) -> set[str]:
    """Paths that a command of git lists."""
    command = ["git", "-c", "safe.directory=*", *arguments, "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.split("\0")) - {""}


def wanted() -> set[str]:
    """Every file that belongs to the weights of `tiny`, as paths in the repository."""
    folder = FOLDER.relative_to(ROOT)
    names = PAPERS | set(read_manifest(FOLDER, NAME).files)
    return {(folder / name).as_posix() for name in names}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    for kind in ("wheel", "sdist"):
        make = f"import hatchling.build as build; build.build_{kind}({str(folder)!r})"
        subprocess.run([sys.executable, "-c", make], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_git_has_the_weights_and_nothing_of_the_build_leaves_them_out() -> None:
    """What hatchling packs by default: all that git does not ignore."""
    assert wanted() <= in_git("ls-files"), "git add them"
    assert not in_git("ls-files", "--cached", "--ignored", "--exclude-standard") & wanted()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "sam3d_nb" in build["targets"]["wheel"]["only-include"]
    assert not any("exclude" in table for table in (build, *build["targets"].values()))


def test_licenses_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (FOLDER / "ATTRIBUTION.md").relative_to(ROOT).as_posix() in project["license-files"]
    assert all((ROOT / name).is_file() for name in project["license-files"])


def test_the_wheel_has_the_package_and_the_weights(built: Path) -> None:
    (path,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(path).namelist())
    assert wanted() <= names
    assert {name for name in in_git("ls-files", "sam3d_nb") if (ROOT / name).is_file()} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "training"))]
    assert path.stat().st_size < LARGEST_WHEEL


def test_the_source_package_has_the_weights_and_the_training(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert wanted() <= names
    assert {"LICENSE", "pyproject.toml", "training/train.py", "training/LOG.md"} <= names
    assert path.stat().st_size < LARGEST_SOURCE
