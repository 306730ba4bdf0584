"""The result of a reconstruction: one object with its shape, its pose and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.splats import Gaussians

ESTIMATED = "estimated"
"""The setting `point_map` of an object whose point map was not given."""


@dataclass(frozen=True)
class Provenance:
    """Where an object came from; enough to make it again.

    image_sha256, mask_sha256: of the pixels (the shape, then RGB or one byte a pixel).
    timings: seconds a stage. settings: whatever else decides the result, as plain data.
    """

    model: str
    model_version: str
    package_version: str
    image_sha256: str
    mask_sha256: str = ""
    mask_index: int | None = None
    seed: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Object3D:
    """One reconstructed object.

    mesh: in the object frame (y up, inside the unit cube around 0); without triangles where only
    gaussians were asked for.
    pose: carries the object frame into the camera frame (OpenCV; metres where known).
    gaussians: in the object frame too, or None where the model makes none.
    intrinsics: K (3, 3) in pixels of the camera that the pose belongs to, None where unknown.
    """

    mesh: Mesh
    pose: Pose
    provenance: Provenance
    name: str = "object"
    gaussians: Gaussians | None = None
    intrinsics: np.ndarray | None = None

    @property
    def depth_is_estimated(self) -> bool:
        """Whether no point map was given, so that the model estimated it from the photo."""
        return self.provenance.settings.get("point_map") == ESTIMATED

    def __repr__(self) -> str:
        """Say what is there instead of printing numbers."""
        parts = [repr(self.mesh)] + [repr(g) for g in (self.gaussians,) if g is not None]
        return f"<{self.name}, by {self.provenance.model}: {', '.join(parts)}>"

    def mesh_in_camera(self) -> Mesh:
        """Return the mesh in the camera frame (x right, y down, z forward)."""
        return self.mesh.with_vertices(self.pose.apply(self.mesh.vertices).astype(np.float32))

    def gaussians_in_camera(self) -> Gaussians:
        """Return the gaussians in the camera frame; raises InputError where there are none."""
        return self._known_gaussians().placed(self.pose)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the mesh in the format that the suffix names: .glb, .obj, .ply or .stl.

        It stays in the object frame; GLB holds pose and provenance in its `extras`. All triangles
        are written, tens of megabytes for some objects; `sam3d_nb.finish` makes lighter meshes.
        Written to a temporary file first and then renamed. Returns the path.

        Raises InputError for another suffix, OutputError where the file exists and `overwrite`
        is false, or where it cannot be written.
        """
        from sam3d_nb.mesh.export import save_object

        return save_object(self, Path(path), overwrite=overwrite)

    def save_splats(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the gaussians as .ply (3DGS) or .splat; returns the path.

        They stay in the object frame, as the mesh does in a GLB: y up, not z up as the released
        code writes them. `gaussians_in_camera().save(path)` writes them where the object stands.

        Raises InputError where there are none and for another suffix, OutputError as `save` does.
        """
        return self._known_gaussians().save(path, overwrite=overwrite)

    def _known_gaussians(self) -> Gaussians:
        if self.gaussians is None:
            raise InputError(
                f"{self.name!r} has no gaussians: {self.provenance.model} made none; reconstruct "
                "with a model that makes them, and with 'gaussians' among its formats"
            )
        return self.gaussians
