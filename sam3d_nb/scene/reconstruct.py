"""One photo and many masks to a scene: objects one after another, as a stream of events."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.errors import InputError, OutputError, WeightsError
from sam3d_nb.events import (
    DepthEvent,
    DoneEvent,
    Event,
    ObjectDoneEvent,
    ObjectEvent,
    ObjectFailedEvent,
    SceneDoneEvent,
    SceneEvent,
)
from sam3d_nb.examples import Example
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model
from sam3d_nb.request import Request, make_request, resolve_request
from sam3d_nb.scene.behind import Behind
from sam3d_nb.scene.failures import failure_of, raise_all_failed
from sam3d_nb.scene.keep import Keep, Keys
from sam3d_nb.scene.realign import check_method
from sam3d_nb.scene.scene import Failure, Scene

Masks = Sequence[int | np.ndarray] | Mapping[int, np.ndarray] | np.ndarray | int
Place = tuple[float, int, int, str]
"""What `SceneEvent` takes: fraction, number, count, name."""
FOR_ALL = (WeightsError, OutputError)
"""Errors that the next object would have too."""


@dataclass(frozen=True, eq=False)
class Job:
    """One object to make: its mask, or the index of one in the example."""

    mask: np.ndarray | int
    name: str
    mask_index: int | None


def stream_scene(
    model: Model,
    image: np.ndarray | Example,
    masks: Masks | None = None,
    *,
    pointmap: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    seed: int = 0,
    realign: str = "none",
    save_dir: str | Path | None = None,
    resume: bool = True,
    **options: Any,
) -> Generator[Event, None, Scene]:
    """Return the events of `Model.reconstruct_scene` one by one; the last one holds the scene.

    Closing the stream ends the work; finished objects stay in `save_dir`. They are written while
    the next one is made, so when an `ObjectDoneEvent` comes, only the objects before it are sure to
    be on disk; when the stream is over, closed or ended by an error, all of them are. Raises what
    `reconstruct_scene` does, bad input at once.
    """
    check_method(realign)
    decided = model.deciding(**options)
    jobs = list_jobs(image, masks)
    photo = image.image if isinstance(image, Example) else image
    if isinstance(image, Example):
        pointmap = image.pointmap if pointmap is None else pointmap
        intrinsics = image.intrinsics if intrinsics is None else intrinsics
    everything = np.ones(np.shape(photo)[:2], dtype=bool)
    shared = make_request(photo, everything, pointmap, intrinsics, seed)
    keep = None if save_dir is None else Keep(save_dir, resume=resume)
    keys = None if keep is None else Keys(model, decided, shared)
    return _Work(model, image, shared, options, keep, keys).run(jobs, realign)


def list_jobs(image: np.ndarray | Example, masks: Masks | None) -> list[Job]:
    """Return what to make; raises InputError for no mask, an unknown index, or one given twice."""
    if masks is None:
        if not isinstance(image, Example):
            raise InputError("a photo without an example needs masks: a list of arrays (H, W)")
        masks = list(image.masks)
    if isinstance(masks, int | np.integer) or (isinstance(masks, np.ndarray) and masks.ndim == 2):
        masks = [masks]
    if isinstance(masks, Mapping):
        jobs = [Job(mask, _name(image, index), index) for index, mask in masks.items()]
    else:
        jobs = [_job(image, mask, place) for place, mask in enumerate(masks)]
    if not jobs:
        raise InputError("there is no mask, so there is no object; save one as 0.png by the photo")
    known = [job.mask_index for job in jobs if job.mask_index is not None]
    twice = sorted({index for index in known if known.count(index) > 1})
    if twice:
        raise InputError(f"mask {twice[0]} is given twice")
    return jobs


def _job(image: np.ndarray | Example, mask: int | np.ndarray, place: int) -> Job:
    if isinstance(mask, bool) or not isinstance(mask, int | np.integer):
        return Job(mask, f"object {place}", None)
    index = int(mask)
    if not isinstance(image, Example):
        raise InputError(
            f"mask index {index} needs an example, which load_example gives, but the image is of "
            f"type {type(image).__name__}"
        )
    if index not in image.masks:
        image.mask(index)  # says which exist
    return Job(index, image.names[index], index)


def _name(image: np.ndarray | Example, index: int) -> str:
    names = image.names if isinstance(image, Example) else {}
    return names.get(index, f"object {index}")


class _Work:
    """Makes the objects of one photo.

    shared: the request of all objects, but for the mask. keep, keys: where finished ones go, and
    under which names, or None.
    """

    def __init__(
        self,
        model: Model,
        image: np.ndarray | Example,
        shared: Request,
        options: dict[str, Any],
        keep: Keep | None,
        keys: Keys | None,
    ) -> None:
        self.model = model
        self.image = image
        self.shared = shared
        self.options = options
        self.keep = keep
        self.keys = keys
        self.pointmap = shared.pointmap

    def run(self, jobs: list[Job], realign: str) -> Generator[Event, None, Scene]:
        """Yield the events of all objects and of the scene; return the scene."""
        with nullcontext() if self.keep is None else Behind(self.keep) as behind:
            objects, failures = yield from self._objects(jobs, behind)
        if not objects:
            raise_all_failed(failures)
        if self.pointmap is None and self.keep is not None and self.keys is not None:
            self.pointmap = self.keep.get_pointmap(self.keys.pointmap())
        given = objects[0].intrinsics
        scene = Scene(
            tuple(objects),
            tuple(failures),
            intrinsics=self.shared.intrinsics if given is None else given,
            size=self.shared.mask.shape,
            pointmap=self.pointmap,
        ).realigned(realign)
        yield SceneDoneEvent(1.0, scene)
        return scene

    def _objects(
        self, jobs: list[Job], behind: Behind | None
    ) -> Generator[Event, None, tuple[list[Object3D], list[Failure]]]:
        """Yield the events of all objects; return them, and those that failed."""
        options = self.options | self.model.shared()
        objects: list[Object3D] = []
        failures: list[Failure] = []
        for number, job in enumerate(jobs, start=1):
            before = ((number - 1) / len(jobs), number, len(jobs), job.name)
            place = (number / len(jobs), number, len(jobs), job.name)
            yield SceneEvent(*before)
            try:
                made, resumed = yield from self._object(job, before, options, behind)
            except FOR_ALL:
                raise
            except Exception as error:
                failures.append(failure_of(job.name, job.mask_index, error))
                yield ObjectFailedEvent(*place, failure=failures[-1])
            else:
                objects.append(made)
                yield ObjectDoneEvent(*place, result=made, resumed=resumed)
        return objects, failures

    def _object(
        self, job: Job, place: Place, options: dict[str, Any], behind: Behind | None
    ) -> Generator[Event, None, tuple[Object3D, bool]]:
        """Yield the events of one object; return it, and whether it was kept by an earlier run."""
        key = self._key(job)
        kept = None if behind is None else behind.get_object(key)
        if kept is not None:
            return _labeled(kept, job), True
        stream = self.model.stream(
            self.image,
            job.mask,
            pointmap=self.shared.pointmap,
            intrinsics=self.shared.intrinsics,
            seed=self.shared.seed,
            **options,
        )
        made = _labeled((yield from self._passed_on(stream, place, behind)), job)
        if behind is not None:
            behind.put_object(key, made)
        return made, False

    def _key(self, job: Job) -> str:
        """Return the name that the object is kept under; raises InputError for a bad mask."""
        if self.keys is None:
            return ""
        # The point map, large and the same for all, is in the keys already.
        photo = self.image
        if isinstance(photo, Example):
            photo = replace(photo, pointmap=None)
        camera, seed = self.shared.intrinsics, self.shared.seed
        return self.keys.object(resolve_request(photo, job.mask, None, camera, seed))

    def _passed_on(
        self, stream: Generator[Event, None, Object3D], place: Place, behind: Behind | None
    ) -> Generator[Event, None, Object3D]:
        """Yield the events of one object as those of a scene; return the object."""
        with closing(stream):
            while True:
                try:
                    event = next(stream)
                except StopIteration as stop:
                    return stop.value
                if isinstance(event, DepthEvent):
                    self._note_pointmap(event)
                if behind is not None:
                    behind.check()
                if not isinstance(event, DoneEvent):
                    yield ObjectEvent(*place, inner=event)

    def _note_pointmap(self, event: DepthEvent) -> None:
        """Remember the point map that the model estimated, also for later runs."""
        if self.pointmap is None and event.pointmap is not None:
            self.pointmap = event.pointmap
            if self.keep is not None and self.keys is not None:
                self.keep.put_pointmap(self.keys.pointmap(), event.pointmap)


def _labeled(made: Object3D, job: Job) -> Object3D:
    """Return `made` under the name and the mask index of its job."""
    provenance = replace(made.provenance, mask_index=job.mask_index)
    return replace(made, name=job.name, provenance=provenance)
