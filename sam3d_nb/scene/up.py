"""Which way is up in a photo, and where the floor is: flat surfaces vote with their area."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PHOTO_UP = np.array([0.0, -1.0, 0.0])
STEEPEST_DOWN, STEEPEST_UP, LARGEST_ROLL = 65.0, 30.0, 35.0
"""Degrees by which a camera is held, at most, when a photo is taken."""
WIDTHS = (5.0, 3.0, 2.0, 1.0)
"""Degrees over which votes count as one, from the search to the last refinement."""
STRIDES = 160
"""Patches that a point map is divided into along its longer side."""
LEVEL = float(np.cos(np.radians(12)))
"""A patch belongs to a floor if its normal is within 12 degrees of up."""


class Votes(NamedTuple):
    """Directions that flat surfaces face, in the camera frame."""

    directions: np.ndarray  # (N, 3) unit
    weights: np.ndarray  # (N,) area


class Patches(NamedTuple):
    """Small pieces of the surface that a point map shows, in the camera frame."""

    centers: np.ndarray  # (N, 3)
    normals: np.ndarray  # (N, 3) unit, towards the camera
    areas: np.ndarray  # (N,)


def plausible(directions: np.ndarray) -> np.ndarray:
    """Tell which of `directions` (N, 3) could be up in a photo that somebody took, (N,) bool."""
    x, y, z = directions.T
    tilt = np.degrees(np.arcsin(np.clip(-z, -1, 1)))  # of a camera that looks down
    roll = np.degrees(np.arctan2(x, -y))
    return (tilt >= -STEEPEST_UP) & (tilt <= STEEPEST_DOWN) & (np.abs(roll) <= LARGEST_ROLL)


def elect(votes: Votes) -> np.ndarray | None:
    """Return the direction (3,) that most of the area faces, None where no vote is plausible.

    Votes within a few degrees of each other support each other; the result is their weighted mean,
    over ever narrower neighborhoods (mean shift).
    """
    likely = plausible(votes.directions) & (votes.weights > 0)
    directions, weights = votes.directions[likely], votes.weights[likely]
    if not len(directions):
        return None
    seeds = _seeds() if len(directions) > 500 else directions
    up = seeds[_support(seeds, directions, weights, WIDTHS[0]).argmax()]
    for width in WIDTHS:
        for _ in range(20):
            near = weights * _nearness(up[None], directions, width)[0]
            if near.sum() <= 0:
                break
            mean = near @ directions
            before, up = up, mean / np.linalg.norm(mean)
            if np.abs(up - before).max() < 1e-9:
                break
    return up


def _seeds() -> np.ndarray:
    """Return plausible directions (N, 3) about 3 degrees apart: a spiral over the sphere."""
    count = 4_500
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], axis=1)
    return sphere[plausible(sphere)]


def _support(
    seeds: np.ndarray, directions: np.ndarray, weights: np.ndarray, width: float
) -> np.ndarray:
    """Return the votes for each of `seeds` (S, 3), (S,), a chunk at a time."""
    chunks = np.array_split(seeds, max(1, len(seeds) * len(directions) // 4_000_000))
    return np.concatenate([_nearness(chunk, directions, width) @ weights for chunk in chunks])


def _nearness(ups: np.ndarray, directions: np.ndarray, width: float) -> np.ndarray:
    """Return a bell over the angle between `ups` (S, 3) and `directions` (N, 3), (S, N)."""
    cosine = (ups @ directions.T).clip(-1, 1)
    return np.exp((cosine - 1) / np.radians(width) ** 2)


def patches_of(pointmap: np.ndarray) -> Patches:
    """Return the patches of a point map (H, W, 3), NaN where unknown; none across an edge."""
    step = max(1, max(pointmap.shape[:2]) // STRIDES)
    grid = pointmap[::step, ::step].astype(np.float64)
    here, right, below = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1]
    across = np.cross(below - here, right - here).reshape(-1, 3)  # towards the camera
    centers = here.reshape(-1, 3)
    area = np.linalg.norm(across, axis=1)
    sides = np.stack([right - here, below - here]).reshape(2, -1, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        jump = np.abs(sides[..., 2]).max(0) / centers[:, 2]
        kept = (area > 0) & (jump < 0.15)
    normals = across[kept] / area[kept, None]
    facing = (normals * centers[kept]).sum(1) < 0
    areas = area[kept].clip(max=5 * np.median(area[kept])) if kept.any() else area[kept]
    return Patches(centers[kept][facing], normals[facing], areas[facing])


def floor_height(patches: Patches, up: np.ndarray) -> float | None:
    """Return the height along `up` (3,) of the lowest large level surface, None without one.

    Large is what has a quarter of the area of the largest one at least; level surfaces together
    must be 2 % of all that is seen.
    """
    level = patches.normals @ up > LEVEL
    areas = patches.areas[level]
    if not level.any() or areas.sum() < 0.02 * patches.areas.sum():
        return None
    heights = patches.centers[level] @ up
    bin_size = 0.01 * float(np.median(np.linalg.norm(patches.centers, axis=1)))
    bins = np.floor((heights - heights.min()) / bin_size).astype(int) + 1
    amount = np.bincount(bins, weights=areas, minlength=bins.max() + 2)
    smooth = np.convolve(amount, np.ones(3), mode="same")
    lowest = int(np.flatnonzero(smooth >= smooth.max() / 4)[0])
    while lowest + 1 < len(smooth) and smooth[lowest + 1] > smooth[lowest]:
        lowest += 1
    near = np.abs(bins - lowest) <= 1
    return float(np.average(heights[near], weights=areas[near]))
