"""Starts JupyterLab on the notebooks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sam3d_nb.errors import InputError, OutputError

PACKAGE = Path(__file__).resolve().parent


def open_lab(folder: str | Path | None = None, arguments: Sequence[str] = ()) -> None:
    """Open JupyterLab on `folder` and return when it ends; arguments: passed on to it.

    Raises InputError where JupyterLab is not installed, and as `notebook_folder` does.
    """
    root = notebook_folder(folder)
    try:
        from jupyterlab.labapp import main
    except ImportError as error:
        raise InputError("JupyterLab is missing; run the set-up again") from error
    print(f"JupyterLab on {root}; end it with Ctrl-C")
    main([f"--ServerApp.root_dir={root}", *arguments])


def notebook_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of notebooks: `folder`, or `notebooks` where that is None.

    Where it is missing it is made, and filled with copies of those that come with the package.
    Raises OutputError where it cannot be made.
    """
    target = Path("notebooks" if folder is None else folder).expanduser().absolute()
    if target.is_dir():
        return target
    try:
        target.mkdir(parents=True)
        for notebook in packaged_notebooks():
            shutil.copyfile(notebook, target / notebook.name)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot make {target}: {reason}; choose another --folder") from error
    return target


def packaged_notebooks() -> list[Path]:
    """Return the notebooks that come with the package, in their order."""
    installed = PACKAGE / "notebooks"
    folder = installed if installed.is_dir() else PACKAGE.parent / "notebooks"
    return sorted(folder.glob("*.ipynb"))
