"""Reconstruct every mask of every photo: what is done is kept, what fails is told."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from sam3d_nb.batch.engine import Engine, Job, Load, LocalEngine, Outcome, loader
from sam3d_nb.batch.folder import BatchFolder, Record, stem
from sam3d_nb.batch.make import Made, one_line
from sam3d_nb.batch.results import Batch
from sam3d_nb.batch.settings import Settings, check_number, object_key
from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.machine import hardware, versions
from sam3d_nb.mesh.finish import AS_MADE, Finishing
from sam3d_nb.pipeline import Model
from sam3d_nb.work.inputs import InputHashes
from sam3d_nb.work.items import Images, Item, list_work
from sam3d_nb.work.stop import CleanStop

ENGINES = ("local", "ray")
OnProgress = Callable[[int, int, str], None]


def reconstruct_batch(
    images_dir: Images = None,
    output_dir: str | Path = "output/batch",
    model: str | Model | Load | None = None,
    *,
    formats: tuple[str, ...] = ("glb",),
    finishing: Finishing = AS_MADE,
    seed: int = 0,
    device: str = "auto",
    memory: str = "auto",
    options: Mapping[str, Any] | None = None,
    retries: int = 2,
    overwrite: bool = False,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    on_progress: OnProgress | None = None,
) -> Batch:
    """Reconstruct every mask of every photo into `output_dir`, and go on where a run stopped.

    images_dir: see `list_work`. model: a name, a model that is loaded, or a function that loads
    one; by default the best that is ready, on `device` under the plan `memory`. formats: of the
    meshes. finishing: what is done with each mesh before it is written. options: what else
    `reconstruct` of the model takes. retries: how often an object is tried again after memory ran
    out or its worker died; other failures are final. overwrite: replace objects in `output_dir` of
    other inputs or settings. on_progress: called with objects that are dealt with, their total, and
    the latest one's name.

    engine: `local` makes one object after another; `ray` as many at once as there are `workers`,
    by default one for each GPU of the Ray cluster at `ray_address`, or one for each machine where
    no GPU is used; without an address Ray is started on this machine. The files are the same.

    An object is finished when its files and its record in `manifest.jsonl` are on disk. It is
    skipped by later runs with the same inputs, seed, model, options, formats and finishing. An
    object that fails has a record that says why, the others go on, and the next run tries it again.

    Raises InputError for bad arguments, OutputError where `output_dir` cannot be written or holds
    objects of other inputs or settings, WeightsError. A KeyboardInterrupt, or SIGTERM, ends the
    work and leaves whole files.
    """
    settings = Settings(seed, tuple(formats), dict(options or {}), finishing)
    check_number("retries", retries, 0)
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r}; choose from {', '.join(ENGINES)}")
    if engine == "local" and (workers is not None or ray_address is not None):
        raise InputError("workers and ray_address are about Ray; they need engine='ray'")
    items = list_work(images_dir)
    load = loader(model, device, memory)
    with CleanStop() as stop, BatchFolder(output_dir) as folder:
        made_by: Engine
        if engine == "ray":
            from sam3d_nb.batch.cluster import RayEngine

            made_by = RayEngine(load, settings, retries, stop, workers, ray_address, device)
        else:
            made_by = LocalEngine(load, settings, retries, stop)
        with made_by:
            work = _Run(made_by, settings, folder, stop, overwrite, on_progress)
            return work.go(items)


class _Run:
    """The work of one call of `reconstruct_batch`."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        folder: BatchFolder,
        stop: CleanStop,
        overwrite: bool,
        on_progress: OnProgress | None,
    ) -> None:
        self.engine, self.settings, self.folder, self.stop = engine, settings, folder, stop
        self.overwrite, self.on_progress = overwrite, on_progress
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.objects: list[Record] = []
        self.hashes = InputHashes()

    def go(self, items: Sequence[Item]) -> Batch:
        """Make what is not made yet; the manifest says at once what became of each object."""
        start, ended = perf_counter(), "stopped by an error"
        skipped = self._find_made(items)
        head = self._header(len(items))
        self.folder.append(head)
        try:
            for item, key in skipped.items():
                self._skip(item, key, len(items))
            todo = [item for item in items if item not in skipped]
            for outcome in self.engine.run(self._jobs(todo, len(items))):
                self._keep(outcome, len(items))
            ended = "complete"
        except KeyboardInterrupt as stop:
            ended = "interrupted"
            dealt = sum(record["status"] != "failed" for record in self.objects)
            kept = f"{dealt} of {len(items)} objects are done"
            raise KeyboardInterrupt(
                f"interrupted; {kept}, the same command goes on there"
            ) from stop
        except Exception as error:
            ended = f"{type(error).__name__}: {one_line(str(error))}"
            raise
        finally:
            seconds = perf_counter() - start
            self.folder.append(self._end(ended, seconds, len(items)))
        order = {(item.image, item.mask): number for number, item in enumerate(items)}
        self.objects.sort(key=lambda record: order[record["image"], record["mask"]])
        return Batch(self.folder.path, head, tuple(self.objects), seconds)

    def _find_made(self, items: Sequence[Item]) -> dict[Item, str]:
        """Return the keys of what is made already; raises OutputError for what is in the way."""
        found: dict[Item, str] = {}
        for item in items:
            self.stop.check()
            stranger = self.folder.stranger(item, self.settings.formats)
            if stranger is not None and not self.overwrite:
                raise OutputError(
                    f"{stranger} is there and not of a batch; choose another folder, or overwrite"
                )
            record = self.folder.made(item)
            if record is None:
                continue
            try:
                key = self._key(item)
            except InputError:
                continue  # told when it is tried
            if record["key"] == key:
                found[item] = key
            elif not self.overwrite:
                raise OutputError(
                    f"{self.folder.path} holds {item.name}, made from other inputs or with another "
                    "seed, model, option, format or finishing; choose another folder, or overwrite"
                )
        return found

    def _key(self, item: Item) -> str:
        return object_key(self.engine.identity, self.settings, self.hashes.of(item))

    def _jobs(self, todo: Sequence[Item], total: int) -> Iterator[Job]:
        for item in todo:
            try:
                key = self._key(item)
            except InputError as error:
                made = Made(error="InputError", reason=one_line(str(error)))
                self._keep(Outcome(Job(item, "", stem(item), 1), made, ""), total)
                continue
            yield Job(item, key, stem(item))

    def _skip(self, item: Item, key: str, total: int) -> None:
        earlier = self.folder.made(item) or {}
        about = {"key": key, "name": earlier.get("name", ""), "files": earlier.get("files", [])}
        reason = f"made by run {earlier.get('run', '')}"
        self._record(item, "skipped", total, **about, reason=reason)

    def _keep(self, outcome: Outcome, total: int) -> None:
        """Write the files of an object and its record, in this order."""
        made, job = outcome.made, outcome.job
        about: Record = {
            "key": job.key,
            "name": made.name,
            "attempts": job.attempts,
            "seconds": round(made.seconds, 4),
            "stages": made.stages,
            "worker": outcome.worker,
            "warnings": list(made.warnings),
            "error": made.error,
            "reason": made.reason,
        }
        if made.error:
            about |= {"files": []} | ({"trace": made.trace} if made.trace else {})
            self._record(job.item, "failed", total, **about)
            return
        files = self.folder.put(job.item, made.contents)
        self._record(job.item, "done", total, **about, files=files)

    def _record(self, item: Item, status: str, total: int, **about: Any) -> None:
        head = {"kind": "object", "run": self.id, "status": status, "date": _now()}
        record = {**head, "image": item.image, "mask": item.mask, **about}
        self.folder.append(record)
        self.objects.append(record)
        if self.on_progress is not None:
            self.on_progress(len(self.objects), total, item.name)

    def _header(self, total: int) -> Record:
        return {
            "kind": "run",
            "run": self.id,
            "date": _now(),
            "objects": total,
            "identity": self.engine.identity.deciding(),
            "device": self.engine.identity.device,
            "seed": self.settings.seed,
            "formats": list(self.settings.formats),
            "finishing": asdict(self.settings.finishing),
            "options": {name: _plain(value) for name, value in self.settings.options.items()},
            "engine": self.engine.name,
            "workers": self.engine.workers,
            "hardware": hardware(),
            "versions": versions(),
        }

    def _end(self, ended: str, seconds: float, total: int) -> Record:
        counts = {
            status: sum(record["status"] == status for record in self.objects)
            for status in ("done", "failed", "skipped")
        }
        left = total - len(self.objects)
        head = {"kind": "end", "run": self.id, "date": _now(), "ended": ended}
        return {**head, **counts, "left": left, "seconds": round(seconds, 3)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    known = isinstance(value, str | int | float | bool | type(None))
    return list(value) if isinstance(value, tuple) else value if known else str(value)
