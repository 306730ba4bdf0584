"""What the networks give, as arrays in the frames of the package.

The networks' local frame is z up; the object frame is that of GLB files, y up:
(x, y, z) becomes (x, z, -y). Meshes, gaussians and poses all go through here, so that a pose
places both at one spot.

Colors of the networks are those of photos, sRGB. Splats are blended so and keep them. `COLOR_0` of
a GLB file is linear by the standard, so the mesh gets linear ones. (The released code writes sRGB
numbers there, and its files look too bright in programs that follow the standard.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.engine.sums import sums
from sam3d_nb.errors import ReconstructionError
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.constants import constant
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.gaussians import GaussianSet
from sam3d_nb.model.layout import MESH_TO_LOCAL, Layout, camera_pose, conjugate, multiply
from sam3d_nb.splats import Gaussians


def mesh_of(surface: Surface) -> Mesh:
    """Return a decoded surface as a mesh in the object frame with linear vertex colors."""
    vertices = to_host(object_frame(surface.vertices))
    colors = to_host(to_linear(surface.attributes[:, :3].float()))
    faces = to_host(surface.faces.to(torch.int32))
    mesh = Mesh(vertices, faces, colors=colors)
    if surface.faces.is_cuda and len(faces):  # what `Mesh.normals` would take a file's time for
        normals = vertex_normals(object_frame(surface.vertices), surface.faces)
        vars(mesh)["normals"] = to_host(normals)  # where the cached property keeps it
    return mesh


def to_linear(srgb: Tensor) -> Tensor:
    """Return linear values in [0, 1] of sRGB values in [0, 1], any shape, as `mesh.color` does."""
    bright = ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, bright)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the normals (V, 3) float32 of vertices (V, 3) and faces (F, 3) as `Mesh` has them.

    Sums do not depend on the order in which a card adds, see `sums`.
    """
    a, b, c = vertices.double()[faces.long()].unbind(1)  # each (F, 3)
    weighted = torch.linalg.cross(b - a, c - a)
    total = sums(weighted.repeat(3, 1), faces.long().T.reshape(-1), len(vertices))
    length = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    flat = constant((0, 0, 1), total.device, total.dtype)
    return torch.where(length > 0, total / length.where(length > 0, 1), flat).float()


def no_mesh() -> Mesh:
    """Return a mesh without triangles, for who asked for gaussians only."""
    return Mesh(np.zeros((0, 3)), np.zeros((0, 3)))


def gaussians_of(found: GaussianSet) -> Gaussians:
    """Return decoded gaussians in the object frame.

    Raises ReconstructionError where numbers are not finite.
    """
    raw = found.raw_rotation
    turn = conjugate(constant(MESH_TO_LOCAL, raw.device, raw.dtype))
    columns = {
        "centers": object_frame(found.xyz),
        "scales": found.scale,
        "rotations": multiply(turn, found.rotation),
        "opacities": found.opacity[:, 0],
        "colors": found.rgb,
    }
    finite = torch.stack([column.isfinite().all() for column in columns.values()]).tolist()
    for name, fine in zip(columns, finite, strict=True):
        if not fine:
            raise ReconstructionError(
                f"the {name} of some of {len(found)} gaussians are not finite; try another seed"
            )
    return Gaussians(**{name: to_host(column.float()) for name, column in columns.items()})


def to_host(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array of its own.

    NumPy asks the system for large pages, PyTorch for small ones, where a copy into new memory
    takes four times as long.
    """
    if tensor.device.type == "cpu":
        return tensor.numpy()
    array = np.empty(tensor.shape, torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    torch.from_numpy(array).copy_(tensor)
    return array


def object_frame(local: Tensor) -> Tensor:
    """Return points (N, 3) of the networks' local frame, z up, in the object frame, y up."""
    x, y, z = local.float().unbind(1)
    return torch.stack([x, z, -y], dim=1)


def pose_of(layout: Layout) -> Pose:
    """Return the pose of one object: object frame to camera frame (OpenCV)."""
    rotation, translation, scale = (value[0].tolist() for value in camera_pose(layout))
    return Pose(tuple(rotation), tuple(translation), tuple(scale))


def pixel_intrinsics(normalized: Tensor, height: int, width: int) -> np.ndarray:
    """Return K (3, 3) in pixels from intrinsics (3, 3) in widths and heights of the image."""
    return np.diag([width, height, 1.0]) @ normalized.double().cpu().numpy()
