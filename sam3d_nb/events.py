"""What a reconstruction reports while it runs: one typed event class a stage.

Every stage sends an event with `fraction` 0 when it starts and one with 1 when it ends, and as
many between as it has steps. Progress bars, notebooks and timers consume the same stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sam3d_nb.frames import Pose

if TYPE_CHECKING:
    from sam3d_nb.object3d import Object3D
    from sam3d_nb.scene.scene import Failure, Scene


@dataclass(frozen=True)
class Event:
    """Base of all events. fraction: how much of the stage is done, from 0 to 1."""

    stage: ClassVar[str] = "stage"
    fraction: float = 0.0

    @property
    def label(self) -> str:
        """What goes on, for progress bars."""
        return self.stage

    @property
    def share(self) -> float:
        """How much of that is done, for progress bars."""
        return self.fraction


@dataclass(frozen=True, eq=False)
class DepthEvent(Event):
    """The point map is being estimated or completed.

    pointmap: (H, W, 3) float32 in the camera frame, NaN where unknown, once known; intrinsics:
    K (3, 3) in pixels of the camera that goes with it.
    """

    stage: ClassVar[str] = "depth"
    pointmap: np.ndarray | None = None
    intrinsics: np.ndarray | None = None


@dataclass(frozen=True)
class ConditioningEvent(Event):
    """Image, mask and point map become condition tokens."""

    stage: ClassVar[str] = "conditioning"


@dataclass(frozen=True, eq=False)
class SparseStructureEvent(Event):
    """Stage 1 samples which voxels are occupied. step, steps: sampler steps done, and of all.

    voxels: (N, 3) int32, x, y, z with z up, once known, in a cube of `resolution` voxels a side.
    """

    stage: ClassVar[str] = "sparse structure"
    step: int = 0
    steps: int = 0
    voxels: np.ndarray | None = None
    resolution: int = 64


@dataclass(frozen=True)
class LayoutEvent(Event):
    """The object is placed in the camera frame. pose: where, once known."""

    stage: ClassVar[str] = "layout"
    pose: Pose | None = None


@dataclass(frozen=True)
class StructuredLatentEvent(Event):
    """Stage 2 samples a latent a voxel. step, steps: sampler steps done, and of all."""

    stage: ClassVar[str] = "structured latent"
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class GaussiansEvent(Event):
    """Gaussians are decoded."""

    stage: ClassVar[str] = "gaussians"


@dataclass(frozen=True)
class MeshEvent(Event):
    """The surface is made."""

    stage: ClassVar[str] = "mesh"


@dataclass(frozen=True)
class TextureEvent(Event):
    """Colors are brought onto the surface."""

    stage: ClassVar[str] = "texture"


@dataclass(frozen=True)
class DoneEvent(Event):
    """The object is complete."""

    stage: ClassVar[str] = "done"
    result: Object3D | None = None


# --- Scenes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneEvent(Event):
    """An object of a scene is begun, and the base of what happens to it after that.

    fraction: of the objects, how many are over. number, count: this is object number 1 to count.
    name: of the object.
    """

    stage: ClassVar[str] = "scene"
    number: int = 0
    count: int = 0
    name: str = ""

    @property
    def label(self) -> str:
        """Which object it is, for progress bars."""
        return f"{self.number} of {self.count}, {self.name}"


@dataclass(frozen=True, eq=False)
class ObjectEvent(SceneEvent):
    """An object is being made. inner: what its model reports, stages and all."""

    inner: Event = field(default_factory=Event)

    @property
    def label(self) -> str:
        """Which object is at which stage, for progress bars."""
        return f"{super().label}: {self.inner.label}"

    @property
    def share(self) -> float:
        """How much of the object's stage is done."""
        return self.inner.share


@dataclass(frozen=True, eq=False)
class ObjectDoneEvent(SceneEvent):
    """An object is complete. resumed: it was made by an earlier run and kept on disk."""

    result: Object3D | None = None
    resumed: bool = False


@dataclass(frozen=True, eq=False)
class ObjectFailedEvent(SceneEvent):
    """An object could not be made; the rest go on."""

    failure: Failure | None = None


@dataclass(frozen=True, eq=False)
class SceneDoneEvent(Event):
    """The scene is complete."""

    stage: ClassVar[str] = "done"
    result: Scene | None = None


# --- Meshes for other programs ---------------------------------------------------------------


@dataclass(frozen=True)
class FinishingEvent(Event):
    """The mesh of a complete object is closed, made lighter or textured. name: of the object."""

    stage: ClassVar[str] = "finishing"
    name: str = "object"

    @property
    def label(self) -> str:
        """Whose mesh it is, for progress bars."""
        return f"finishing {self.name}"


# --- Files ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WritingEvent(Event):
    """A result that is complete goes to disk; the last one has fraction 1. what: is written."""

    stage: ClassVar[str] = "writing"
    what: str = "files"

    @property
    def label(self) -> str:
        """What is written, for progress bars."""
        return f"writing {self.what}"


OnEvent = Callable[[Event], None]


def tell(on_event: OnEvent | None, event: Event) -> None:
    """Call `on_event` with `event`, where there is one to be called."""
    if on_event is not None:
        on_event(event)


class StageTimer:
    """Adds up the seconds between the first and the last event of every stage.

    Call it with each event; `seconds` maps the stage's name to wall-clock seconds. `synchronize`
    is called before each reading of the clock, for devices that work asynchronously; events
    between start and end of a stage do not wait.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._synchronize = synchronize

    def __call__(self, event: Event) -> None:
        """Take note of `event` at the present time."""
        first, last = event.stage not in self._started, event.fraction >= 1
        if not (first or last):
            return
        if self._synchronize is not None:
            self._synchronize()
        now = perf_counter()
        if first:
            self._started[event.stage] = now
            self.begun(event.stage, now)
        if last:
            started = self._started.pop(event.stage)
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + now - started
            self.ended(event.stage, started, now)

    def begun(self, stage: str, now: float) -> None:
        """Do more when a stage begins; `now` is the clock's reading, the device is idle."""

    def ended(self, stage: str, started: float, now: float) -> None:
        """Do more when a stage ends."""
