"""What was measured, as plain records: one row an object, its runs, their spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sam3d_nb.profiling.probe import Memory
from sam3d_nb.profiling.timer import Span

Sample = tuple[float, Memory]


@dataclass(frozen=True)
class Run:
    """One run, from an idle device to an object in memory.

    counted: whether it is in the means; warm-up runs are not. seconds: of all. load_seconds: of
    that, until the model was ready; 0 where it was kept. overhead: processor seconds that measuring
    took. samples: memory by seconds since the start.
    """

    counted: bool
    seconds: float
    load_seconds: float
    overhead: float
    peak: Memory
    spans: tuple[Span, ...] = ()
    samples: tuple[Sample, ...] = ()
    voxels: int | None = None
    faces: int | None = None
    gaussians: int | None = None

    @property
    def seconds_to_make(self) -> float:
        """Seconds from a model that is ready to the object."""
        return self.seconds - self.load_seconds


@dataclass(frozen=True)
class Row:
    """One object of the benchmark. error: why it could not be measured, else empty.

    input_sha256: of the files that it was made from. pixels: of its mask. clocks: in MHz, read
    after its runs.
    """

    image: str
    mask: int
    input_sha256: str
    runs: tuple[Run, ...] = ()
    error: str = ""
    name: str = ""
    pixels: int | None = None
    clocks: Mapping[str, float] | None = None
    date: str = ""

    @property
    def label(self) -> str:
        """The name in tables, such as `0_kid_box`."""
        return f"{self.mask}_{self.image}"

    @property
    def counted(self) -> tuple[Run, ...]:
        """The runs that are in the means; none where the object failed."""
        return () if self.error else tuple(run for run in self.runs if run.counted)

    @property
    def seconds(self) -> float:
        """Mean of the counted runs, NaN where the object failed."""
        return fmean(run.seconds for run in self.counted) if self.counted else float("nan")


@dataclass(frozen=True)
class SceneRow:
    """All objects of one photo as one scene.

    objects: how many were made. input_sha256: of the files of all of them.
    """

    image: str
    objects: int
    run: Run | None = None
    error: str = ""
    date: str = ""
    input_sha256: str = ""


def as_record(row: Row | SceneRow) -> dict[str, Any]:
    """Return a row as JSON has it."""
    kind = "object" if isinstance(row, Row) else "scene"
    return {"kind": kind} | asdict(row)


def row_of(record: Mapping[str, Any]) -> Row | SceneRow:
    """Return the row of a record; raises ValueError, TypeError or KeyError where it is none."""
    fields = dict(record)
    kind = fields.pop("kind")
    if kind == "object":
        fields["runs"] = tuple(_run(run) for run in fields["runs"])
        return Row(**fields)
    if kind != "scene":
        raise ValueError(f"no record is of kind {kind!r}")
    fields["run"] = None if fields["run"] is None else _run(fields["run"])
    return SceneRow(**fields)


def _run(record: Mapping[str, Any]) -> Run:
    fields = dict(record)
    fields["peak"] = Memory(*fields["peak"])
    fields["spans"] = tuple(_span(span) for span in fields["spans"])
    fields["samples"] = tuple((float(t), Memory(*memory)) for t, memory in fields["samples"])
    return Run(**fields)


def _span(record: Mapping[str, Any]) -> Span:
    fields = dict(record)
    return Span(**fields | {"path": tuple(fields["path"]), "peak": Memory(*fields["peak"])})
