"""Quick measures of stage 1 on held-out samples, for the log: by how many steps, how good."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.model.structure_decoder import decode_structure
from sam3d_nb.model.structure_flow import SHAPE, draw_noise, sample_structure
from sam3d_nb.tiny.config import TINY, VOXELS
from training.depth import focal_of, looked, relief_error
from training.samples import Samples
from training.targets import structure_fields

STEPS = (2, 4)
TOLERANCE = 0.05  # of the side of the cube, as the F-score of the evaluation


@torch.no_grad()
def check_depth(network: nn.Module, samples: Samples, batch: int = 256) -> str:
    """Return a line about the depth network: an object's own relief, depth, and the camera.

    Relief: error up to a factor an object, in sides of its view cube, beside that of a flat one;
    depth: mean absolute log depth up to a factor a photo; field of view: in degrees, beside that of
    one and the same for all.
    """
    pool, found = samples.pool, []
    for rows in torch.arange(len(samples), device=pool.object.device).split(batch):
        slopes, log_z, mask = looked(network, pool.full_image[rows])
        z = pool.full_points[rows, 2].float() + pool.center[rows, 2, None, None]
        known = z.isfinite()
        true = z.where(known, 1.0).log()
        error, there = (log_z - true).where(known, 0.0), known.float()
        on_object, side = pool.full_mask[rows] & known, samples.views.side[rows]
        shift = (error * there).sum((1, 2)) / there.sum((1, 2))
        depth = ((error - shift[:, None, None]).abs() * there).sum((1, 2)) / there.sum((1, 2))
        relief, flat = (
            relief_error(e, on_object, side, z.where(known, 0.0)) for e in (error, true)
        )
        half = pool.image.shape[-1] / 2
        true_view, view = (
            2 * torch.rad2deg((half / focal).atan())
            for focal in (pool.full_intrinsics[rows, 0, 0], focal_of(slopes, mask > 0.5))
        )
        found.append(torch.stack([relief, flat, depth, (view - true_view).abs(), true_view]))
    relief, flat, depth, off, view = torch.cat(found, 1)
    same = (view - view.median()).abs()
    return (
        f"held out, depth: relief {relief.mean():.4f} (flat {flat.mean():.4f}), "
        f"depth {depth.mean():.3f}, field of view {off.mean():.1f} degrees (one for all "
        f"{same.mean():.1f}), n {len(samples)}"
    )


@torch.no_grad()
def check_structure(
    embedder: nn.Module,
    flow: nn.Module,
    decoder: nn.Module,
    samples: Samples,
    batch: int = 128,
    *,
    estimated: bool = False,
) -> list[str]:
    """Return a line for each number of steps: voxels and layout against the truth.

    estimated: with the point maps of the depth network, against the layout in its camera, on the
    objects that it sees anything of.

    F-score: between the occupied voxels' centers, each placed by its own layout, at 0.05.
    """
    lines = []
    everything = torch.arange(len(samples), device=samples.views.side.device)
    if estimated and samples.estimates is not None:
        everything = everything[samples.estimates.usable]
    for steps in STEPS:
        found = [
            _measure(embedder, flow, decoder, samples, rows, steps, estimated)
            for rows in everything.split(batch)
        ]
        mean = {k: torch.cat([f[k] for f in found]) for k in found[0]}
        text = ", ".join(f"{k} {v.mean():.3f} (median {v.median():.3f})" for k, v in mean.items())
        given = "estimated points" if estimated else "given points"
        lines.append(f"held out, {given}, {steps} steps: {text}, n {len(everything)}")
    return lines


def _measure(
    embedder: nn.Module,
    flow: nn.Module,
    decoder: nn.Module,
    samples: Samples,
    rows: Tensor,
    steps: int,
    estimated: bool,
) -> dict[str, Tensor]:
    choice = torch.full_like(rows, estimated, dtype=torch.bool)
    tokens = embedder(samples.inputs(rows, choice, noisy=False))
    generator = torch.Generator(rows.device).manual_seed(0)
    noise = draw_noise(TINY.structure_flow, generator, device=rows.device, batch=len(rows))
    *_, (_, latents) = sample_structure(flow, tokens, noise, TINY.stage1_sampler, steps)
    predicted = decode_structure(decoder, latents[SHAPE])[:, 0] > 0
    views = samples.views[rows]
    true = structure_fields(samples.objects, views)[1]
    both, either = (predicted & true).sum((1, 2, 3)), (predicted | true).sum((1, 2, 3))
    goal = {name: value[:, 0] for name, value in samples.layouts(rows, choice).items()}
    side = goal["scale"].mean(1).exp()  # in units of the object's moments
    side_found = latents["scale"][:, 0].mean(1).exp()
    shift = (latents["translation"][:, 0] - goal["translation"]) / side[:, None]
    # the camera's axes are those of the view cube up to order and sign: x left, y up, z away
    to_view = shift.new_tensor([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    placed = _f_scores(predicted, true, side_found / side, shift @ to_view.T)
    return {
        "voxel IoU": both / either.clamp_min(1),
        "F placed": placed,
        "F shape": _f_scores(predicted, true, torch.ones_like(side), shift * 0),
        "translation": shift.norm(dim=1),
        "scale": (side_found / side).log().abs(),
        "up": _degrees(latents["6drotation_normalized"][:, 0], goal["6drotation_normalized"]),
    }


def _degrees(found: Tensor, true: Tensor) -> Tensor:
    """Return the angle between two ups: the last row of the rotation, (B,)."""
    from sam3d_nb.model.layout import matrix_from_six

    mean = found.new_tensor(TINY.layout.rotation_mean)
    std = found.new_tensor(TINY.layout.rotation_std)
    a, b = (matrix_from_six(six.float() * std + mean)[:, 2] for six in (found, true))
    return torch.rad2deg(F.cosine_similarity(a, b).clamp(-1, 1).acos())


def _f_scores(predicted: Tensor, true: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scores = []
    for p, t, s, d in zip(predicted, true, scale, shift, strict=True):
        a = ((p.nonzero() + 0.5) / VOXELS - 0.5) * s + d
        b = (t.nonzero() + 0.5) / VOXELS - 0.5
        if not len(a) or not len(b):
            scores.append(scale.new_zeros(()))
            continue
        distance = torch.cdist(a, b)
        precision = (distance.amin(1) < TOLERANCE).float().mean()
        recall = (distance.amin(0) < TOLERANCE).float().mean()
        scores.append(2 * precision * recall / (precision + recall).clamp_min(1e-6))
    return torch.stack(scores)
