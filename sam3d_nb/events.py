"""What a reconstruction reports while it runs: one typed event class a stage.

Every stage sends an event with `fraction` 0 when it starts and one with 1 when it ends, and as
many between as it has steps. Progress bars, notebooks and timers consume the same stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from sam3d_nb.object3d import Object3D


@dataclass(frozen=True)
class Event:
    """Base of all events. fraction: how much of the stage is done, from 0 to 1."""

    stage: ClassVar[str] = "stage"
    fraction: float = 0.0


@dataclass(frozen=True)
class DepthEvent(Event):
    """The point map is being estimated or completed."""

    stage: ClassVar[str] = "depth"


@dataclass(frozen=True)
class ConditioningEvent(Event):
    """Image, mask and point map become condition tokens."""

    stage: ClassVar[str] = "conditioning"


@dataclass(frozen=True)
class SparseStructureEvent(Event):
    """Stage 1 samples which voxels are occupied. voxels: (N, 3) in [0, 64) once known."""

    stage: ClassVar[str] = "sparse structure"
    voxels: np.ndarray | None = None


@dataclass(frozen=True)
class LayoutEvent(Event):
    """The object is placed in the camera frame."""

    stage: ClassVar[str] = "layout"


@dataclass(frozen=True)
class StructuredLatentEvent(Event):
    """Stage 2 samples a latent a voxel."""

    stage: ClassVar[str] = "structured latent"


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


OnEvent = Callable[[Event], None]


class StageTimer:
    """Adds up the seconds between the first and the last event of every stage.

    Call it with each event; `seconds` maps the stage's name to wall-clock seconds. `synchronize`
    is called before each reading of the clock, for devices that work asynchronously.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._synchronize = synchronize

    def __call__(self, event: Event) -> None:
        """Take note of `event` at the present time."""
        if self._synchronize is not None:
            self._synchronize()
        now = perf_counter()
        started = self._started.setdefault(event.stage, now)
        if event.fraction >= 1:
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + now - started
            del self._started[event.stage]
