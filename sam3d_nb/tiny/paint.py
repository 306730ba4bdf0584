"""Colors of the photo on what it shows of an object, and colors that go with them on the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from sam3d_nb.frames import Array, Pose, project
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear
from sam3d_nb.splats import Gaussians
from sam3d_nb.tiny.window import window
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize

BEHIND = 0.02  # of the object's size: what lies this far behind the visible surface is hidden
FINEST = 512  # pixels across the mask that are looked at; vertices are no closer
MARGIN = 4  # pixels around the mask
FEWEST = 50  # colored points of which a mean is taken
DECODED = 0.4  # share of the decoded colors, without which hidden parts have one color
GRAZING = 0.15  # cosine between normal and line of sight from which on the photo is used


def paint(
    mesh: Mesh,
    gaussians: Gaussians | None,
    pose: Pose,
    image: np.ndarray,
    mask: np.ndarray,
    intrinsics: Array,
) -> tuple[Mesh, Gaussians | None]:
    """Return mesh and gaussians with the photo's colors where the photo shows them.

    mesh: object frame, with vertex colors; pose: into the camera. image: (H, W, 3) uint8; mask:
    (H, W) bool; intrinsics: (3, 3) in pixels. The surface seen first counts for both.
    """
    if not len(mesh.faces) or mesh.colors is None:
        return mesh, gaussians
    columns, rows = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    part = window(mask.shape, low - MARGIN, high + MARGIN, finest=(high - low).max() / FINEST)
    if part is None:
        return mesh, gaussians
    intrinsics, mask = part.intrinsics(intrinsics), part.some(mask)
    photo = _clean(part.mean(image) / 255, mask)
    placed = pose.apply(mesh.vertices)
    camera = Camera(mask.shape[0], mask.shape[1], intrinsics)
    first = rasterize(torch.tensor(placed), torch.tensor(mesh.faces), camera).depth.cpu().numpy()
    size = pose.scale[0]

    normals = mesh.normals @ Pose(pose.rotation).matrix()[:3, :3].T
    towards = -placed / np.linalg.norm(placed, axis=1, keepdims=True)
    facing = (normals * towards).sum(1)
    weight = _smooth((facing - GRAZING) / 0.25) * _seen(placed, first, mask, intrinsics, size)
    found = to_linear(_colors(placed, photo, intrinsics))
    guess = _hidden(mesh.colors, found, weight)
    colors = guess + weight[:, None] * (found - guess)
    mesh = replace(mesh, colors=colors)
    if gaussians is None:
        return mesh, None
    centers = pose.apply(gaussians.centers)
    share = _seen(centers, first, mask, intrinsics, size)
    shown = _colors(centers, photo, intrinsics)
    guess = _hidden(gaussians.colors, shown, share)
    blended = guess + share[:, None] * (shown - guess)
    return mesh, replace(gaussians, colors=blended)


def _hidden(colors: Array, found: Array, weight: Array) -> Array:
    """Return colors (N, 3) for what the photo does not show, out of the decoded `colors`.

    found: the photo's (N, 3), where `weight` (N,) is high. Their mean is the better guess; the
    decoded colors, as bright as the photo where it shows them, still tell the parts apart.
    """
    sure = weight > 0.9
    if sure.sum() < FEWEST:
        return colors
    mean = found[sure].mean(0)
    gain = (mean / colors[sure].mean(0).clip(0.02)).clip(0.3, 4)
    return mean + DECODED * ((colors * gain).clip(0, 1) - mean)


def _seen(points: Array, first: Array, mask: np.ndarray, intrinsics: Array, size: float) -> Array:
    """Return 1 for points (N, 3) that the mask shows and nothing hides, falling to 0, (N,)."""
    pixel = np.floor(project(points, intrinsics)).astype(np.int64)
    column, row = pixel.T
    inside = (points[:, 2] > 0) & (column >= 0) & (row >= 0)
    inside &= (column < mask.shape[1]) & (row < mask.shape[0])
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    depth = ndimage.maximum_filter(np.where(np.isfinite(first), first, -np.inf), 3)[row, column]
    behind = (points[:, 2] - depth) / size
    return inside * mask[row, column] * _smooth(2 - behind / BEHIND)


def _clean(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the photo (H, W, 3); pixels at the mask's border get colors from further inside."""
    solid = ndimage.binary_erosion(mask, iterations=2)
    if not solid.any():
        solid = mask
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def _colors(points: Array, photo: np.ndarray, intrinsics: Array) -> Array:
    """Return the photo's colors (N, 3) where points (N, 3) are seen."""
    column, row = (project(points, intrinsics) - 0.5).T
    channels = [
        ndimage.map_coordinates(photo[..., c], [row, column], order=1, mode="nearest")
        for c in range(3)
    ]
    return np.stack(channels, 1)


def _smooth(x: Array) -> Array:
    """Return x limited to 0 ... 1."""
    return np.clip(x, 0.0, 1.0)
