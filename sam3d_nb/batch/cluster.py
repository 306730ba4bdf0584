"""Objects on the GPUs and machines of a Ray cluster: one model each, a few objects in flight."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from sam3d_nb.batch.engine import Engine, Job, Load, Outcome
from sam3d_nb.batch.inputs import read_photo
from sam3d_nb.batch.make import Made, one_line
from sam3d_nb.batch.settings import Identity, Settings, check_number
from sam3d_nb.batch.worker import Worker
from sam3d_nb.errors import InputError, Sam3dError
from sam3d_nb.pipeline import Model
from sam3d_nb.work.stop import CleanStop

IN_FLIGHT = 2
"""Objects a worker has at most: the one that it makes, and the next."""
TICK = 0.2
"""Seconds after which a signal is noticed at the latest."""
PATIENCE = 600.0
"""Seconds without a worker that is ready until the batch gives up."""
MAX_FALSE_STARTS = 3
"""Workers in a row that may die before they are ready."""


@dataclass(frozen=True)
class _Sent:
    """A job that a worker has. ref: of its result; photo: keeps the files where they are."""

    job: Job
    ref: Any
    photo: Any


@dataclass(eq=False)
class _Slot:
    """A worker. started: the reference of its first answer; label: set once that has come."""

    actor: Any
    started: Any
    label: str = ""
    queue: deque[_Sent] = field(default_factory=deque)

    def awaited(self) -> Any:
        """Return the reference of the next answer, None where there is nothing to wait for."""
        if not self.label:
            return self.started
        return self.queue[0].ref if self.queue else None


class RayEngine(Engine):
    """Makes objects on Ray, on as many workers as there are GPUs, or as are asked for.

    A worker that dies is replaced. The object that it was making is tried again, `retries` times
    at most; where it had two, each is tried alone, so that none pays for the other. Files are read
    and written here alone: a worker needs no shared folder.

    Raises InputError where Ray is not installed, no cluster answers at `address`, there are fewer
    GPUs than `workers`, or two workers have different models.
    """

    name = "ray"

    def __init__(
        self,
        load: Load | Model,
        settings: Settings,
        retries: int,
        stop: CleanStop,
        workers: int | None = None,
        address: str | None = None,
        device: str = "auto",
    ) -> None:
        if isinstance(load, Model):
            raise InputError(
                f"{load.name} is loaded already, but each worker of a cluster loads its own: give "
                "its name, or a function that loads it"
            )
        if workers is not None:
            check_number("workers", workers, 1)
        self._load, self._settings = load, settings
        self._retries, self._stop = retries, stop
        self._asked, self._address, self._device = workers, address, device
        self._slots: list[_Slot] = []
        self._again: deque[Job] = deque()
        self._suspects: set[str] = set()  # stems of jobs that a worker has alone
        self._unread: deque[Outcome] = deque()
        self._latest: tuple[Path, str, Any] | None = None
        self._photos = self._false_starts = 0
        self._known: Identity | None = None
        self._own = self._exhausted = False

    def __enter__(self) -> RayEngine:
        self._ray = _import_ray()
        try:
            self._connect()
            gpus = self._count_gpus()
            self.workers = self._count_workers(gpus)
            self._actor = self._ray.remote(
                num_cpus=1, num_gpus=int(gpus > 0), max_restarts=0, scheduling_strategy="SPREAD"
            )(Worker)
            self._slots = [self._hire() for _ in range(self.workers)]
            self._ready_at = monotonic()
            while self._known is None:
                for slot in self._answered():
                    self._welcome(slot)
        except BaseException:
            self.close()
            raise
        return self

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it comes, not in their order."""
        source = iter(jobs)
        self._exhausted = False
        while True:
            self._fill(source)
            while self._unread:
                yield self._unread.popleft()
            if self._exhausted and not self._again and not any(s.queue for s in self._slots):
                return
            for slot in self._answered():
                if not slot.label:
                    self._welcome(slot)
                    continue
                outcome = self._receive(slot)
                if outcome is not None:
                    yield outcome

    def close(self) -> None:
        """Dismiss the workers, and end Ray if it was started here."""
        if not self._ray.is_initialized():
            return
        for slot in self._slots:
            self._ray.kill(slot.actor)
        self._slots.clear()
        self._latest = None
        if self._own:
            self._ray.shutdown()

    # Ray and its workers

    def _connect(self) -> None:
        """Use the Ray of this process, join a cluster, or start one on this machine."""
        if self._ray.is_initialized():
            return
        self._own = True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        address = self._address or os.environ.get("RAY_ADDRESS")
        place = {"address": address or "local"}
        alone = {} if address else {"include_dashboard": False}
        on_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(**place, **alone, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"Ray cannot be used at {address or 'this machine'}: {one_line(str(error))}"
            ) from error
        finally:
            if on_main:
                signal.signal(signal.SIGTERM, before)  # Ray takes it, but the batch stops cleanly

    def _count_gpus(self) -> int:
        if self._device not in ("auto", "cuda"):
            return 0
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if self._device == "cuda" and not gpus:
            raise InputError("the Ray cluster has no GPU; give device='cpu', or add machines")
        return gpus

    def _count_workers(self, gpus: int) -> int:
        machines = sum(node["Alive"] for node in self._ray.nodes())
        if self._asked is None:
            return gpus or machines
        most = gpus or int(self._ray.cluster_resources().get("CPU", 0))
        if self._asked > most:
            what = "GPUs" if gpus else "CPUs"
            raise InputError(
                f"{self._asked} workers need a {what[:-1]} each, but the Ray cluster has {most} "
                f"{what}"
            )
        return self._asked

    def _hire(self) -> _Slot:
        import torch

        actor = self._actor.remote(self._load, self._settings, torch.get_num_threads())
        return _Slot(actor, actor.start.remote())

    def _replace(self, slot: _Slot) -> None:
        self._ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._hire()

    def _answered(self) -> list[_Slot]:
        """Return workers that have something to tell, after `TICK` none at all."""
        waiting = {slot.awaited(): slot for slot in self._slots if slot.awaited() is not None}
        ready, _ = self._ray.wait(list(waiting), timeout=TICK)
        self._stop.check()
        if any(slot.label for slot in self._slots):
            self._ready_at = monotonic()
        elif monotonic() - self._ready_at > PATIENCE:
            raise Sam3dError(
                f"no worker was ready within {PATIENCE:.0f} s; `ray status` shows what is missing"
            )
        return [waiting[ref] for ref in ready]

    def _welcome(self, slot: _Slot) -> None:
        """Take the first answer of a worker: it is ready, or was none."""
        try:
            identity, label = self._ray.get(slot.started)
        except self._ray.exceptions.RayTaskError as error:
            _raise_cause(error)
        except self._ray.exceptions.RayError as error:
            self._false_starts += 1
            if self._false_starts > MAX_FALSE_STARTS:
                reason = one_line(str(error))
                raise Sam3dError(f"workers die before they are ready: {reason}") from error
            self._replace(slot)
            return
        self._false_starts = 0
        if self._known is None:
            self._known = self.identity = identity
        elif identity.deciding() != self._known.deciding():
            raise InputError(
                f"the worker {label} would make other objects, by {identity.deciding()}, than the "
                f"first one, by {self._known.deciding()}; give all machines the same version and "
                "weights"
            )
        slot.label = label

    # Objects

    def _fill(self, source: Iterator[Job]) -> None:
        """Give jobs to workers that have room, the least busy one first."""
        while True:
            free = [slot for slot in self._slots if self._has_room(slot)]
            if not free:
                return
            job = self._again.popleft() if self._again else next(source, None)
            if job is None:
                self._exhausted = True
                return
            slot = min(free, key=lambda slot: len(slot.queue))
            if slot.queue and job.stem in self._suspects:
                self._again.appendleft(job)
                return
            self._send(slot, job)

    def _has_room(self, slot: _Slot) -> bool:
        alone = any(sent.job.stem in self._suspects for sent in slot.queue)
        return bool(slot.label) and len(slot.queue) < IN_FLIGHT and not alone

    def _send(self, slot: _Slot, job: Job) -> None:
        try:
            token, photo = self._put(job.item.path)
        except InputError as error:
            failed = Made(error="InputError", reason=one_line(str(error)))
            self._unread.append(Outcome(replace(job, attempts=job.attempts + 1), failed, ""))
            return
        ref = slot.actor.make.remote(token, [photo], job.item.mask, job.stem)
        slot.queue.append(_Sent(job, ref, photo))

    def _put(self, path: Path) -> tuple[str, Any]:
        """Return the name and the reference of a photo's files; those of the latest stay."""
        if self._latest is None or self._latest[0] != path:
            self._photos += 1
            self._latest = path, str(self._photos), self._ray.put(read_photo(path))
        return self._latest[1:]

    def _receive(self, slot: _Slot) -> Outcome | None:
        """Take the result of the first job of a worker; None where it is tried again."""
        try:
            made: Made = self._ray.get(slot.queue[0].ref)
        except self._ray.exceptions.RayTaskError as error:
            _raise_cause(error)
        except self._ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[0]
            made = Made(error="WorkerDied", reason=f"its worker died: {why}", transient=True)
            self._replace(slot)
            if len(slot.queue) > 1:  # the first may be done, and its result lost with the worker
                self._suspects.update(sent.job.stem for sent in slot.queue)
                self._again.extendleft(sent.job for sent in reversed(slot.queue))
                return None
        job = slot.queue.popleft().job
        job = replace(job, attempts=job.attempts + 1)
        if made.transient and job.attempts <= self._retries:
            self._again.append(job)
            return None
        return Outcome(job, made, slot.label)


def _raise_cause(error: Any) -> Any:
    """Raise what a worker raised as itself if it is ours, with its place if nobody expected it."""
    cause = error.cause
    raise cause if isinstance(cause, Sam3dError) else error


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError(
            'the engine ray needs the package ray; install it by pip install "sam3d_nb[cluster]"'
        ) from error
    return ray
