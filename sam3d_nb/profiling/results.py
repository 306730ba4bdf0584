"""What a benchmark measured: as tables, in comparison with another one, as figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sam3d_nb.errors import InputError
from sam3d_nb.profiling import figures, tables
from sam3d_nb.profiling.compare import Comparison, compare
from sam3d_nb.profiling.folder import read_header, read_rows
from sam3d_nb.profiling.published import beside_published
from sam3d_nb.profiling.record import Row, SceneRow
from sam3d_nb.profiling.style import style_stages, style_times

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


@dataclass(frozen=True, eq=False)
class Results:
    """A benchmark: a row an object, and a header that says what ran, on what, how."""

    header: dict[str, Any]
    rows: tuple[Row, ...]
    scene_rows: tuple[SceneRow, ...] = field(default=())

    @property
    def configuration(self) -> dict[str, Any]:
        """The settings of the benchmark."""
        return self.header["identity"]["configuration"]

    @property
    def kept(self) -> bool:
        """Whether one model made all objects, else each run loaded its own."""
        return bool(self.configuration["use_inference_cache"])

    @property
    def name(self) -> str:
        """Model, hardware, and whether the model was kept, for titles and columns."""
        identity = self.header["identity"]
        hardware = identity["hardware"]
        gpu = hardware.get("gpu") if self._on_gpu() else None
        machine = gpu or f"{hardware.get('cpu')}, {hardware.get('cores')} cores"
        state = "model kept" if self.kept else "model loaded for every run"
        return f"{identity['model']['name']} on {machine}, {state}"

    def _on_gpu(self) -> bool:
        return any(run.peak.allocated for row in self.rows for run in row.runs)

    def table(self) -> pd.DataFrame:
        """Return the published table: seconds of every counted run, their average, a mean row.

        Indexed by `<mask>_<image>`. An object that failed has no numbers and is not in the mean;
        the column `error`, there only then, says why.
        """
        return tables.elapsed_times(self.rows, int(self.configuration["active"]))

    def by_stage(self) -> pd.DataFrame:
        """Return where the time and the memory go, a row a stage in the order of work, and `all`.

        n: runs that had the stage. mean, median, p95: seconds. share: of the time of all counted
        runs. device_mean: seconds on the device's own clock, NaN on a CPU. allocated_gib,
        reserved_gib: peaks on the device. host_gib: peak of the process's resident memory.
        """
        return tables.by_stage(self.rows)

    def summary(self, scene_of: int = 10) -> pd.DataFrame:
        """Return the benchmark in numbers, with their units.

        How many objects were measured and failed; mean, median, 95 % point and spread of the
        time; warm or cold; objects an hour; the estimate for a scene of `scene_of` objects and
        its mean error in the scenes that were measured; what measuring cost; peaks of memory.
        """
        return tables.summary(self.rows, self.scene_rows, kept=self.kept, scene_of=scene_of)

    def scenes(self) -> pd.DataFrame:
        """Return measured scenes beside the estimate from single objects.

        The estimate for M objects is M times their mean, and one load of the model where it is
        not kept. error: of the estimate, as a share of what was measured.
        """
        return tables.scene_table(self.rows, self.scene_rows)

    def compare(self, other: Results) -> Comparison:
        """Return how much longer or shorter `other` takes, object by object.

        Pairs are objects of the same name, made from the same files. Raises InputError where there
        is none.
        """
        return compare(self.rows, other.rows)

    def with_published(self) -> pd.DataFrame:
        """Return the mean row beside the published ones; other photos, weights and hardware."""
        return beside_published(self.table()[tables.AVERAGE].loc[tables.MEAN], self.name)

    def failures(self) -> dict[str, str]:
        """Return why objects failed, by `<mask>_<image>`."""
        return {row.label: row.error for row in self.rows if row.error}

    def style(self) -> Styler:
        """Return the published table for JupyterLab, with bars and the mean set apart."""
        return style_times(self.table(), self.name)

    def style_stages(self) -> Styler:
        """Return the table of stages for JupyterLab."""
        return style_stages(self.by_stage(), self.name)

    def plot_stages(self) -> Figure:
        """Draw the mean time of every stage."""
        return figures.plot_stages(self.rows, self.name)

    def plot_objects(self) -> Figure:
        """Draw every counted run of every object."""
        return figures.plot_objects(self.rows, self.name)

    def plot_voxels(self) -> Figure:
        """Draw the time of objects over their voxels; over mask pixels, where there are none."""
        return figures.plot_voxels(self.rows, self.name)

    def plot_memory(self, name: str | None = None) -> Figure:
        """Draw the memory over time in a run of the object `name`, by default the slowest one.

        Raises InputError where no object of that name was measured.
        """
        good = [row for row in self.rows if row.counted and name in (None, row.label)]
        if not good:
            names = ", ".join(row.label for row in self.rows if row.counted) or "none"
            raise InputError(f"no object {name or ''} was measured; there are: {names}")
        return figures.plot_memory(max(good, key=lambda row: row.seconds))

    def _repr_html_(self) -> str:
        return self.style().to_html()

    def __repr__(self) -> str:
        """Say what was measured."""
        return f"<{self.name}: {len(self.rows)} objects>"


def load_results(folder: str | Path) -> Results:
    """Return the benchmark in a folder, also while it goes on; raises InputError."""
    place = Path(folder).expanduser()
    rows, scenes = read_rows(place)
    return Results(read_header(place), tuple(rows), tuple(scenes))
