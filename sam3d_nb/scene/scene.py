"""The objects of one photo together: poses in one world, the camera, and what failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.events import OnEvent
from sam3d_nb.frames import CAMERA, OPENGL_CAMERA, Pose, pose_between
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.splats import Gaussians, merge

if TYPE_CHECKING:
    import pandas as pd

UNCHANGED = pose_between(CAMERA, OPENGL_CAMERA)
"""The camera in a world that is not re-aligned: the camera's own frame, turned to Y-up."""


@dataclass(frozen=True)
class Failure:
    """An object that could not be made, or not finished.

    name, mask_index: of the object, as in `Object3D`. kind: class of the error. reason: what was
    wrong and what to do next. trace: where an error came from that was not foreseen.
    """

    name: str
    mask_index: int | None
    kind: str
    reason: str
    trace: str = ""


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects in one world: x right, y up, z towards the viewer; meters where known.

    objects: as their model made them, or `finished`; each one's `pose` leads into the camera frame.
    failures: what could not be made or finished. intrinsics: K (3, 3) in pixels of the one camera,
    None where unknown; size: height and width of its photo. pointmap: (H, W, 3) float32 in the
    camera frame, NaN where unknown, or None.
    world: carries the camera frame into the world. poses: carry each object into the world; by
    default as the camera sees it. realign: by which method the world was found, see `realigned`;
    without one the camera stands at its origin, and afterwards the floor is y = 0 and the camera
    above the origin.
    """

    objects: tuple[Object3D, ...]
    failures: tuple[Failure, ...] = ()
    intrinsics: np.ndarray | None = None
    size: tuple[int, int] | None = None
    pointmap: np.ndarray | None = None
    world: Pose = UNCHANGED
    poses: tuple[Pose, ...] = field(default=())
    realign: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        poses = tuple(self.poses) or tuple(self.world @ thing.pose for thing in self.objects)
        if len(poses) != len(self.objects):
            raise InputError(f"{len(self.objects)} objects need as many poses, not {len(poses)}")
        object.__setattr__(self, "poses", poses)

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, place: int) -> Object3D:
        return self.objects[place]

    def __iter__(self) -> Iterator[Object3D]:
        return iter(self.objects)

    def __repr__(self) -> str:
        """Say what is there instead of printing arrays."""
        count = "1 object" if len(self) == 1 else f"{len(self)} objects"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Scene({count}{failed}, realign={self.realign!r})"

    @property
    def up(self) -> np.ndarray:
        """The direction (3,) of the world's y axis in the camera frame."""
        return self.world.inverse().matrix()[:3, 1]

    def realigned(self, method: str) -> Scene:
        """Return the scene in an upright world whose floor is y = 0; from the objects' own poses.

        method: `none` takes the camera's frame, turned to Y-up. `pca` takes as up the principal
        axis of all surfaces that is nearest to the photo's up. `obb` lets the faces of the objects'
        oriented boxes vote with their area, and the point map's surface with its own. These three
        move the scene as a whole. `obb+` also lays the lowest face of each object's box on the
        floor, so that every object stands there, also one that stood on a table.

        The result depends on nothing but the scene: no chance. Raises InputError for another
        method, or where there is no object.
        """
        from sam3d_nb.scene.realign import realign

        return realign(self, method)

    def finished(
        self,
        *,
        triangles: int | None = None,
        fill_holes: bool = False,
        watertight: bool = False,
        texture: int | None = None,
        on_event: OnEvent | None = None,
    ) -> Scene:
        """Return the scene with each object's mesh finished, see `sam3d_nb.finish`; poses stay.

        An object whose mesh cannot be finished joins the failures. on_event: called with a
        `FinishingEvent` before each object. Raises InputError for numbers out of range, and the
        first object's error where no object is left.
        """
        from sam3d_nb.mesh.finish import Finishing
        from sam3d_nb.scene.finish import finish_scene

        return finish_scene(self, Finishing(triangles, fill_holes, watertight, texture), on_event)

    def meshes(self) -> list[Mesh]:
        """Return every object's mesh in the world."""
        return [
            thing.mesh.with_vertices(pose.apply(thing.mesh.vertices).astype(np.float32))
            for thing, pose in zip(self.objects, self.poses, strict=True)
        ]

    def gaussians(self) -> Gaussians:
        """Return all gaussians in the world; raises InputError where no object has any."""
        placed = [
            thing.gaussians.placed(pose)
            for thing, pose in zip(self.objects, self.poses, strict=True)
            if thing.gaussians is not None
        ]
        if not placed:
            raise InputError(
                f"none of the {len(self)} objects has gaussians; reconstruct with a model that "
                "makes them, and with 'gaussians' among its formats"
            )
        return merge(placed)

    def table(self) -> pd.DataFrame:
        """Return a row an object: mask, name, triangles, size and height in the world.

        Objects that failed have their reason in the column `error`.
        """
        from sam3d_nb.scene.table import make_table

        return make_table(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all meshes in the format that the suffix names: .glb, .obj, .ply or .stl.

        A GLB file has one named node an object, whose transform is the object's pose in the world
        and whose `extras` are its provenance, and a node `camera`. The other formats hold one mesh
        in the world, with colors a vertex. Returns the path.

        Raises InputError for another suffix or no triangles, OutputError where the file exists and
        `overwrite` is false, or cannot be written.
        """
        from sam3d_nb.scene.export import save_scene

        return save_scene(self, Path(path), overwrite=overwrite)

    def save_splats(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the gaussians of all objects, in the world as `save` has it: .ply or .splat.

        Returns the path. Raises what `gaussians` and `save` do.
        """
        return self.gaussians().save(path, overwrite=overwrite)
