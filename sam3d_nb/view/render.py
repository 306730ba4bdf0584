"""Shaded pictures of meshes, headless: from any side, or as the photo's camera sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.mesh import Mesh
from sam3d_nb.view.camera import Camera, orbit_camera
from sam3d_nb.view.raster import Raster, rasterize
from sam3d_nb.view.shading import (
    GREY,
    LINEAR_OF_SRGB,
    sample_texture,
    shrink,
    to_srgb,
    with_normals,
)
from sam3d_nb.view.world import Frame, Item, ball, turned, upright

Color = tuple[int, int, int]
LIGHT = (244, 244, 242)
AMBIENT = 0.55  # share of light that comes from everywhere; the rest comes from the lamp
LAMP = (-0.35, -0.5, 0.0)  # beside the camera: left and up, in distances to what is seen
SAMPLES = 2  # a pixel's side, against jagged edges
MARGIN = 1.02  # of the ball that the picture holds


def render(
    item: Item | Sequence[Item],
    azimuth: float = 30.0,
    elevation: float = 15.0,
    size: int | tuple[int, int] = 512,
    *,
    background: Color | None = LIGHT,
    frame: Frame | None = None,
) -> np.ndarray:
    """Return a picture of an object, a mesh or a list of them, (H, W, 3) uint8 sRGB.

    azimuth, elevation: degrees; 0, 0 is the front, azimuth 90 the object's +x side. size: pixels,
    a side or (height, width). background: a color, or None for a transparent picture
    (H, W, 4) with straight alpha. frame: see `upright`.

    Raises InputError where there is nothing to show.
    """
    meshes = upright(item, frame)
    center, radius = ball(meshes)
    camera = orbit_camera(center, radius * MARGIN, azimuth, elevation, size=size)
    return picture(meshes, camera, background=background)


def render_photo_view(
    item: Item | Sequence[Item],
    intrinsics: np.ndarray,
    height: int,
    width: int,
    *,
    background: Color | None = None,
) -> np.ndarray:
    """Return objects (by their poses) and meshes (camera frame) as the photo's camera sees them.

    intrinsics: K (3, 3) in pixels. (H, W, 4) uint8 with straight alpha, or (H, W, 3) on a
    background color.
    """
    items = list(item) if isinstance(item, Sequence) else [item]
    meshes = [turned(mesh) for mesh in upright(items)]
    return picture(meshes, Camera(height, width, intrinsics), background=background)


def picture(
    meshes: Sequence[Mesh], camera: Camera, *, background: Color | None = LIGHT
) -> np.ndarray:
    """Return what `camera` sees of `meshes` in its world, (H, W, 3); (H, W, 4) on no background.

    Lambert shading in linear light by one soft lamp beside the camera; both sides of a triangle
    are lit. Colors come from the texture, else from the vertices, else are grey.
    """
    k = camera.intrinsics * np.array([[SAMPLES], [SAMPLES], [1]])
    fine = replace(
        camera, height=camera.height * SAMPLES, width=camera.width * SAMPLES, intrinsics=k
    )
    light = torch.zeros(fine.height, fine.width, 4)
    drawn = [with_normals(mesh) for mesh in meshes if len(mesh.faces)]
    if drawn:
        counts = [len(mesh.vertices) for mesh, _ in drawn]
        offsets = np.cumsum([0, *counts[:-1]])
        vertices = torch.from_numpy(np.concatenate([mesh.vertices for mesh, _ in drawn]))
        faces = torch.from_numpy(
            np.concatenate([m.faces + n for (m, _), n in zip(drawn, offsets, strict=True)])
        ).to(torch.int64)
        raster = rasterize(vertices, faces, fine)
        normals = torch.from_numpy(np.concatenate([n for _, n in drawn]))
        seen = raster.covered
        color = surface_colors([mesh for mesh, _ in drawn], raster)  # (N, 3)
        shade = _lambert(vertices, faces, normals, raster, fine)  # (N, 1)
        light[seen] = torch.cat([color * shade, torch.ones_like(shade)], 1)
    return _develop(light, background)


def surface_colors(meshes: Sequence[Mesh], raster: Raster) -> Tensor:
    """Return the color of `meshes`, rasterized as one, at every covered pixel, (N, 3) linear.

    It comes from the texture, else from the vertices, else it is grey; there is no light.
    """
    face, weights = raster.face[raster.covered], raster.barycentric[raster.covered]
    color = torch.full((len(face), 3), GREY)
    first = 0
    for mesh in meshes:
        mine = ((face >= first) & (face < first + len(mesh.faces))).nonzero()[:, 0]
        faces, visible = torch.from_numpy(mesh.faces).to(torch.int64), face[mine] - first
        corners = faces[visible]  # (n, 3)
        first += len(mesh.faces)

        def blend(
            values: np.ndarray, corners: Tensor = corners, share: Tensor = weights[mine]
        ) -> Tensor:
            return (torch.from_numpy(values)[corners] * share[..., None]).sum(1)

        if mesh.texture is not None and mesh.uv is not None:
            texture = LINEAR_OF_SRGB[torch.tensor(mesh.texture, dtype=torch.int64)]
            pixels = torch.bincount(visible, minlength=len(faces))  # (F,)
            texels = torch.from_numpy(mesh.uv) * torch.tensor(mesh.texture.shape[1::-1])
            factor = _texels_a_pixel(texels[faces[pixels > 0]], len(mine))
            color[mine] = sample_texture(shrink(texture, factor), blend(mesh.uv))
        elif mesh.colors is not None:
            color[mine] = blend(mesh.colors)
    return color


def _texels_a_pixel(texels: Tensor, pixels: int) -> int:
    """Return by how much, a power of two, a texture is finer than the picture, on the whole.

    texels: (F, 3, 2) texture positions of the triangles seen; pixels: how many see them.
    """
    p, q = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
    area = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).abs().sum() / 2
    return 1 << int(np.log2(max(float(area) / max(pixels, 1), 1.0)) / 2)


def _lambert(
    vertices: Tensor, faces: Tensor, normals: Tensor, raster: Raster, camera: Camera
) -> Tensor:
    """Return how brightly every covered pixel is lit, (N, 1) in [AMBIENT, 1]."""
    face, weights = raster.face[raster.covered], raster.barycentric[raster.covered]
    points = camera.to_camera(vertices).float()  # (V, 3)
    normals = normals @ torch.from_numpy(camera.rotation).float().T
    a, b, c = points[faces].unbind(1)
    flat = torch.linalg.cross(b - a, c - a)  # (F, 3)
    corners = faces[face]  # (N, 3)
    place = (points[corners] * weights[..., None]).sum(1)  # (N, 3)
    normal = (normals[corners] * weights[..., None]).sum(1)
    to_eye = torch.tensor([[0.0, 0, -1]]) if camera.orthographic else -place
    away = (flat[face] * to_eye).sum(1, keepdim=True) < 0
    normal = torch.where(away, -normal, normal)
    to_lamp = torch.tensor(LAMP) * place[:, 2].median() - place
    facing = torch.cosine_similarity(normal, to_lamp, dim=1).clamp(min=0)
    return AMBIENT + (1 - AMBIENT) * facing[:, None]


def _develop(light: Tensor, background: Color | None) -> np.ndarray:
    """Average the samples of (H S, W S, 4) premultiplied linear light and encode as sRGB."""
    height, width = light.shape[0] // SAMPLES, light.shape[1] // SAMPLES
    mean = light.view(height, SAMPLES, width, SAMPLES, 4).mean((1, 3))  # (H, W, 4)
    alpha = mean[..., 3:]
    color = to_srgb(mean[..., :3] / alpha.clamp(min=1e-6))
    if background is None:
        result = torch.cat([color, alpha], -1)
    else:
        result = color * alpha + torch.tensor(background).float() / 255 * (1 - alpha)
    return (result * 255).round().to(torch.uint8).numpy()
