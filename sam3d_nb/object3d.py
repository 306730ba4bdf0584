"""The result of a reconstruction: one object with its shape, its pose and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh


@dataclass(frozen=True)
class Provenance:
    """Where an object came from; enough to make it again.

    image_sha256, mask_sha256: of the pixels (the shape, then RGB or one byte a pixel).
    timings: seconds a stage.
    """

    model: str
    model_version: str
    package_version: str
    image_sha256: str
    mask_sha256: str = ""
    mask_index: int | None = None
    seed: int = 0
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Object3D:
    """One reconstructed object.

    mesh: in the object frame (x right, y up, z towards the viewer), longest side 1 around 0.
    pose: carries the object frame into the camera frame (OpenCV; metres where known).
    gaussians: in the object frame, or None where the model makes none.
    """

    mesh: Mesh
    pose: Pose
    provenance: Provenance
    name: str = "object"
    gaussians: object | None = None

    def mesh_in_camera(self) -> Mesh:
        """Return the mesh in the camera frame (x right, y down, z forward)."""
        return self.mesh.with_vertices(self.pose.apply(self.mesh.vertices).astype(np.float32))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the object in the format that the suffix names: .glb, .obj, .ply or .stl.

        The mesh stays in the object frame; GLB holds pose and provenance in its `extras`.
        Written to a temporary file first and then renamed. Returns the path.

        Raises InputError for another suffix, OutputError where the file exists and `overwrite`
        is false, or where it cannot be written.
        """
        from sam3d_nb.mesh.export import save_object

        return save_object(self, Path(path), overwrite=overwrite)
