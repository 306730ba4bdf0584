"""What makes the objects of a batch: here one after another, elsewhere at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from sam3d_nb.batch.make import Made, Maker
from sam3d_nb.batch.settings import Identity, Settings, identify
from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, FinishingEvent
from sam3d_nb.pipeline import Model
from sam3d_nb.work.items import Item
from sam3d_nb.work.stop import CleanStop
from sam3d_nb.zoo import load_model

Load = Callable[[], Model]


@dataclass(frozen=True)
class Job:
    """One object to make. stem: what its files are named after; attempts: tries until now."""

    item: Item
    key: str
    stem: str
    attempts: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a job, after as many tries as it took. worker: who made the last one."""

    job: Job
    made: Made
    worker: str


class Engine(ABC):
    """Makes objects. Use it in a `with` block, which frees what it holds.

    identity: of its models, known within the block. workers: how many objects are made at once.
    """

    name: str
    identity: Identity
    workers: int = 1

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as soon as it is known.

        Jobs are taken when there is a worker for them, not before. Raises what all objects would
        fail by, and KeyboardInterrupt once a signal has come.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds; what is not yielded yet is lost."""


class LocalEngine(Engine):
    """Makes one object after another in this process."""

    name = "local"

    def __init__(
        self, load: Load | Model, settings: Settings, retries: int, stop: CleanStop
    ) -> None:
        self._load, self._settings = load, settings
        self._retries, self._stop = retries, stop

    def __enter__(self) -> LocalEngine:
        model = self._load if isinstance(self._load, Model) else self._load()
        self.identity = identify(model, self._settings)
        self._maker = Maker(model, self._settings)
        self._stop.check()
        return self

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job in their order; a signal ends a try at its next event.

        While a mesh is finished it ends the try at once.
        """
        for job in jobs:
            while True:
                self._stop.check()
                job = replace(job, attempts=job.attempts + 1)
                made = self._make(job)
                if not (made.transient and job.attempts <= self._retries):
                    break
            yield Outcome(job, made, "local")

    def close(self) -> None:
        """Let go of the latest photo; the model is the caller's or the zoo's."""
        self._maker.forget()

    def _make(self, job: Job) -> Made:
        try:
            return self._maker.make(job.item.path, job.item.mask, job.stem, self._check)
        finally:
            self._stop.waits = True

    def _check(self, event: Event) -> None:
        self._stop.check()
        self._stop.waits = not (isinstance(event, FinishingEvent) and event.fraction < 1)


def loader(model: str | Model | Load | None, device: str, memory: str) -> Load | Model:
    """Return what makes the model, or the model; raises InputError for anything else."""
    if isinstance(model, Model) or callable(model):
        return model
    if model is None or isinstance(model, str):
        return _Named(model, device, memory)
    raise InputError(f"a model is a name, a model or a function that loads one: {model!r}")


@dataclass(frozen=True)
class _Named:
    """Loads a model by its name; can be sent to another process."""

    model: str | None
    device: str
    memory: str

    def __call__(self) -> Model:
        return load_model(self.model, self.device, self.memory)
