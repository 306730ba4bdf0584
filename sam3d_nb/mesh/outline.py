"""A mask as a flat triangle mesh with a smooth outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtri

from sam3d_nb.mesh.subdivide import split_edges, unique_edges

CELLS = 10_000
"""How many grid cells cover the mask, whatever its size: fine cells where the object is thin."""
LONGEST_SIDE = 768
"""At most so many cells along the longer side of the mask's box."""
SMALLEST_CELL = 0.5  # pixels
BLUR_SHARE, BLUR_RANGE = 0.008, (0.7, 2.5)
"""Pixel steps are smoothed by this share of the mask's size, within a range in pixels."""
NOISE_SHARE = 1e-3
"""Specks and pinholes below this share of the mask's area are errors of segmentation."""


@dataclass(frozen=True, eq=False)
class Outline:
    """A flat triangle mesh that covers a mask.

    points: (P, 2) float64 pixel positions (u, v). faces: (F, 3), counter-clockwise as the viewer
    sees them. border: (P,) bool, the points on the outline. An edge whose two ends lie on the
    border is itself a border edge. cell: mean spacing in pixels.
    """

    points: np.ndarray
    faces: np.ndarray
    border: np.ndarray
    cell: float


def trace(mask: np.ndarray) -> Outline:
    """Return the flat mesh of a mask (H, W) bool that is not empty.

    The outline runs through the half-coverage level of the smoothed mask, on a regular grid. All
    parts stay: what is thinner than a cell is drawn one cell wide. Only specks and pinholes
    below `NOISE_SHARE` of the area are left out.
    """
    mask, corner = _cropped(mask)
    mask, origin = _cropped(_without_noise(mask))
    cell = max(np.sqrt(mask.sum() / CELLS), max(mask.shape) / LONGEST_SIDE, SMALLEST_CELL)
    points, value = _sample_distance(mask, cell)
    faces = _grid_faces(value > 0)
    flat_points, flat_value = points.reshape(-1, 2), value.reshape(-1)
    return _cut_at_zero(flat_points + corner + origin, flat_value, faces, cell)


def _without_noise(mask: np.ndarray) -> np.ndarray:
    """Return the mask without its tiny specks and with its tiny holes filled.

    One that consists of nothing but specks keeps them.
    """
    smallest = NOISE_SHARE * mask.sum()
    for value, neighbors in ((False, 1), (True, 2)):  # first holes, then specks
        structure = ndimage.generate_binary_structure(2, neighbors)  # diagonals hold specks only
        labels, _ = ndimage.label(mask == value, structure)
        area = np.bincount(labels.reshape(-1))
        noise = area < smallest
        noise[0] = False
        cleaned = np.where(noise[labels], not value, mask)
        mask = cleaned if cleaned.any() else mask
    return mask


def _cropped(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask within its bounding box and the box's upper left corner (u, v)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    return mask[top : rows[-1] + 1, left : columns[-1] + 1], np.array([left, top], dtype=float)


def _sample_distance(mask: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Return grid nodes (R, C, 2) as (u, v) and the signed distance to the outline there (R, C).

    Positive inside; in units of the smoothing width, and exact near straight edges: coverage
    across such an edge is the normal distribution function of the distance.
    """
    block = max(int(cell / 2), 1)  # large photos: average what lies far below a cell first
    height, width = (-(-n // block) * block for n in mask.shape)
    padded = np.pad(mask, ((0, height - mask.shape[0]), (0, width - mask.shape[1])))
    blocks = padded.reshape(height // block, block, width // block, block).astype(np.float32)
    coverage = blocks.mean((1, 3))  # (height / block, width / block)

    spacing = cell / block
    blur = np.clip(BLUR_SHARE * np.sqrt(mask.sum()), *BLUR_RANGE)
    sigma = max(0.6 * spacing, float(blur) / block)
    margin = int(np.ceil(2 * spacing + 3 * sigma))
    coverage = np.pad(coverage, margin)
    smooth = ndimage.gaussian_filter(coverage, sigma)
    thin = _thin_parts(coverage > 0, sigma, spacing)

    rows = np.arange(0, coverage.shape[0] - 1, spacing)
    columns = np.arange(0, coverage.shape[1] - 1, spacing)
    nodes = np.stack(np.meshgrid(rows, columns, indexing="ij"))  # (2, R, C) as (row, column)
    share = ndimage.map_coordinates(smooth, nodes, order=1)
    if thin.any():
        touched = ndimage.maximum_filter(thin, size=2 * int(np.ceil((spacing - 1) / 2)) + 1)
        nearest = np.minimum(np.round(nodes).astype(int), np.array(thin.shape)[:, None, None] - 1)
        share = np.where(touched[tuple(nearest)], np.maximum(share, 0.8), share)
    points = (nodes[::-1].transpose(1, 2, 0) + 0.5 - margin) * block  # pixel centers at + 0.5
    return points, ndtri(np.clip(share, 1e-4, 1 - 1e-4))


def _thin_parts(mask: np.ndarray, sigma: float, spacing: float) -> np.ndarray:
    """Return the pixels (H, W) of those parts that smoothing by `sigma` would wipe out.

    They are what a morphological opening removes, save the corners of thicker parts.
    """
    radius = 0.75 * sigma + 0.5
    core = ndimage.distance_transform_edt(mask) > radius
    mask = _bridged(mask)
    if not core.any():
        return mask
    distance = ndimage.distance_transform_edt(~core)
    lost = mask & (distance > radius)
    labels, count = ndimage.label(lost, structure=np.ones((3, 3)))
    reach = ndimage.maximum(distance, labels, index=np.arange(count + 1))
    return lost & (np.asarray(reach)[labels] > radius + max(spacing, 1.5))


def _bridged(mask: np.ndarray) -> np.ndarray:
    """Return the mask (H, W) with a pixel added wherever two touch at a corner only."""
    result = mask.copy()
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    result[:-1, 1:] |= a & d & ~b & ~c
    result[:-1, :-1] |= b & c & ~a & ~d
    return result


def _grid_faces(inside: np.ndarray) -> np.ndarray:
    """Return two triangles (F, 3) for every grid cell that has a node inside (R, C)."""
    index = np.arange(inside.size).reshape(inside.shape)
    near = inside[:-1, :-1] | inside[1:, :-1] | inside[:-1, 1:] | inside[1:, 1:]
    row, column = np.nonzero(near)
    upper_left, upper_right = index[row, column], index[row, column + 1]
    lower_left, lower_right = index[row + 1, column], index[row + 1, column + 1]
    falling = np.stack(
        [upper_left, lower_left, lower_right, upper_left, lower_right, upper_right], axis=1
    )
    rising = np.stack(
        [upper_left, lower_left, upper_right, lower_left, lower_right, upper_right], axis=1
    )
    alternate = ((row + column) % 2 == 0)[:, None]  # no direction is preferred
    return np.where(alternate, falling, rising).reshape(-1, 3)


def _cut_at_zero(points: np.ndarray, value: np.ndarray, faces: np.ndarray, cell: float) -> Outline:
    """Return the part of the flat mesh where `value` (P,) is positive, cut along its zero level."""
    edges, face_edges = unique_edges(faces)
    start, end = edges.T
    crossing = (value[start] > 0) != (value[end] > 0)
    start, end = start[crossing], end[crossing]
    share = np.clip(value[start] / (value[start] - value[end]), 0.02, 0.98)[:, None]
    midpoint = np.full(len(edges), -1)
    midpoint[crossing] = len(points) + np.arange(len(start))
    faces = split_edges(faces, face_edges, midpoint)

    outside = np.concatenate([value <= 0, np.zeros(len(start), dtype=bool)])
    border = np.concatenate([np.zeros(len(points), dtype=bool), np.ones(len(start), dtype=bool)])
    points = np.concatenate([points, points[start] * (1 - share) + points[end] * share])
    used, faces = np.unique(faces[~outside[faces].any(1)], return_inverse=True)
    return Outline(points[used], faces.reshape(-1, 3), border[used], cell)
