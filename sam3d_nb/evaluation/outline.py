"""Whether an object covers the pixels of its mask when it is seen through the photo's camera."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sam3d_nb.mesh import Mesh
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize


def silhouette_iou(
    mesh: Mesh, intrinsics: np.ndarray, mask: np.ndarray, others: Iterable[np.ndarray] = ()
) -> float:
    """Return intersection over union of the object's outline in the photo's view and its mask.

    mesh: in the camera frame. mask: (H, W) bool, what is visible of the object. others: masks of
    other objects; a pixel that one of them covers and `mask` does not is left out, because the
    object may be hidden there.
    """
    covered = outline(mesh, intrinsics, *mask.shape)
    counted = np.ones_like(mask)
    for other in others:
        counted &= ~other | mask
    union = ((covered | mask) & counted).sum()
    return float((covered & mask).sum() / union) if union else 0.0


def outline(mesh: Mesh, intrinsics: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which pixels' centers the mesh (camera frame) covers, (H, W) bool."""
    vertices = torch.from_numpy(mesh.vertices.copy())
    faces = torch.from_numpy(mesh.faces.copy())
    return rasterize(vertices, faces, Camera(height, width, intrinsics)).covered.numpy()
