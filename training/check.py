"""Quick measures of stage 1 on held-out samples, for the log: by how many steps, how good."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam3d_nb.model.structure_decoder import decode_structure
from sam3d_nb.model.structure_flow import SHAPE, draw_noise, sample_structure
from sam3d_nb.tiny.config import TINY, VOXELS
from training.stages import Samples
from training.targets import structure_fields

STEPS = (1, 2, 4, 8)
TOLERANCE = 0.05  # of the side of the cube, as the F-score of the evaluation


@torch.no_grad()
def check_structure(
    embedder: nn.Module, flow: nn.Module, decoder: nn.Module, samples: Samples, batch: int = 128
) -> list[str]:
    """Return a line for each number of steps: voxels and layout against the truth.

    F-score: between the occupied voxels' centers, each placed by its own layout, at 0.05.
    """
    lines = []
    for steps in STEPS:
        found = [
            _measure(embedder, flow, decoder, samples, rows, steps)
            for rows in torch.arange(len(samples), device=samples.views.side.device).split(batch)
        ]
        mean = {k: torch.cat([f[k] for f in found]) for k in found[0]}
        text = ", ".join(f"{k} {v.mean():.3f} (median {v.median():.3f})" for k, v in mean.items())
        lines.append(f"held out, {steps} steps: {text}, n {len(samples)}")
    return lines


def _measure(
    embedder: nn.Module,
    flow: nn.Module,
    decoder: nn.Module,
    samples: Samples,
    rows: Tensor,
    steps: int,
) -> dict[str, Tensor]:
    tokens = embedder(samples.inputs(rows, noisy=False))
    generator = torch.Generator(rows.device).manual_seed(0)
    noise = draw_noise(TINY.structure_flow, generator, device=rows.device, batch=len(rows))
    *_, (_, latents) = sample_structure(flow, tokens, noise, TINY.stage1_sampler, steps)
    predicted = decode_structure(decoder, latents[SHAPE])[:, 0] > 0
    views = samples.views[rows]
    true = structure_fields(samples.objects, views)[1]
    both, either = (predicted & true).sum((1, 2, 3)), (predicted | true).sum((1, 2, 3))
    goal = {name: value[rows, 0] for name, value in samples.layout.latents.items()}
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
