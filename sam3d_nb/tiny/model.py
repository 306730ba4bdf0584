"""The model that comes with the package: the published network made small, trained anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.engine.options import Options
from sam3d_nb.events import TextureEvent
from sam3d_nb.frames import FACING_CAMERA, Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.preprocess import image_tensor
from sam3d_nb.pipeline import Reconstruction, Run
from sam3d_nb.request import Request
from sam3d_nb.splats import Gaussians
from sam3d_nb.tiny.observe import observe
from sam3d_nb.tiny.paint import paint

NAME = "tiny"


class Tiny(Sam3dObjects):
    """Mesh, gaussians and pose of one object by networks of 50 MB that come with the package.

    The stages are those of `Sam3dObjects` with three more steps: voxels are made consistent with
    the point map and the mask (`observe`); shapes, which the networks see in the axes of the
    camera, are turned upright; what the photo shows gets its colors (`paint`).
    """

    name = NAME

    @torch.no_grad()
    def _stages(self, request: Request, options: Options, cache: SceneCache) -> Run:
        self.memory.begin()
        generator = torch.Generator(self.device).manual_seed(request.seed)
        image = image_tensor(torch.tensor(request.image))  # (3, H, W)
        depth = yield from self.estimate_depth(request, image, cache)
        condition = yield from self.embed(request, image, depth, cache)
        latents, logits = yield from self.sample_structure(condition.tokens[0], generator, options)
        pose = yield from self.place(latents, condition.moments)
        points = depth.points.numpy()
        logits = observe(logits, facing(pose), points, request.mask, depth.intrinsics)
        voxels = yield from self.occupied(logits, generator, options)
        latent, grid = yield from self.sample_latent(
            voxels, condition.tokens[1], generator, options
        )
        gaussians = yield from self.decode_gaussians(latent, grid, options)
        mesh = yield from self.decode_mesh(latent, grid, options)
        yield TextureEvent(fraction=0.0)
        mesh, gaussians = upright(mesh, gaussians, pose)
        mesh, gaussians = paint(
            mesh, gaussians, pose, request.image, request.mask, depth.intrinsics
        )
        yield TextureEvent(fraction=1.0)
        settings = self.settings(options) | {"point_map": depth.source}
        return Reconstruction(mesh, pose, gaussians, depth.intrinsics, settings)


def facing(pose: Pose) -> Pose:
    """Return the pose of the view cube: the object's place and size, facing the camera."""
    return replace(pose, rotation=FACING_CAMERA)


def upright(mesh: Mesh, gaussians: Gaussians | None, pose: Pose) -> tuple[Mesh, Gaussians | None]:
    """Return what was decoded in the axes of the camera in the object's upright frame.

    `pose` carries the result to where `facing(pose)` carries the input.
    """
    turn = Pose(pose.rotation).inverse() @ Pose(FACING_CAMERA)
    vertices = turn.apply(mesh.vertices) if len(mesh.vertices) else np.zeros((0, 3))
    return mesh.with_vertices(vertices), None if gaussians is None else gaussians.placed(turn)
