"""Getting a model: access, list, disk, download, conversion, verification, in this order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.convert import convert, find_published
from sam3d_nb.weights.converted import CONFIG, Source
from sam3d_nb.weights.folder import (
    DOWNLOADS,
    MANIFEST,
    SAM3,
    SAM3D,
    FileRecord,
    check_hashes,
    free_bytes,
    hash_file,
    read_json,
    read_manifest,
    remove_tree,
    weights_folder,
    write_manifest,
)
from sam3d_nb.weights.hub import Hub
from sam3d_nb.weights.plan import Plan, make_plans, records_in
from sam3d_nb.weights.status import (
    PARTIAL,
    REPOSITORIES,
    download_folder,
    model_status,
    renewal,
    size_text,
)
from sam3d_nb.weights.tensorfile import read_header
from sam3d_nb.weights.write import OnProgress, disk_errors, silent, verify_model

SPARE = 200_000_000  # bytes that stay free on the disk

Say = Callable[[str], None]


def download(
    folder: str | Path | None = None,
    *,
    dtype: str | None = None,
    sam3: bool = False,
    accept: tuple[str, ...] = (),
    keep_download: bool = False,
    hub: Hub | None = None,
    say: Say = lambda text: None,
    on_progress: OnProgress = silent,
) -> list[Path]:
    """Make the official weights ready and return the folders of the models.

    Models that are ready are left alone. A second call goes on where the first one stopped. The
    download is deleted once its conversion is verified, unless `keep_download`.

    dtype: float16 or bfloat16; default float16, or that of a model which is ready. sam3: get
    facebook/sam3 as well. accept: see `published.read_published`. say: told what happens.

    Raises AccessError that tells which state of access it is, and WeightsError for what else is
    wrong; nothing that is complete is lost.
    """
    root = weights_folder(folder)
    names = [SAM3D, SAM3] if sam3 else [SAM3D]
    wanted = [name for name in names if not model_status(name, root).ready]
    for name in names:
        if name not in wanted:
            say(f"{name} is ready: {model_status(name, root).found}")
    if SAM3D not in wanted:
        _check_dtype(root, dtype)
    if not wanted:
        return [root / name for name in names]
    with locked(root), disk_errors(root):
        hub = hub or Hub()
        plans = {name: make_plans(name, hub, root) for name in wanted}
        _check_disk(root, plans, say)
        for name in wanted:
            for plan in plans[name]:
                if plan.missing():
                    say(f"Downloading {plan.listing.repository}")
                plan.fetch(hub)
            if name == SAM3D:
                chosen = dtype or "float16"
                say(f"Converting to {chosen}")
                convert_download(root, dtype=chosen, accept=accept, on_progress=on_progress)
            else:
                adopt(name, plans[name][0], root)
            if not keep_download:
                remove_download(root, name)
            say(f"{name} is ready: {model_status(name, root).found}")
    return [root / name for name in names]


def _check_dtype(root: Path, dtype: str | None) -> None:
    there = read_json(root / SAM3D / CONFIG)["dtype"]
    if dtype is not None and dtype != there:
        raise WeightsError(
            f"{SAM3D} is there in {there}; to have it in {dtype}, {renewal(SAM3D, root)} "
            f"--dtype {dtype}"
        )


def _check_disk(root: Path, plans: Mapping[str, list[Plan]], say: Say) -> None:
    """Say how much goes where; raises WeightsError where the disk is too small for it."""
    coming = sum(plan.missing_bytes() for several in plans.values() for plan in several)
    # Checkpoints are float32: their half is what stays, less what is stored once.
    converted = sum(file.bytes for plan in plans.get(SAM3D, ()) for file in plan.files) // 2
    free = free_bytes(root)
    after = (
        f" and {size_text(converted)} for the conversion, which alone stays" if converted else ""
    )
    text = f"{size_text(coming)} to download{after}; {size_text(free)} are free in {root}"
    say(text)
    needed = coming + converted + SPARE
    if needed > free:
        raise WeightsError(
            f"the disk is too small: {text}; free {size_text(needed - free)}, or choose another "
            "folder with --folder"
        )


def convert_download(
    root: Path,
    *,
    dtype: str = "float16",
    accept: tuple[str, ...] = (),
    on_progress: OnProgress = silent,
) -> Path:
    """Convert what was downloaded below `root`; needs no network. Raises WeightsError."""
    folders = [download_folder(root, repository) for repository in REPOSITORIES[SAM3D]]
    known = {}
    for folder in folders:
        for name, record in records_in(folder).items():
            sha256 = str(record["sha256"] or hash_file(folder / name))
            known[folder / name] = Source(
                str(record["repository"]),
                str(record["revision"]),
                name,
                int(str(record["bytes"])),
                sha256,
            )
    moge = next((p for p in known if p.parent == folders[1] and p.stem == "model"), None)
    if moge is None or not folders[0].is_dir():
        raise WeightsError(
            f"there is no complete download in {root / DOWNLOADS}; run: sam3d-nb weights download"
        )
    files = find_published(folders[0], moge)
    complete = set(files.checkpoints.values()) <= set(known)
    kind = "official" if complete else "local"
    files = replace(files, known=known)
    return convert(files, root, dtype=dtype, accept=accept, kind=kind, on_progress=on_progress)


def adopt(name: str, plan: Plan, root: Path) -> None:
    """Give downloaded files that need no conversion their place and a manifest."""
    target = root / name
    for file in plan.files:
        if file.name.endswith(".safetensors"):
            read_header(plan.folder / file.name)
    records = {
        file.name: FileRecord(file.bytes, file.sha256 or hash_file(plan.folder / file.name))
        for file in plan.files
    }
    staging = root / f".{name}.partial"
    remove_tree(staging)
    staging.mkdir()
    for file in plan.files:
        os.replace(plan.folder / file.name, staging / file.name)
    write_manifest(staging, name, records)
    remove_tree(target)
    os.replace(staging, target)


def verify(
    name: str,
    folder: str | Path | None = None,
    on_progress: OnProgress = silent,
) -> Path:
    """Check every file of a model against its manifest, and every tensor's name and shape.

    Returns the model's folder. Raises WeightsError that says what is wrong.
    """
    place = weights_folder(folder) / name
    if not place.is_dir():
        status = model_status(name, folder)
        raise WeightsError(f"{name} is not ready: {status.found}; {status.advice}")
    try:
        if name == SAM3D:
            verify_model(place, on_progress)
        else:
            check_hashes(place, read_manifest(place, name))
    except WeightsError as error:
        raise WeightsError(f"{error}; {renewal(name, folder)}") from error
    return place


def remove(name: str, folder: str | Path | None = None) -> int:
    """Delete a model and what is left of its download; return the bytes freed.

    Raises WeightsError where the folder was not made by this package.
    """
    root = weights_folder(folder)
    place = root / name
    if place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise WeightsError(f"{place} has no manifest of this package; delete it yourself")
    with locked(root):
        return remove_tree(place) + remove_download(root, name)


def remove_download(root: Path, name: str) -> int:
    """Delete what was downloaded for a model and what an interrupted conversion left."""
    freed = sum(remove_tree(download_folder(root, r)) for r in REPOSITORIES[name])
    freed += remove_tree(root / (PARTIAL if name == SAM3D else f".{name}.partial"))
    downloads = root / DOWNLOADS
    if downloads.is_dir() and not any(downloads.iterdir()):
        downloads.rmdir()
    return freed


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes from changing the folder of weights at the same time."""
    from filelock import FileLock, Timeout

    lock = FileLock(root / ".lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise WeightsError(
            f"another process is downloading or converting in {root}; wait for it"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"cannot write into {root}: {error.strerror or error}; choose another folder with "
            "--folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
