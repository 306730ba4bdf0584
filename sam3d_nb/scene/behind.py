"""Keeping objects on disk while the next one is made."""

from __future__ import annotations

import warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import fields, replace
from types import TracebackType
from typing import TypeVar

import numpy as np

from sam3d_nb.errors import OutputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene.keep import Keep
from sam3d_nb.splats import Gaussians

Arrays = TypeVar("Arrays", Mesh, Gaussians)


class Behind:
    """Writes objects into a `Keep` in a thread, at most one at a time. Use it in a `with` block.

    When the block is left, by whatever way, all objects that were put are on disk. One that could
    not be written raises OutputError from the next call of `check`, `put_object` or `wait`, at the
    latest where the block ends; where another exception ends it, that one goes on, and a warning
    says what is not kept.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._pool = ThreadPoolExecutor(1)
        self._key = ""
        self._task: Future[None] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except OutputError as failed:
            if error is None:
                raise
            warnings.warn(f"the latest object is not kept: {failed}", stacklevel=2)
        finally:
            self._pool.shutdown(wait=False)

    def put_object(self, key: str, made: Object3D) -> None:
        """Begin to write `made` under `key`, once the one before is on disk.

        What is written is `made` as it is now: whoever has it may change it from here on.
        """
        self.wait()
        self._key, self._task = key, self._pool.submit(self._keep.put_object, key, _copied(made))

    def get_object(self, key: str) -> Object3D | None:
        """Return what `Keep.get_object` does, or what is just being written."""
        if key == self._key:
            self.wait()
        return self._keep.get_object(key)

    def check(self) -> None:
        """Raise OutputError if an object could not be written; does not wait."""
        if self._task is not None and self._task.done():
            self.wait()

    def wait(self) -> None:
        """Return when all objects are on disk; raises OutputError if one could not be written."""
        if self._task is not None:
            wait([self._task])  # may be interrupted, and then begun again
            task, self._task = self._task, None
            error = task.exception()
            if error is None or isinstance(error, OutputError):
                task.result()
            else:
                folder = self._keep.folder
                raise OutputError(f"an object cannot be kept in {folder}: {error!r}") from error


def _copied(made: Object3D) -> Object3D:
    """Return an object with arrays, timings and settings of its own."""
    gaussians = None if made.gaussians is None else _with_own_arrays(made.gaussians)
    intrinsics = None if made.intrinsics is None else made.intrinsics.copy()
    mesh = _with_own_arrays(made.mesh)
    about = made.provenance
    about = replace(about, timings=dict(about.timings), settings=dict(about.settings))
    return replace(made, mesh=mesh, gaussians=gaussians, intrinsics=intrinsics, provenance=about)


def _with_own_arrays(holder: Arrays) -> Arrays:
    arrays = {field.name: getattr(holder, field.name) for field in fields(holder)}
    copies = {name: a.copy() for name, a in arrays.items() if isinstance(a, np.ndarray)}
    return replace(holder, **copies)
