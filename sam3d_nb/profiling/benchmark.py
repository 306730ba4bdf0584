"""The published benchmark: every mask of every photo, a few runs each, a row on disk at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sam3d_nb.errors import OutputError, ReconstructionError, Sam3dError
from sam3d_nb.events import Event, OnEvent
from sam3d_nb.examples import Example, load_example
from sam3d_nb.files import write_file
from sam3d_nb.machine import clocks
from sam3d_nb.pipeline import Model
from sam3d_nb.profiling.folder import (
    BY_STAGE,
    PROFILES,
    SCENES,
    SUMMARY,
    BenchmarkFolder,
    hash_scene,
    latest,
)
from sam3d_nb.profiling.header import make_header
from sam3d_nb.profiling.measure import Schedule, measure_run
from sam3d_nb.profiling.record import Row, SceneRow
from sam3d_nb.profiling.results import Results
from sam3d_nb.profiling.subject import Load, Subject
from sam3d_nb.profiling.trace import profile_run
from sam3d_nb.runs import plain_name
from sam3d_nb.work.inputs import InputHashes
from sam3d_nb.work.items import Images, Item, list_work
from sam3d_nb.work.stop import CleanStop

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how. options: what else `reconstruct` of the model takes."""

    schedule: Schedule
    use_inference_cache: bool
    use_pointmaps: bool
    measure_scenes: bool
    save_profile_summary: bool
    seed: int
    options: Mapping[str, Any]

    def configuration(self) -> dict[str, Any]:
        """Return all that times depend on, as JSON has it."""
        return {
            **vars(self.schedule),
            "use_inference_cache": self.use_inference_cache,
            "use_pointmaps": self.use_pointmaps,
            "seed": self.seed,
            "options": {name: _plain(value) for name, value in self.options.items()},
        }


def benchmark(
    images_dir: Images = None,
    output_dir: str | Path | None = None,
    model: str | Model | Load | None = None,
    *,
    use_inference_cache: bool = False,
    save_profile_summary: bool = False,
    wait: int = 0,
    warmup: int = 1,
    active: int = 3,
    seed: int = 0,
    device: str = "auto",
    memory: str = "auto",
    use_pointmaps: bool = True,
    measure_scenes: bool = False,
    masks_per_photo: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Results:
    """Time a model on every mask of every photo by the published method.

    A run goes from an idle device to an object in the host's memory, files not included; without
    `use_inference_cache` every run loads the model as well, as published, and releases it after: a
    model of the same name that you hold, and one that your function gives again, loses its place
    on the device as well. `wait`, `warmup`, `active`: see `Schedule`.

    images_dir, masks_per_photo: see `list_work`. model: a name, a model that is loaded, or a
    function that loads one; by default the best that is ready, on `device` under the plan
    `memory`. use_pointmaps: give the model the point maps of the examples, else it has to estimate
    them. measure_scenes: also time all objects of each photo as a scene. save_profile_summary:
    profile one more run of every object with `torch.profiler`; needs an `output_dir`. options:
    what else `reconstruct` of the model takes. on_progress: called with objects done, their total,
    and what comes next.

    With `output_dir` every row is on disk as soon as it is known, and a run that was stopped goes
    on with the same arguments; objects that failed are tried again, `overwrite` measures all anew.

    Raises InputError for bad arguments, OutputError where `output_dir` cannot be written or holds
    a benchmark of something else, WeightsError; what fails later has a row that says why. A
    KeyboardInterrupt ends the run that is going on and leaves whole files.
    """
    plan = Plan(
        Schedule(wait, warmup, active),
        use_inference_cache,
        use_pointmaps,
        measure_scenes,
        save_profile_summary,
        seed,
        options,
    )
    if save_profile_summary and output_dir is None:
        raise OutputError("save_profile_summary needs an output_dir to write into")
    items = list_work(images_dir, masks_per_photo)
    subject = Subject(model, keep=use_inference_cache, device=device, memory=memory)
    try:
        header = _header(subject, plan)
        if output_dir is None:
            return _Run(subject, plan, header, None, on_progress).go(items)
        with BenchmarkFolder(output_dir, header, overwrite=overwrite) as folder:
            results = _Run(subject, plan, folder.header, folder, on_progress).go(items)
            save_tables(results, folder.path)
            return results
    finally:
        subject.drop()


def _header(subject: Subject, plan: Plan) -> dict[str, Any]:
    model, seconds = subject.get()
    model.deciding(**plan.options)
    header = make_header(model, plan.configuration())
    return header | ({"first_load_seconds": seconds} if subject.fresh else {})


def save_tables(results: Results, folder: Path) -> None:
    """Write `by_stage.csv`, `summary.csv` and `scenes.csv`, each where there is something in it."""
    for name, table in (
        (BY_STAGE, results.by_stage()),
        (SUMMARY, results.summary()),
        (SCENES, results.scenes()),
    ):
        if len(table):
            text = table.to_csv(float_format="%.6f", lineterminator="\n")
            write_file(folder / name, text.encode(), overwrite=True)


class _Run:
    """The work of one call of `benchmark`."""

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        header: dict[str, Any],
        folder: BenchmarkFolder | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.subject, self.plan, self.header, self.folder = subject, plan, header, folder
        self.on_progress = on_progress
        self.rows: list[Row] = list(folder.rows) if folder else []
        self.scenes: list[SceneRow] = list(folder.scenes) if folder else []

    def go(self, items: Sequence[Item]) -> Results:
        """Measure what is not measured yet; return the rows of `items` alone."""
        inputs = InputHashes()
        hashes = {(item.image, item.mask): inputs.of(item) for item in items}
        scene_hashes = {
            image: hash_scene(hashes[image, item.mask] for item in group)
            for image, group in groupby(items, key=lambda item: item.image)
        }
        done = 0
        with CleanStop() as stop:
            for image, group in groupby(items, key=lambda item: item.image):
                own = list(group)
                read = lru_cache(partial(self._read, own[0]))  # once, and only if needed
                for item in own:
                    stop.check()
                    self._tell(done, len(items), item.name)
                    sha256 = hashes[image, item.mask]
                    if not self._is_done(item, sha256):
                        self._add(self._measure(item, sha256, read, stop))
                    self._profile(item, read, stop)
                    done += 1
                if self.plan.measure_scenes:
                    self._measure_scene(own, scene_hashes[image], read, stop)
        self._tell(done, len(items), "done")
        wanted = {(item.image, item.mask): number for number, item in enumerate(items)}
        rows = [row for row in self.rows if (row.image, row.mask) in wanted]
        rows.sort(key=lambda row: wanted[row.image, row.mask])
        scenes = [s for s in self.scenes if s.input_sha256 == scene_hashes.get(s.image)]
        return Results(self.header, tuple(rows), tuple(scenes))

    def _read(self, item: Item) -> Example:
        example = load_example(item.path)
        if not self.plan.use_pointmaps:
            example = example.without_pointmap()
        return example

    def _is_done(self, item: Item, sha256: str) -> bool:
        return any(
            (row.image, row.mask, row.input_sha256, row.error)
            == (item.image, item.mask, sha256, "")
            for row in self.rows
        )

    def _measure(
        self, item: Item, sha256: str, read: Callable[[], Example], stop: CleanStop
    ) -> Row:
        """Run one object after the schedule; what fails is told in the row."""
        row = Row(item.image, item.mask, sha256)
        runs = []
        try:
            example = read()
            mask = example.mask(item.mask)
            row = replace(row, name=example.names[item.mask], pixels=int(mask.sum()))
            for counted in self.plan.schedule.runs():
                work = self._work(example, item.mask)
                runs.append(measure_run(self.subject, work, counted=counted, on_event=watch(stop)))
        except Exception as error:  # the others go on
            row = replace(row, error=reason(error))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return replace(row, runs=tuple(runs), clocks=clocks(), date=now)

    def _work(self, example: Example, mask: int) -> Callable[[Model, OnEvent], Any]:
        return lambda model, on_event: model.reconstruct(
            example, mask, seed=self.plan.seed, on_event=on_event, **self.plan.options
        )

    def _measure_scene(
        self, items: Sequence[Item], sha256: str, read: Callable[[], Example], stop: CleanStop
    ) -> None:
        image, masks = items[0].image, [item.mask for item in items]
        known = [(scene.image, scene.input_sha256) for scene in self.scenes if not scene.error]
        if (image, sha256) in known:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        scene = SceneRow(image, len(masks), date=now, input_sha256=sha256)
        try:
            example = read()

            def work(model: Model, on_event: OnEvent) -> Any:
                made = model.reconstruct_scene(
                    example, masks, seed=self.plan.seed, on_event=on_event, **self.plan.options
                )
                if made.failures:
                    raise ReconstructionError(
                        f"{len(made.failures)} of {len(masks)} objects failed"
                    )
                return made

            scene = replace(scene, run=measure_run(self.subject, work, on_event=watch(stop)))
        except Exception as error:
            scene = replace(scene, error=reason(error))
        self._add(scene)

    def _profile(self, item: Item, read: Callable[[], Example], stop: CleanStop) -> None:
        """Profile one run more, unless that is done or the object fails; a failure is a warning."""
        if not self.plan.save_profile_summary or self.folder is None:
            return
        place = self.folder.path / PROFILES
        name = plain_name(item.name)
        failed = any(row.error for row in self.rows if row.label == item.name)
        if failed or (place / f"{name}_trace.json.gz").is_file():
            return
        stop.check()
        self.subject.drop()
        model, _ = self.subject.get()
        work = self._work(read(), item.mask)
        try:
            profile_run(lambda on_event: work(model, on_event), place, name)
        except OutputError:
            raise
        except Exception as error:  # its row is known, and the others go on
            warnings.warn(f"{item.name} could not be profiled: {reason(error)}", stacklevel=2)

    def _add(self, row: Row | SceneRow) -> None:
        self.rows, self.scenes = latest([*self.rows, *self.scenes, row])
        if self.folder is not None:
            self.folder.add(row)

    def _tell(self, done: int, total: int, name: str) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total, name)


def watch(stop: CleanStop) -> OnEvent:
    """Return what stops a run at its next event once a signal has come."""

    def check(event: Event) -> None:
        stop.check()

    return check


def reason(error: Exception) -> str:
    """Return why something failed, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, Sam3dError) else f"{type(error).__name__}: {text}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
