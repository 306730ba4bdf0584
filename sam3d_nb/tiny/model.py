"""The model that comes with the package: the published network made small, trained anew."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sam3d_nb.engine.model import Decoded, Sam3dObjects
from sam3d_nb.engine.options import Options
from sam3d_nb.engine.stages import GIVEN, Depth
from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, LayoutEvent, TextureEvent
from sam3d_nb.frames import FACING_CAMERA, Pose, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.pointmap import PointMapOptions
from sam3d_nb.model.preprocess import Moments, pad_square
from sam3d_nb.model.sampler import Latents
from sam3d_nb.model.surface import Sculpt
from sam3d_nb.request import Request
from sam3d_nb.splats import Gaussians
from sam3d_nb.tiny.crumbs import without_crumbs
from sam3d_nb.tiny.hold import holding
from sam3d_nb.tiny.observe import observe
from sam3d_nb.tiny.paint import paint
from sam3d_nb.tiny.pierce import pierced
from sam3d_nb.tiny.sculpt import Sculptor
from sam3d_nb.tiny.shipped import NAME
from sam3d_nb.tiny.trim import trimmed


class Tiny(Sam3dObjects):
    """Mesh, gaussians and pose of one object by networks of 47 MB that come with the package.

    The stages are those of `Sam3dObjects` with more steps: voxels are made consistent with the
    point map and the mask (`observe`), and so is the surface (`Sculptor`, `trimmed`); shapes,
    which the networks see in the axes of the camera, are turned upright; what the photo shows gets
    its colors (`paint`).
    """

    name = NAME
    # its depth was trained up to a factor, and points are to lie where the photo shows them
    pointmap_options = PointMapOptions(fit_shift=False, force_projection=True)

    def chosen(self, **options: Any) -> Options:
        """Return the options; raises InputError for few steps, whose shortcut was not trained."""
        found = super().chosen(**options)
        if found.few_step:
            usual = [sampler.steps for sampler in Options().samplers(self.config)]
            raise InputError(
                f"{self.name} has no few-step mode, its shortcut was not trained; leave few_step "
                f"out: it takes no more than {usual[0]} and {usual[1]} steps anyway"
            )
        return found

    def _estimate(self, image: Tensor) -> Depth:
        """Estimate the point map of a photo (3, H, W) with bars that make it square.

        The network was trained on such photos.
        """
        height, width = image.shape[1:]
        found = super()._estimate(pad_square(image))
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        intrinsics = found.intrinsics.copy()
        intrinsics[:2, 2] -= left, top
        points = found.points[top : top + height, left : left + width].clone()
        return found._replace(points=points, intrinsics=intrinsics)

    def settle(
        self,
        request: Request,
        depth: Depth,
        moments: Moments,
        latents: Latents,
        logits: Tensor,  # (1, 1, R, R, R)
        generator: torch.Generator,
        options: Options,
    ) -> Generator[Event, None, tuple[Voxels, Pose]]:
        """Place the view cube, and make its voxels agree with what the camera saw."""
        pose = yield from self.place(latents, moments)
        points = depth.points.numpy()
        exact = depth.source == GIVEN
        if exact:
            pose = holding(pose, points, request.mask)
            yield LayoutEvent(1.0, pose)
        logits = observe(logits, facing(pose), points, request.mask, depth.intrinsics, exact=exact)
        return (yield from self.occupied(logits, generator, options)), pose

    def sculpting(self, request: Request, depth: Depth, pose: Pose) -> Sculpt:
        """Let the surface agree with what the camera saw, see `Sculptor`."""
        return Sculptor(
            facing(pose),
            depth.points.numpy(),
            request.mask,
            depth.intrinsics,
            exact=depth.source == GIVEN,
        )

    def extract(
        self, decoder: MeshDecoder, latent: Tensor, grid: Grid, sculpt: Sculpt | None = None
    ) -> Surface:
        """Return the surface that `decoder` sees, with the outline that the photo shows."""
        surface = without_crumbs(super().extract(decoder, latent, grid, sculpt))
        if isinstance(sculpt, Sculptor):
            surface = pierced(trimmed(surface, sculpt), sculpt)
        return surface

    def framed(self, mesh: Mesh, gaussians: Gaussians | None, pose: Pose) -> Decoded:
        """Turn what was decoded upright, see `upright`."""
        return upright(mesh, gaussians, pose)

    def colored(
        self,
        mesh: Mesh,
        gaussians: Gaussians | None,
        pose: Pose,
        request: Request,
        depth: Depth,
    ) -> Generator[Event, None, Decoded]:
        """Paint what the photo shows, see `paint`."""
        yield TextureEvent(fraction=0.0)
        photo = request.image, request.mask, depth.intrinsics
        found = paint(mesh, gaussians, pose, *photo, device=self.device)
        yield TextureEvent(fraction=1.0)
        return found


def facing(pose: Pose) -> Pose:
    """Return the pose of the view cube: the object's place and size, facing the camera."""
    return replace(pose, rotation=FACING_CAMERA)


def upright(mesh: Mesh, gaussians: Gaussians | None, pose: Pose) -> Decoded:
    """Return what was decoded in the axes of the camera in the object's upright frame.

    `pose` carries the result to where `facing(pose)` carries the input.
    """
    turn = Pose(pose.rotation).inverse() @ Pose(FACING_CAMERA)
    turned = mesh.turned(rotation_matrix(turn.rotation))
    return turned, None if gaussians is None else gaussians.placed(turn)
