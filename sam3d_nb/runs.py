"""One reconstruction from files to files: what the command line runs, and notebooks may."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.events import OnEvent, WritingEvent, tell
from sam3d_nb.examples import Example
from sam3d_nb.files import write_file
from sam3d_nb.mesh.finish import AS_MADE, Finishing, check_finishing
from sam3d_nb.mesh.glb import encode_png
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model
from sam3d_nb.view.masks import draw_masks
from sam3d_nb.view.sheet import contact_sheet

FORMATS = ("glb", "obj", "ply", "stl")
TIME = "%Y%m%d-%H%M%S"
TIMES = re.compile(r"^(\d{8}-\d{6}_)+(?=.+_(masks|scene|\d+)$)")
"""The times in a result's name; those of a photo's own name stay."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run made. files: what was written, meshes first, by what it is."""

    folder: Path
    result: Object3D
    files: dict[str, Path]


def reconstruct_to_folder(
    example: Example,
    index: int,
    model: Model,
    output_dir: str | Path = "output",
    *,
    formats: tuple[str, ...] = ("glb",),
    finishing: Finishing = AS_MADE,
    seed: int = 0,
    pictures: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Run:
    """Reconstruct object `index` of `example` and write it into a folder under `output_dir`.

    The folder is new and named after time, example and mask. With `overwrite` it is named after
    example and mask alone, and files in it are replaced. Gaussians, where the model makes any, go
    into a PLY file of their own. finishing: what is done with the mesh before it is written.
    pictures: also write the photo with its mask and a contact sheet of the result. on_event: called
    with every event of the model, then with `FinishingEvent`s where there is something to finish,
    then with `WritingEvent`s.

    Raises InputError for an unknown format or mask, OutputError where nothing can be written;
    both before anything is reconstructed. Afterwards what the model raises, and InputError or
    ReconstructionError where the mesh cannot be finished as asked; nothing is written then.
    """
    check_formats(formats)
    check_finishing(finishing)
    example.mask(index)
    name = result_name(example, str(index))
    folder = result_folder(output_dir, name, overwrite=overwrite)
    try:
        result = model.reconstruct(example, index, seed=seed, on_event=on_event)
        result = finishing.apply(result, on_event)
        tell(on_event, WritingEvent())
        files = {
            kind: result.save(folder / f"{name}.{kind}", overwrite=overwrite) for kind in formats
        }
        if result.gaussians is not None:
            path = folder / f"{name}_gaussians.ply"
            files["gaussians"] = result.save_splats(path, overwrite=overwrite)
        if pictures:
            tell(on_event, WritingEvent(0.5, "pictures"))
            files |= save_pictures(example, index, result, folder, overwrite=overwrite)
        tell(on_event, WritingEvent(1.0))
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    return Run(folder, result, files)


def save_pictures(
    example: Example, index: int, result: Object3D, folder: Path, *, overwrite: bool = False
) -> dict[str, Path]:
    """Write `photo.png`, the photo with its mask, and `preview.png`, the result from four sides."""
    mask = example.mask(index)
    alone = replace(example, masks={index: mask})  # other masks may be damaged
    pictures = {
        "photo": draw_masks(example.image, {index: mask}),
        "preview": contact_sheet(alone, result),
    }
    return {
        name: write_file(
            folder / f"{name}.png", encode_png(np.asarray(picture)), overwrite=overwrite
        )
        for name, picture in pictures.items()
    }


def check_formats(formats: tuple[str, ...]) -> None:
    """Raise InputError unless there is one format at least, all are known, and none comes twice."""
    for kind in formats or ("",):
        if kind not in FORMATS:
            raise InputError(f"there is no format {kind!r}; choose from {', '.join(FORMATS)}")
        if formats.count(kind) > 1:
            raise InputError(f"the format {kind!r} is given twice; once is enough")


def result_name(example: Example, what: str) -> str:
    """Return what results are named after: the example, without times if it is itself a result."""
    return f"{plain_name(TIMES.sub('', example.name))}_{what}"


def result_folder(output_dir: str | Path, name: str, *, overwrite: bool = False) -> Path:
    """Make and return `output_dir/name`, or without `overwrite` a new folder `TIME_name`.

    Raises OutputError where that cannot be made or written to.
    """
    parent = Path(output_dir).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            folder = parent / name
            folder.mkdir(exist_ok=True)
        else:
            folder = _new_folder(parent, f"{datetime.now():{TIME}}_{name}")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"cannot write results into {parent.absolute()}: {reason}; choose another folder"
        ) from error
    return folder


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that was not there before, also when others do the same at the same time."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(folder)
        except FileExistsError:
            number += 1
        else:
            return folder


def plain_name(name: str) -> str:
    """Return `name` with letters, digits, dots, dashes and underscores only."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "example"
