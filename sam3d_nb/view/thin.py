"""Less for the screen: fewer and larger gaussians."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from sam3d_nb.splats import Gaussians

FAINTEST = 0.02
"""Gaussians of less opacity are left out first."""


def thinned_gaussians(gaussians: Gaussians, budget: int) -> Gaussians:
    """Return at most `budget` of the gaussians, for looking at them and for nothing else.

    All where they are few enough. Otherwise as many of those that can be seen at all, drawn with a
    fixed seed, and so much wider that they cover the same area.
    """
    if len(gaussians) <= budget:
        return gaussians
    visible = np.flatnonzero(gaussians.opacities >= FAINTEST)
    kept = np.sort(np.random.default_rng(0).permutation(visible)[:budget])
    chosen = {field.name: getattr(gaussians, field.name)[kept] for field in fields(Gaussians)}
    wider = np.sqrt(len(visible) / max(len(kept), 1))
    return Gaussians(**(chosen | {"scales": chosen["scales"] * np.float32(wider)}))
