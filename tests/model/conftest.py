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
