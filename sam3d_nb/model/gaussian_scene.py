"""Gaussians of several objects in one camera frame, and their normalization for turntables."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from sam3d_nb.errors import InputError
from sam3d_nb.model.gaussians import GaussianSet
from sam3d_nb.model.layout import Layout, Posed, place_gaussians

OPAQUE = 0.9  # gaussians above this opacity decide what a turntable frames


def place(gaussians: GaussianSet, layout: Layout) -> GaussianSet:
    """Carry one object's gaussians into the published camera frame (x left, y up, z forward).

    Colors and opacities stay. Raises `InputError` unless the pose is one object's with one
    positive scale.
    """
    local = Posed(gaussians.xyz, gaussians.rotation, gaussians.scale, gaussians.kernel_size)
    posed = place_gaussians(local, layout)
    return gaussians.with_activated(
        xyz=posed.centers,
        scale=posed.extents,
        rotation=posed.orientations,
        kernel_size=posed.kernel,
    )


def merge(sets: Sequence[GaussianSet]) -> GaussianSet:
    """Concatenate sets in their order, under the smallest kernel of them all.

    Raw scales stay, as in the released model, so objects with a larger kernel come out slightly
    smaller than alone. Raises `InputError` for no set, or sets of different activations.
    """
    if not sets:
        raise InputError("no gaussian set to merge; give at least 1")
    activations = {(s.scale_bias, s.opacity_bias) for s in sets}
    if len(activations) > 1:
        raise InputError(f"{len(sets)} sets have {len(activations)} different activation biases")
    return GaussianSet(
        raw_xyz=torch.cat([s.raw_xyz for s in sets]),
        raw_color=torch.cat([s.raw_color for s in sets]),
        raw_scale=torch.cat([s.raw_scale for s in sets]),
        raw_rotation=torch.cat([s.raw_rotation for s in sets]),
        raw_opacity=torch.cat([s.raw_opacity for s in sets]),
        kernel_size=min(s.kernel_size for s in sets),
        scale_bias=sets[0].scale_bias,
        opacity_bias=sets[0].opacity_bias,
    )


def normalize_for_video(gaussians: GaussianSet, *, fix_axes: bool = False) -> GaussianSet:
    """Scale the set to longest side 1 around 0, measured on its opaque gaussians.

    `fix_axes` turns (x, y, z) to (-x, z, y) first, on the raw positions, which also moves the
    set; rotations stay. Raises `InputError` where no gaussian has an opacity above 0.9.
    """
    xyz = gaussians.xyz  # (K, 3)
    if fix_axes:
        x, y, z = gaussians.raw_xyz.unbind(1)
        xyz = replace(gaussians, raw_xyz=torch.stack([-x, z, y], 1)).xyz
    opaque = xyz[gaussians.opacity[:, 0] > OPAQUE]
    if not len(opaque):
        raise InputError(f"none of {len(xyz)} gaussians has an opacity above {OPAQUE}")
    low, high = opaque.amin(0), opaque.amax(0)
    size = (high - low).max()
    if size <= 0:
        raise InputError(f"{len(opaque)} opaque gaussians of {len(xyz)} stand in one point")
    return gaussians.with_activated(
        xyz=xyz / size - (low / size + high / size) / 2,
        scale=gaussians.scale / size,
        kernel_size=gaussians.kernel_size / float(size),
    )
