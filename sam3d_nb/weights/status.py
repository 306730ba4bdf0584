"""Which models have their weights on this machine, and the next thing to do for those without."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from sam3d_nb.errors import WeightsError
from sam3d_nb.tiny import shipped
from sam3d_nb.weights.folder import (
    DOWNLOADS,
    SAM3,
    SAM3D,
    check_files,
    read_json,
    read_manifest,
    tree_bytes,
    weights_folder,
)

PARTIAL = f".{SAM3D}.partial"
REPOSITORIES = {
    SAM3D: ("facebook/sam-3d-objects", "Ruicheng/moge-vitl"),
    SAM3: ("facebook/sam3",),
    "sam2": ("facebook/sam2.1-hiera-small",),
    "sam2-tiny": ("facebook/sam2.1-hiera-tiny",),
    "sam2-base": ("facebook/sam2.1-hiera-base-plus",),
    "sam2-large": ("facebook/sam2.1-hiera-large",),
}
GATED = (SAM3D, SAM3)
TOKEN = "have a read token in HUGGINGFACE_TOKEN or by hf auth login"
"""What a gated repository asks for once its terms are accepted."""


@dataclass(frozen=True)
class ModelStatus:
    """Weights of one model. found: what is there. advice: the one next thing, empty if ready."""

    name: str
    ready: bool
    found: str
    advice: str
    folder: Path


def weights_status(folder: str | Path | None = None) -> list[ModelStatus]:
    """Return the state of what the folder of weights may hold.

    Those are both gated models, and each open one of which something is there. Takes milliseconds,
    uses no network, loads no torch and raises nothing about the weights. Sizes are checked, hashes
    are not.
    """
    root = weights_folder(folder)
    names = [name for name in REPOSITORIES if name in GATED or _is_there(root, name)]
    return [model_status(name, folder) for name in names]


def _is_there(root: Path, name: str) -> bool:
    downloads = [download_folder(root, repository) for repository in REPOSITORIES[name]]
    return any(map(os.path.lexists, (root / name, root / f".{name}.partial", *downloads)))


def model_status(name: str, folder: str | Path | None = None) -> ModelStatus:
    """Return the state of the model `name`, one of `REPOSITORIES` or `tiny`."""
    if name == shipped.NAME:
        return _shipped_status()
    root = weights_folder(folder)
    place = root / name
    get = download_command(name, folder)

    def state(ready: bool, found: str, advice: str) -> ModelStatus:
        return ModelStatus(name, ready, found, advice, place)

    if os.path.lexists(place):
        try:
            return state(True, _describe(place, name), "")
        except (WeightsError, KeyError, TypeError) as error:
            return state(False, f"damaged: {error}", renewal(name, folder))
    if name == SAM3D and (root / PARTIAL).is_dir():
        return state(False, "the conversion was interrupted", f"resume it: {get}")
    started = sum(tree_bytes(download_folder(root, r)) for r in REPOSITORIES[name])
    if started:
        found = f"the download was interrupted after {size_text(started)}"
        return state(False, found, f"resume it: {get}")
    return state(False, "no weights", first_steps(name, folder))


def _shipped_status() -> ModelStatus:
    """Return the state of the model that comes with the package."""
    name, place = shipped.NAME, shipped.FOLDER
    try:
        check_files(place, read_manifest(place, name))
    except WeightsError as error:
        return ModelStatus(name, False, f"damaged: {error}", shipped.ADVICE, place)
    found = "comes with the package, nothing to download"
    return ModelStatus(name, True, found, "", place)


def renewal(name: str, folder: str | Path | None = None) -> str:
    """Return how to replace a model that is damaged."""
    remove = _command(f"remove --model {name}", folder)
    return f"get it anew: {remove}, then {download_command(name, folder)}"


def first_steps(name: str, folder: str | Path | None = None) -> str:
    """Return how to get a model of which nothing is there."""
    page = f"https://huggingface.co/{REPOSITORIES[name][0]}"
    terms = f"accept the terms at {page}, {TOKEN}, then " if name in GATED else ""
    return f"{terms}run: {download_command(name, folder)}"


def download_command(name: str, folder: str | Path | None = None) -> str:
    """Return the command that makes a model ready."""
    return _command("download" if name == SAM3D else f"download --segmenter {name}", folder)


def _command(action: str, folder: str | Path | None) -> str:
    option = "" if folder is None else f" --folder {shlex.quote(str(folder))}"
    return f"sam3d-nb weights {action}{option}"


def _describe(place: Path, name: str) -> str:
    """Return what a complete model is; raises WeightsError where it is not complete."""
    manifest = read_manifest(place, name)
    check_files(place, manifest)
    found = f"{size_text(manifest.bytes)} in {place}"
    if name != SAM3D:
        return found
    config = read_json(place / "config.json")
    return f"{config['kind']} weights, {config['version']}, {config['dtype']}, {found}"


def download_folder(root: Path, repository: str) -> Path:
    """Return where the files of a repository lie until they are converted."""
    return root / DOWNLOADS / repository.partition("/")[2]


def size_text(count: int) -> str:
    """Return a number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
