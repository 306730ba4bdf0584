"""A real browser on a real JupyterLab; where no Chromium is installed these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab import Lab, Notebook
    from playwright.sync_api import Error, Page

HERE = Path(__file__).resolve().parent
CHROMIUM = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
OUTPUT = HERE.parent / "output" / "browser"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-accelerated-2d-canvas",  # which would be emulated as well
)
WINDOW = {"width": 1280, "height": 1000}


@pytest.fixture(scope="module")  # other tests may not run beside Playwright's event loop
def page(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Page]:
    """JupyterLab in a window, with as much room for notebooks as can be."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = _chromium(request)
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        window = browser.new_page(viewport=WINDOW)
        window.set_default_timeout(30_000)
        lab.show(window)
        yield window
        browser.close()


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab in an empty folder."""
    _chromium(request)
    from lab import running_lab

    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def open_notebook(
    page: Page, lab: Lab, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Notebook]]:
    """Open a notebook of the given cells and run it; errors of its widgets fail the test."""
    from lab import Notebook

    opened: list[Notebook] = []
    errors: list[str] = []

    def note(error: Error) -> None:
        if "blob:" in (error.stack or ""):  # where anywidget's modules live
            errors.append(f"{error}\n{error.stack}")

    page.on("pageerror", note)

    def open_one(*cells: str) -> Notebook:
        name = f"{request.node.name}_{len(opened)}"
        opened.append(Notebook(page, lab, name, cells))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.close()
    page.remove_listener("pageerror", note)
    assert errors == []


@pytest.fixture
def screenshot(page: Page, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a picture of the window under tests/output/browser."""

    def keep(what: str) -> None:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=OUTPUT / f"{request.node.name.removeprefix('test_')}-{what}.png")

    return keep


def _chromium(request: pytest.FixtureRequest) -> str:
    """Return the path of an installed Chromium; skip, or fail where one is required."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is not None:
        return path
    reason = "no Chromium is installed; on Debian and Ubuntu: apt install chromium"
    if request.config.getoption("--require-browser"):
        pytest.fail(f"--require-browser was given, but {reason}")
    pytest.skip(reason)
