"""Options that all tests share."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "model" / "golden",
        help="folder of golden files for tests/model (default: the copies in tests/model/golden)",
    )
    parser.addoption(
        "--require-browser",
        action="store_true",
        help="let the tests in tests/browser fail where no Chromium is installed",
    )
