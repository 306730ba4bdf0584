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
from sam3d_nb.tiny.match import matched
from sam3d_nb.tiny.nearest import nearest
from sam3d_nb.tiny.pixels import between, largest, pixel_of, project, smallest
from sam3d_nb.tiny.spread import spread
from sam3d_nb.tiny.window import around
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize

BEHIND = 0.02  # of the object's size: what lies this far behind the visible surface is hidden
FINEST = 512  # about so many pixels across the mask are looked at: vertices are farther apart
MARGIN = 4  # pixels around the mask
FEWEST = 50  # colored points of which a mean is taken
DECODED = 0.4  # share of the decoded colors, without which hidden parts have one color
GRAZING = 0.15  # cosine between normal and line of sight from which on a mean is taken
FACING = 0.1  # cosine from which on a vertex has the photo's color
CERTAIN = 0.9  # weight from which on a point's color is that of the photo
REACH = 4  # edges of the mesh that colors of the photo are carried on over; then 63 % is a guess
SHADE = 0.02  # of sRGB: how far colors at the border may be beyond those further inside


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
    (H, W) bool; intrinsics: (3, 3) in pixels. The surface seen first counts for both. Pixels at the
    mask's border mix the object with what is beside it: what they show has no color that is not
    further inside as well, but in parts too thin to have an inside. device: where that is computed.
    """
    part = around(mask, MARGIN, FINEST)
    if not len(mesh.faces) or mesh.colors is None or part is None:
        return mesh, gaussians
    device = with_doubles(torch.device(device))
    intrinsics, mask, beside = part.intrinsics(intrinsics), part.some(mask), part.some(~mask)
    photo, shown, whole = (
        torch.from_numpy(a).to(device) for a in (part.mean(image) / 255, mask, ~beside)
    )
    rim = max(1, round(max(mask.shape) / FINEST))  # pixels: soft photos are large ones
    clean, near = _clean(photo, mask, rim), largest(shown, 2 * rim + 1)
    placed, faces = _placed(mesh.vertices, pose, device), torch.tensor(mesh.faces, device=device)
    raster = rasterize(placed, faces, Camera(mask.shape[0], mask.shape[1], intrinsics))
    first = largest(torch.where(raster.covered, raster.depth, -torch.inf), 3)

    def seen(points: Tensor, at: Tensor) -> Tensor:
        return _seen(points, at, first, near, pose.scale[0])

    at = project(placed, intrinsics)
    colors, weight = placed.new_tensor(mesh.colors), seen(placed, at)
    found, facing = to_linear(between(clean, at)), _facing(mesh, placed, pose)
    sure = weight * ((facing - GRAZING) / 0.25).clamp(0, 1)
    guess = _near_seen(_guessed(colors, found, sure), found, sure > CERTAIN, faces)
    colors = torch.lerp(guess, found, (weight * (facing / FACING).clamp(0, 1))[:, None])
    wanted = _unmixed(photo, whole, rim).double()
    colors = matched(colors, faces, raster, to_linear(wanted), whole)
    mesh = mesh.with_colors(to_host(colors.float()))
    if gaussians is None:
        return mesh, None
    centers = _placed(gaussians.centers, pose, device)
    at = project(centers, intrinsics)
    found, weight = between(clean, at), seen(centers, at)
    guess = _guessed(centers.new_tensor(gaussians.colors), found, weight)
    colors = torch.lerp(guess, found, weight[:, None])
    return mesh, replace(gaussians, colors=to_host(colors.float()))


def _placed(points: np.ndarray, pose: Pose, device: torch.device) -> Tensor:
    """Return points (N, 3) of the object frame in the camera, float64."""
    matrix = torch.from_numpy(pose.matrix()).to(device)
    moved = torch.tensor(points, dtype=torch.float64, device=device) @ matrix[:3, :3].T
    return moved + matrix[:3, 3]


def _facing(mesh: Mesh, placed: Tensor, pose: Pose) -> Tensor:
    """Return the cosine between the vertices' normals and the lines of sight, (V,)."""
    rotation = torch.from_numpy(Pose(pose.rotation).matrix()[:3, :3]).to(placed)
    normals = placed.new_tensor(mesh.normals) @ rotation.T
    return -(normals * placed).sum(1) / torch.linalg.vector_norm(placed, dim=1)


def _guessed(colors: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Return colors (N, 3) for what the photo does not show, out of the decoded `colors`.

    found: the photo's (N, 3), where `weight` (N,) is high. Their mean is the better guess; the
    decoded colors, as bright as the photo where it shows them, still tell the parts apart.
    """
    sure = weight > CERTAIN
    if int(sure.sum()) < FEWEST:
        return colors
    mean = found[sure].mean(0)
    gain = (mean / colors[sure].mean(0).clamp(min=0.02)).clamp(0.3, 4)
    return mean + DECODED * ((colors * gain).clamp(0, 1) - mean)


def _near_seen(guess: Tensor, found: Tensor, sure: Tensor, faces: Tensor) -> Tensor:
    """Return the guessed colors (V, 3), near the `sure` vertices (V,) more like what they show.

    So thin parts have one color all around, and there is no seam where the photo ends.
    """
    carried, edges = spread(found, sure, faces, 2 * REACH)
    return torch.lerp(guess, carried, torch.exp(-((edges / REACH) ** 2))[:, None])


def _seen(points: Tensor, at: Tensor, first: Tensor, shown: Tensor, size: float) -> Tensor:
    """Return 1 for points that the mask shows and nothing hides, falling to 0, (N,).

    points: (N, 3) in the camera; at: their pixels (N, 2). first: (h, w) depth of the surface seen
    first, or beside it; shown: (h, w) bool, the mask and what is next to it. size: of the object.
    """
    inside, pixel = pixel_of(at, shown.shape)
    behind = (points[:, 2] - first.take(pixel)) / size
    return inside * (points[:, 2] > 0) * shown.take(pixel) * (2 - behind / BEHIND).clamp(0, 1)


def _clean(photo: Tensor, mask: np.ndarray, rim: int) -> Tensor:
    """Return the photo (h, w, 3); pixels at the mask's border get colors from further inside.

    In a part too thin to have an inside, that is its middle.
    """
    enough = rim + 2  # pixels from what is beside the mask; nothing is known beside the photo
    wider = np.pad(np.pad(mask, enough, mode="edge"), 1)
    depth = ndimage.distance_transform_cdt(wider, "taxicab").clip(max=enough)
    depth = depth[enough + 1 : -enough - 1, enough + 1 : -enough - 1]
    solid = mask & (depth == ndimage.maximum_filter(depth, 4 * rim + 5))
    return photo.view(-1, 3)[nearest(torch.from_numpy(solid).to(photo.device))]


def _unmixed(photo: Tensor, whole: Tensor, rim: int) -> Tensor:
    """Return the photo (h, w, 3) without what is beside the object in the pixels of its border.

    whole: (h, w) bool, pixels that the mask fills; the outer `rim` of them may be mixed, and have
    no color that the inner ones around do not have. Parts too thin for inner ones stay as they are.
    """
    inner, size = ~largest(~whole, 2 * rim + 1)[..., None], 2 * rim + 3
    low = smallest(torch.where(inner, photo, torch.inf), size)
    high = largest(torch.where(inner, photo, -torch.inf), size)
    return torch.where(low <= high, photo.clamp(low - SHADE, high + SHADE), photo)
