"""How far the colors of an object are off: in the photo's own view, and all over its surface.

Both are peak signal-to-noise ratios over sRGB values in [0, 1], the mean square over all channels,
in decibels, and at most `BEST`. No light is guessed: the colors of the mesh are taken as they are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize
from sam3d_nb.view.render import surface_colors
from sam3d_nb.view.shading import GREY, LINEAR_OF_SRGB, sample_texture

BEST = 60.0


def color_psnr(mesh: Mesh, intrinsics: np.ndarray, image: np.ndarray, mask: np.ndarray) -> float:
    """Return the PSNR between the photo and the unlit mesh in its view, over the mask's pixels.

    mesh: in the camera frame. image: (H, W, 3) uint8; mask: (H, W) bool, what is visible of the
    object. A pixel of the mask that the mesh leaves empty counts as grey, which is also the color
    of a mesh that has none: so missing parts cost something, and never more than a wrong color can.
    What the mesh covers outside the mask is the matter of the silhouette IoU.
    """
    camera = Camera(mask.shape[0], mask.shape[1], intrinsics)
    vertices = torch.from_numpy(mesh.vertices.copy())
    faces = torch.from_numpy(mesh.faces.copy())
    raster = rasterize(vertices, faces, camera)
    drawn = np.full((*mask.shape, 3), GREY)
    drawn[raster.covered.numpy()] = surface_colors([mesh], raster).numpy()
    return psnr(to_srgb(drawn[mask].clip(0, 1)), image[mask] / 255)


def surface_color_psnr(
    points: np.ndarray, colors: np.ndarray, true_points: np.ndarray, true_colors: np.ndarray
) -> float:
    """Return the PSNR between the colors of two surfaces, each point with the nearest of the other.

    points, true_points: (N, 3), (M, 3) in one frame; colors, true_colors: sRGB in [0, 1], the same
    shapes. Both directions count alike, as in the Chamfer distance, so that every side of the
    object counts, seen in the photo or not.
    """
    forward = cKDTree(true_points).query(points)[1]
    backward = cKDTree(points).query(true_points)[1]
    errors = (
        ((colors - true_colors[forward]) ** 2).mean(),
        ((colors[backward] - true_colors) ** 2).mean(),
    )
    return _decibels(float(sum(errors)) / 2)


def point_colors(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Return sRGB colors (N, 3) in [0, 1] of points on a mesh, None where it has no colors.

    face: (N,) the triangles that the points lie in; weights: (N, 3) barycentric coordinates.
    """
    corners, share = mesh.faces[face], weights[..., None]  # (N, 3), (N, 3, 1)
    if mesh.texture is not None and mesh.uv is not None:
        texture = LINEAR_OF_SRGB[torch.from_numpy(mesh.texture.astype(np.int64))]
        uv = (mesh.uv[corners] * share).sum(1)
        linear = sample_texture(texture, torch.from_numpy(uv).float()).numpy()
    elif mesh.colors is not None:
        linear = (mesh.colors[corners] * share).sum(1)
    else:
        return None
    return to_srgb(linear.astype(np.float64).clip(0, 1))


def grey(count: int) -> np.ndarray:
    """Return the sRGB colors (count, 3) of points on a mesh without colors."""
    return np.full((count, 3), to_srgb(np.array(GREY)))


def psnr(values: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of values in [0, 1]; NaN where there are none."""
    return _decibels(float(((values - wanted) ** 2).mean())) if values.size else math.nan


def _decibels(square: float) -> float:
    return min(BEST, -10 * math.log10(max(square, 1e-30)))
