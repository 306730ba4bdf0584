"""One thing to look at: what it is made of, from where it is seen, and how it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.thin import thinned
from sam3d_nb.splats import Gaussians
from sam3d_nb.view.camera import orbit_camera
from sam3d_nb.view.render import LIGHT, MARGIN, render
from sam3d_nb.view.splatting import splat_picture
from sam3d_nb.view.thin import thinned_gaussians
from sam3d_nb.view.world import ball, ball_of_gaussians

if TYPE_CHECKING:
    import pythreejs

TRIANGLES = 50_000
"""What the viewers of one `show` get at most; larger meshes are shown by coarser copies."""
GAUSSIANS = 60_000
"""As `TRIANGLES`; of more gaussians some are shown, and larger."""


@dataclass(frozen=True, eq=False)
class Subject(ABC):
    """One thing to look at in a Y-up world, seen from azimuth and elevation in degrees.

    share: of what the viewers of one `show` can take.
    """

    title: str
    azimuth: float
    elevation: float
    share: float

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of triangles or gaussians."""

    @property
    @abstractmethod
    def drawn(self) -> str:
        """How much there is and, where it is less, how much of it the viewer shows."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What the picture shows, in words."""

    @abstractmethod
    def still(self, size: int) -> np.ndarray:
        """Return a picture (size, size, 3) uint8."""

    @abstractmethod
    def viewer(self, size: int) -> pythreejs.Renderer:
        """Return the interactive part."""


@dataclass(frozen=True, eq=False)
class Surfaces(Subject):
    """Meshes, one of which has a triangle at least."""

    meshes: list[Mesh]

    @cached_property
    def coarse(self) -> list[Mesh]:
        """The meshes with no more triangles than a viewer can take."""
        share = TRIANGLES * self.share / max(self.count, 1)
        return [thinned(mesh, int(share * len(mesh.faces))) for mesh in self.meshes]

    @property
    def count(self) -> int:
        """See `Subject`."""
        return sum(len(mesh.faces) for mesh in self.meshes)

    @property
    def drawn(self) -> str:
        """See `Subject`."""
        shown = sum(len(mesh.faces) for mesh in self.coarse)
        copy = f", the viewer shows a copy of {shown:,}" if shown < self.count else ""
        return f"{self.count:,} triangles{copy}"

    @property
    def text(self) -> str:
        """See `Subject`."""
        boxes = [mesh.bounds for mesh in self.meshes if len(mesh.faces)]
        low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
        return f"{self.title}: {self.count:,} triangles, {_size(high - low)}"

    def still(self, size: int) -> np.ndarray:
        """See `Subject`."""
        return render(self.meshes, self.azimuth, self.elevation, size, frame="object")

    def viewer(self, size: int) -> pythreejs.Renderer:
        """See `Subject`."""
        from sam3d_nb.view.three import build_viewer, drawn_mesh

        parts = [drawn_mesh(mesh) for mesh in self.coarse if len(mesh.faces)]
        return build_viewer(parts, *ball(self.meshes), self.azimuth, self.elevation, size)


@dataclass(frozen=True, eq=False)
class Splats(Subject):
    """Gaussians, one at least."""

    gaussians: Gaussians

    @cached_property
    def coarse(self) -> Gaussians:
        """As many gaussians as a viewer can take."""
        return thinned_gaussians(self.gaussians, max(1, int(GAUSSIANS * self.share)))

    @property
    def count(self) -> int:
        """See `Subject`."""
        return len(self.gaussians)

    @property
    def drawn(self) -> str:
        """See `Subject`."""
        shown = len(self.coarse)
        copy = f", {shown:,} of them shown, and larger" if shown < self.count else ""
        return f"{self.count:,} gaussians{copy}"

    @property
    def text(self) -> str:
        """See `Subject`."""
        return f"{self.title}: {self.count:,} gaussians, {_size(self._extent)}"

    @property
    def _extent(self) -> np.ndarray:
        return np.ptp(self.gaussians.centers, axis=0)

    def still(self, size: int) -> np.ndarray:
        """See `Subject`."""
        center, radius = ball_of_gaussians(self.gaussians)
        camera = orbit_camera(center, radius * MARGIN, self.azimuth, self.elevation, size=size)
        return splat_picture(self.coarse, camera, LIGHT)

    def viewer(self, size: int) -> pythreejs.Renderer:
        """See `Subject`."""
        from sam3d_nb.view.points import drawn_gaussians
        from sam3d_nb.view.three import FIELD_OF_VIEW, build_viewer

        center, radius = ball_of_gaussians(self.gaussians)
        parts = list(drawn_gaussians(self.coarse, radius, FIELD_OF_VIEW))
        return build_viewer(parts, center, radius, self.azimuth, self.elevation, size)


def _size(extent: np.ndarray) -> str:
    width, height, depth = extent
    return f"{width:.2f} wide, {height:.2f} high, {depth:.2f} deep"
