"""Colors of the photo on what it shows of an object, and colors that go with them on the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sam3d_nb.devices import with_doubles
from sam3d_nb.engine.results import to_host, to_linear
from sam3d_nb.frames import Array, Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.splats import Gaussians
from sam3d_nb.tiny.pixels import between, largest, project
from sam3d_nb.tiny.window import around
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
    device: torch.device | str = "cpu",
) -> tuple[Mesh, Gaussians | None]:
    """Return mesh and gaussians with the photo's colors where the photo shows them.

    mesh: object frame, with vertex colors; pose: into the camera. image: (H, W, 3) uint8; mask:
    (H, W) bool; intrinsics: (3, 3) in pixels. The surface seen first counts for both. device:
    where that is computed.
    """
    part = around(mask, MARGIN, FINEST)
    if not len(mesh.faces) or mesh.colors is None or part is None:
        return mesh, gaussians
    device = with_doubles(torch.device(device))
    intrinsics, mask = part.intrinsics(intrinsics), part.some(mask)
    photo = torch.from_numpy(_clean(part.mean(image) / 255, mask)).to(device)
    shown = torch.from_numpy(mask).to(device)
    placed = _placed(mesh.vertices, pose, device)
    camera = Camera(mask.shape[0], mask.shape[1], intrinsics)
    first = rasterize(placed, torch.tensor(mesh.faces), camera).depth
    first = largest(torch.where(first.isfinite(), first, -torch.inf), 3)

    def seen(points: Tensor) -> Tensor:
        return _seen(points, project(points, intrinsics), first, shown, pose.scale[0])

    weight = _facing(mesh, placed, pose) * seen(placed)
    found = to_linear(between(photo, project(placed, intrinsics)))
    mesh = mesh.with_colors(_blended(mesh.colors, found, weight))
    if gaussians is None:
        return mesh, None
    centers = _placed(gaussians.centers, pose, device)
    found = between(photo, project(centers, intrinsics))
    return mesh, replace(gaussians, colors=_blended(gaussians.colors, found, seen(centers)))


def _placed(points: np.ndarray, pose: Pose, device: torch.device) -> Tensor:
    """Return points (N, 3) of the object frame in the camera, float64."""
    matrix = torch.from_numpy(pose.matrix()).to(device)
    moved = torch.tensor(points, dtype=torch.float64, device=device) @ matrix[:3, :3].T
    return moved + matrix[:3, 3]


def _facing(mesh: Mesh, placed: Tensor, pose: Pose) -> Tensor:
    """Return 1 for vertices (V,) that face the camera, falling to 0 where they are grazed."""
    rotation = torch.from_numpy(Pose(pose.rotation).matrix()[:3, :3]).to(placed)
    normals = placed.new_tensor(mesh.normals) @ rotation.T
    cosine = -(normals * placed).sum(1) / torch.linalg.vector_norm(placed, dim=1)
    return ((cosine - GRAZING) / 0.25).clamp(0, 1)


def _blended(colors: np.ndarray, found: Tensor, weight: Tensor) -> np.ndarray:
    """Return the photo's colors `found` (N, 3) where `weight` (N,) is 1, and others where it is 0.

    Those are a guess out of the decoded `colors` (N, 3): the mean of what the photo shows is a
    better one, but decoded colors, as bright as the photo where it shows them, tell parts apart.
    """
    guess, sure = found.new_tensor(colors), weight > 0.9
    if int(sure.sum()) >= FEWEST:
        mean = found[sure].mean(0)
        gain = (mean / guess[sure].mean(0).clamp(min=0.02)).clamp(0.3, 4)
        guess = mean + DECODED * ((guess * gain).clamp(0, 1) - mean)
    return to_host(torch.lerp(guess, found, weight[:, None]).float())


def _seen(points: Tensor, at: Tensor, first: Tensor, shown: Tensor, size: float) -> Tensor:
    """Return 1 for points that the mask shows and nothing hides, falling to 0, (N,).

    points: (N, 3) in the camera; at: their pixels (N, 2). first: (h, w) depth of the surface seen
    first, or beside it; shown: (h, w) bool, the mask. size: of the object.
    """
    height, width = shown.shape
    column, row = at.floor().unbind(1)
    inside = (points[:, 2] > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    pixel = torch.where(inside, row * width + column, 0).long()
    behind = (points[:, 2] - first.take(pixel)) / size
    return inside * shown.take(pixel) * (2 - behind / BEHIND).clamp(0, 1)


def _clean(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the photo (H, W, 3); pixels at the mask's border get colors from further inside."""
    solid = ndimage.binary_erosion(mask, iterations=2)
    if not solid.any():
        solid = mask
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return image[tuple(nearest)]
