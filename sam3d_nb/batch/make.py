"""One object from files to files, in memory: what every engine does, here or on another machine."""

from __future__ import annotations

import gc
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from sam3d_nb.batch.settings import Settings
from sam3d_nb.errors import OutputError, ReconstructionError, WeightsError, explain
from sam3d_nb.events import OnEvent
from sam3d_nb.examples import Example, load_example
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model, finish

FOR_ALL = (WeightsError, OutputError)
"""Errors that every other object would have too: they end the batch."""


@dataclass(frozen=True)
class Made:
    """One try at an object. seconds: from its files to its results; stages: those of the model.

    contents: the files by name, empty where it failed; then `error` is the kind, `reason` says
    why, `trace` is there for what nobody expected, and `transient` tells whether another try may
    succeed.
    """

    name: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str = ""
    reason: str = ""
    trace: str = ""
    transient: bool = False


class Maker:
    """Makes objects with one model, photo by photo: what all objects of a photo share, once."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self._photo: Path | None = None
        self._example: Example | None = None
        self._shared: dict[str, Any] = {}

    def make(self, photo: Path, mask: int, stem: str, on_event: OnEvent | None = None) -> Made:
        """Return the files of one object, named after `stem`, or why there are none.

        Raises `FOR_ALL`, and what `on_event` raises if that is no `Exception`.
        """
        start = perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = self._reconstruct(photo, mask, on_event)
                contents = encode(result, stem, self.settings.formats)
                stages = {k: round(v, 4) for k, v in result.provenance.timings.items()}
                made = Made(result.name, contents, stages=stages)
            except FOR_ALL:
                raise
            except Exception as error:
                made = self._failed(error)
        texts = tuple(dict.fromkeys(one_line(str(each.message)) for each in caught))
        seconds = perf_counter() - start
        return Made(**vars(made) | {"seconds": seconds, "warnings": texts})

    def _reconstruct(self, photo: Path, mask: int, on_event: OnEvent | None) -> Object3D:
        if photo != self._photo or self._example is None:
            self.forget()
            self._example, self._photo = load_example(photo), photo
            self._shared = self.model.shared()
        options = {**self.settings.options, **self._shared}
        seed = self.settings.seed
        made = finish(self.model.stream(self._example, mask, seed=seed, **options), on_event)
        return self.settings.finishing.apply(made, on_event)

    def forget(self) -> None:
        """Let go of the photo that the latest object came from."""
        self._photo, self._example, self._shared = None, None, {}

    def _failed(self, error: Exception) -> Made:
        from sam3d_nb.engine.memory import is_out_of_memory

        kind = type(error).__name__
        if is_out_of_memory(error):
            self._free(error)
            reason = one_line(str(error)) or "memory ran out"
            return Made(error=kind, reason=reason, transient=True)
        reason, trace = explain(error)
        return Made(error=kind, reason=one_line(reason), trace=trace)

    def _free(self, error: Exception) -> None:
        """Give back what a next try needs."""
        traceback.clear_frames(error.__traceback__)
        self.forget()
        release: Callable[[], None] | None = getattr(self.model, "release", None)
        if release is not None:
            release()
        gc.collect()


def encode(result: Object3D, stem: str, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of an object by name: its mesh in each format, and gaussians if it has any.

    They are the files that `reconstruct_to_folder` writes, byte for byte. Raises
    ReconstructionError where the object has neither triangles nor gaussians.
    """
    if not len(result.mesh.faces) and result.gaussians is None:
        raise ReconstructionError(f"{result.name!r} came out without triangles and gaussians")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if len(result.mesh.faces):
            for kind in formats:
                result.save(folder / f"{stem}.{kind}")
        if result.gaussians is not None:
            result.save_splats(folder / f"{stem}_gaussians.ply")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def one_line(text: str) -> str:
    """Return `text` with single spaces in place of line breaks."""
    return " ".join(text.split())
