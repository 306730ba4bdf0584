"""Weights of SAM 2 and SAM 3: where they lie, and getting them from the hub when asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.weights import status
from sam3d_nb.weights.folder import SAM3D, check_files, read_manifest, weights_folder
from sam3d_nb.weights.hub import Hub

REPOSITORIES = {name: first for name, (first, *_) in status.REPOSITORIES.items() if name != SAM3D}
INSTALL = (
    "the package transformers is missing; run in the folder of setup_a.sh: "
    f"{sys.executable} -m pip install -c requirements/lock.txt -e '.[sam]'"
)


def weights_missing(name: str, folder: str | Path | None = None) -> str:
    """Return what to do before the segmenter `name` can be loaded, empty where it is ready.

    Takes milliseconds, uses no network, imports neither torch nor transformers.
    """
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        return INSTALL
    place = weights_folder(folder) / name
    if not place.is_dir():
        return f"{name} has no weights here; {status.first_steps(name)}"
    try:
        check_files(place, read_manifest(place, name))
    except WeightsError as error:
        command = status.download_command(name)
        return f"{name} is damaged: {error}; delete {place}, then run: {command}"
    return ""


def weights_place(name: str, folder: str | Path | None = None) -> Path:
    """Return the folder of the segmenter's weights; raises WeightsError where it is not ready."""
    missing = weights_missing(name, folder)
    if missing:
        raise WeightsError(missing)
    return weights_folder(folder) / name


def download_segmenter(
    name: str,
    folder: str | Path | None = None,
    *,
    hub: Hub | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Get the weights of the segmenter `name` from the hub and return their folder.

    A stopped download goes on where it was. say: told what happens. Raises InputError for an
    unknown name, AccessError that tells which state of access it is, WeightsError for what else is
    wrong.
    """
    from sam3d_nb.weights.download import adopt, locked
    from sam3d_nb.weights.folder import free_bytes, remove_tree
    from sam3d_nb.weights.plan import Plan, choose_sam3_files
    from sam3d_nb.weights.status import download_folder, size_text
    from sam3d_nb.weights.write import disk_errors

    if name not in REPOSITORIES:
        raise InputError(f"{name!r} has no weights; choose from {', '.join(REPOSITORIES)}")
    root, repository = weights_folder(folder), REPOSITORIES[name]
    if (root / name).is_dir() and not weights_missing(name, folder):
        say(f"{name} is ready")
        return root / name
    with locked(root), disk_errors(root):
        hub = hub or Hub()
        hub.check_access(repository)
        listing = hub.list_files(repository)
        plan = Plan(listing, choose_sam3_files(listing), download_folder(root, repository))
        coming, free = plan.missing_bytes(), free_bytes(root)
        say(f"Downloading {repository}: {size_text(coming)}; {size_text(free)} are free in {root}")
        if coming > free:
            raise WeightsError(
                f"the disk is too small: {size_text(coming)} to download, {size_text(free)} free "
                f"in {root}; make room, or choose another folder with --folder"
            )
        plan.fetch(hub)
        adopt(name, plan, root)
        remove_tree(plan.folder)
    say(f"{name} is ready")
    return root / name
