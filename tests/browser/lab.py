"""JupyterLab in a folder of its own, and a notebook in it as a person has it on the screen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

START_SECONDS = 60
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab. url: where it answers. folder: what it shows."""

    url: str
    folder: Path

    def write_notebook(self, name: str, cells: Sequence[str]) -> None:
        """Write a notebook of code cells into the folder."""
        code = [
            {
                "cell_type": "code",
                "id": f"cell{index}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for index, source in enumerate(cells)
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {
            "cells": code,
            "metadata": {"kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / f"{name}.ipynb").write_text(json.dumps(notebook))

    def show(self, page: Page) -> None:
        """Load JupyterLab into a page, with as much room for notebooks as can be."""
        page.goto(f"{self.url}/lab?reset")
        page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('docmanager:open')")
        page.evaluate("async () => { await window.jupyterapp.restored; }")
        page.evaluate("window.jupyterapp.shell.collapseLeft()")
        page.wait_for_function(UNCOVERED)


@contextmanager
def running_lab(home: Path) -> Iterator[Lab]:
    """Start JupyterLab on a free port with settings of its own below `home`, and end it."""
    folder, settings = home / "work", home / "settings"
    folder.mkdir(parents=True)
    for name, values in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--expose-app-in-browser"),
        "--LabApp.news_url=",
    ]
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
        try:
            _wait_for(url, process, home / "log.txt")
            yield Lab(url, folder)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            direct.open(f"{url}/api/status", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


OPEN = """
async (path) => {
    const app = window.jupyterapp;
    const panel = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
    await panel.context.ready;
    await panel.sessionContext.ready;
    app.shell.activateById(panel.id);
    window.panel = panel;
}
"""
UNCOVERED = "() => !document.querySelector('#jupyterlab-splash')"
"""While JupyterLab starts and changes its theme, a splash screen takes every click."""
THEME = "(name) => document.body.dataset.jpThemeName === name"
ACTIVE = "() => window.jupyterapp.shell.currentWidget === window.panel"
EXECUTE = """
async (source) => {
    const future = window.panel.sessionContext.session.kernel.requestExecute({code: source});
    let printed = '';
    let failed = '';
    future.onIOPub = ({header, content}) => {
        if (header.msg_type === 'stream') printed += content.text;
        if (header.msg_type === 'error') failed = content.traceback.join('\\n');
    };
    await future.done;
    return {printed, failed};
}
"""
FINISHED = """
() => [...window.panel.node.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    .every((prompt) => /\\[\\d+\\]/.test(prompt.textContent))
"""
CLOSE = """
async () => {
    await window.panel.sessionContext.shutdown();
    window.panel.dispose();
}
"""


class Notebook:
    """A notebook open in JupyterLab: run its cells, look at what they show."""

    def __init__(self, page: Page, lab: Lab, name: str, cells: Sequence[str]) -> None:
        self.page, self.lab = page, lab
        lab.write_notebook(name, cells)
        page.evaluate(OPEN, f"{name}.ipynb")
        page.wait_for_function(ACTIVE)
        self.command("notebook:run-all-cells")
        page.wait_for_function(FINISHED)
        errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
        assert errors.count() == 0, errors.first.inner_text()

    def execute(self, source: str) -> str:
        """Run code in the notebook's kernel and return what it prints."""
        result = self.page.evaluate(EXECUTE, source)
        assert not result["failed"], result["failed"]
        return str(result["printed"])

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run a command of JupyterLab and wait for it."""
        script = "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }"
        self.page.evaluate(script, [name, arguments or {}])

    def choose_theme(self, name: str) -> None:
        """Change JupyterLab's theme, and wait until the notebook can be clicked again."""
        self.command("apputils:change-theme", {"theme": name})
        self.page.wait_for_function(THEME, arg=name)
        self.page.wait_for_function(UNCOVERED)

    def find(self, selector: str) -> Locator:
        """Return what a cell shows, scrolled into view."""
        found = self.page.locator(selector).first
        found.wait_for()
        found.scroll_into_view_if_needed()
        return found

    def close(self) -> None:
        """End the kernel and close the notebook without saving."""
        self.page.evaluate(CLOSE)
