"""A scene from files to files: what the command line runs, and notebooks may."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, ObjectDoneEvent, OnEvent, WritingEvent, tell
from sam3d_nb.examples import Example
from sam3d_nb.files import write_file
from sam3d_nb.mesh.finish import AS_MADE, Finishing, check_finishing
from sam3d_nb.mesh.glb import encode_png
from sam3d_nb.pipeline import Model
from sam3d_nb.runs import check_formats, plain_name, result_folder, result_name
from sam3d_nb.scene.export import unique_names
from sam3d_nb.scene.finish import finish_scene
from sam3d_nb.scene.keep import Keep
from sam3d_nb.scene.realign import check_method
from sam3d_nb.scene.scene import Scene
from sam3d_nb.view.masks import show_masks
from sam3d_nb.view.sheet import contact_sheet, with_masks_of

UNFINISHED = ".unfinished"
"""Folder, within that of the results, of objects whose scene is not complete yet."""


@dataclass(frozen=True, eq=False)
class SceneRun:
    """What a run made.

    files: what was written, by what it is. resumed: how many objects an earlier run had made.
    """

    folder: Path
    result: Scene
    files: dict[str, Path]
    resumed: int = 0


def scene_to_folder(
    example: Example,
    model: Model,
    output_dir: str | Path = "output",
    *,
    formats: tuple[str, ...] = ("glb",),
    finishing: Finishing = AS_MADE,
    seed: int = 0,
    realign: str = "none",
    pictures: bool = False,
    save_all_objects: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> SceneRun:
    """Reconstruct all masked objects of `example` and write them into a folder in `output_dir`.

    The folder holds `scene.glb`, or what `formats` names, and the gaussians of the scene where the
    model makes any. It is new and named after time and example; with `overwrite` it is named after
    the example alone, and files in it are replaced. realign: see `Scene.realigned`. finishing: see
    `Scene.finished`. pictures: also the photo with its masks and the contact sheet of the scene.
    save_all_objects: also each object on its own, in the object frame, in the folder `objects`.
    on_event: called with every event of the model, then with a `FinishingEvent` for each object
    where there is something to finish, then with `WritingEvent`s.

    Finished objects are kept in `output_dir` until the scene is complete without failures, so that
    a run that was stopped goes on from there when it is started again. A KeyboardInterrupt says so.

    Raises InputError for an unknown format or method, OutputError where nothing can be written;
    both before anything is reconstructed. Otherwise as `Model.reconstruct_scene`.
    """
    check_formats(formats)
    check_finishing(finishing)
    check_method(realign)
    if not example.masks:
        raise InputError(f"{example.folder} holds no mask; save one as 0.png beside the photo")
    name = result_name(example, "scene")
    keep = Keep(Path(output_dir).expanduser() / UNFINISHED / name)
    count = _Count(on_event)
    made: list[Path] = []
    try:
        scene = model.reconstruct_scene(
            example, seed=seed, realign=realign, on_event=count, save_dir=keep.folder
        )
        scene = finish_scene(scene, finishing, on_event)
        folder = result_folder(output_dir, name, overwrite=overwrite)
        made = [folder / "objects", folder]
        tell(on_event, WritingEvent())
        files = _save(scene, folder, formats, overwrite)
        if save_all_objects:
            files |= save_objects(scene, folder / "objects", formats, overwrite=overwrite)
        if pictures:
            tell(on_event, WritingEvent(0.5, "pictures"))
            files |= save_pictures(example, scene, folder, overwrite=overwrite)
        tell(on_event, WritingEvent(1.0))
        if not scene.failures:
            keep.clear()
    except KeyboardInterrupt as stop:
        kept = f"{count.done} of {len(example.masks)} objects are kept"
        raise KeyboardInterrupt(f"interrupted; {kept}, the same command goes on there") from stop
    finally:
        for place in (*made, keep.folder, keep.folder.parent):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    return SceneRun(folder, scene, files, count.resumed)


class _Count:
    """Counts the objects that are complete, and passes events on."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self.done = self.resumed = 0
        self._on_event = on_event

    def __call__(self, event: Event) -> None:
        if isinstance(event, ObjectDoneEvent):
            self.done += 1
            self.resumed += event.resumed
        tell(self._on_event, event)


def _save(scene: Scene, folder: Path, formats: tuple[str, ...], overwrite: bool) -> dict[str, Path]:
    """Write the scene's meshes and gaussians, whichever there are."""
    files = {}
    if any(len(thing.mesh.faces) for thing in scene):
        for kind in formats:
            files[kind] = scene.save(folder / f"scene.{kind}", overwrite=overwrite)
    if any(thing.gaussians is not None for thing in scene):
        path = folder / "scene_gaussians.ply"
        files["gaussians"] = scene.save_splats(path, overwrite=overwrite)
    return files


def save_objects(
    scene: Scene, folder: Path, formats: tuple[str, ...] = ("glb",), *, overwrite: bool = False
) -> dict[str, Path]:
    """Write each object of `scene` on its own, named after mask and object; returns the paths."""
    labels = [
        plain_name(
            "_".join(str(part) for part in (o.provenance.mask_index, o.name) if part is not None)
        )
        for o in scene
    ]
    files = {}
    for thing, label in zip(scene, unique_names(labels), strict=True):
        if len(thing.mesh.faces):
            for kind in formats:
                path = folder / f"{label}.{kind}"
                files[f"{label}.{kind}"] = thing.save(path, overwrite=overwrite)
        if thing.gaussians is not None:
            path = folder / f"{label}_gaussians.ply"
            files[f"{label}_gaussians"] = thing.save_splats(path, overwrite=overwrite)
    return files


def save_pictures(
    example: Example, scene: Scene, folder: Path, *, overwrite: bool = False, size: int = 400
) -> dict[str, Path]:
    """Write `photo.png`, the photo with its masks, and `preview.png`, the scene's contact sheet.

    Only masks of objects that were made are drawn. size: pixels of the side of one picture of the
    scene.
    """
    pictures = {"photo": show_masks(with_masks_of(example, scene))}
    if any(len(thing.mesh.faces) for thing in scene):
        pictures["preview"] = contact_sheet(example, scene, size=size)
    return {
        name: write_file(
            folder / f"{name}.png", encode_png(np.asarray(picture)), overwrite=overwrite
        )
        for name, picture in pictures.items()
    }
