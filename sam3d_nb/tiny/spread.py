"""Colors carried on over the edges of a mesh, from where they are known to what is next to it."""

from __future__ import annotations

import torch
from torch import Tensor

from sam3d_nb.engine.sums import sums

AHEAD = [1, 2, 0]  # the next corner of a triangle, by its corners


def spread(
    colors: Tensor,  # (V, 3) float64
    known: Tensor,  # (V,) bool
    faces: Tensor,  # (F, 3)
    rings: int,
) -> tuple[Tensor, Tensor]:
    """Return colors (V, 3) carried on over so many edges, and how many each took, (V,).

    A vertex takes the mean of its neighbors that had theirs an edge before; at an open border only
    in the direction of its triangles. Where none came it keeps its color: infinitely many edges.
    """
    start, end = faces.reshape(-1).long(), faces[:, AHEAD].reshape(-1).long()
    taken = torch.where(known, 0.0, torch.inf).to(colors)
    for ring in range(1, rings + 1):
        done = taken.isfinite()
        step = done[start] & ~done[end]
        if not bool(step.any()):
            break
        target = end[step]
        given = torch.cat([colors[start[step]], colors.new_ones(len(target), 1)], 1)
        total = sums(given, target, len(colors))  # (V, 4)
        reached = total[:, 3] > 0
        colors = torch.where(reached[:, None], total[:, :3] / total[:, 3:].clamp(min=1), colors)
        taken = taken.where(~reached, ring)
    return colors, taken
