"""The golden folder, chosen with `--golden PATH`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Golden


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], Golden]:
    """Return a reader of golden files by name, such as `golden("stage1/dino")`."""
    folder: Path = request.config.getoption("--golden")
    return lambda name: Golden(folder, name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "golden_cases(argument, file, names, **options): run for each of `names(golden)` in a file",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests and fixtures the cases that the chosen folder's file holds, whatever their names.

    Where the file is not there, one case is left, which fails when it opens the file.
    """
    folder: Path = metafunc.config.getoption("--golden")
    for mark in metafunc.definition.iter_markers("golden_cases"):
        argument, file, names = mark.args
        if argument in metafunc.fixturenames:
            found = list(names(Golden(folder, file))) if (folder / f"{file}.json").exists() else []
            metafunc.parametrize(argument, found or ["none"], **mark.kwargs)
