"""Masks as run lengths: small enough to keep in a history and to send to a browser."""

from __future__ import annotations

import numpy as np

from sam3d_nb.errors import InputError

FEW_RUNS = 50_000
"""Below this number a loop over the runs is quicker than a repetition of every pixel."""


def encode_runs(mask: np.ndarray) -> np.ndarray:
    """Return lengths of the runs of equal pixels of `mask` (H, W) bool, row by row, as uint32.

    The first run is outside the mask, and has length 0 where the first pixel is inside.
    """
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)  # (H * W,)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([changes, [flat.size]])
    starts = np.concatenate([[0], changes])
    runs = (ends - starts).astype(np.uint32)
    return np.concatenate([np.zeros(1, np.uint32), runs]) if flat.size and flat[0] else runs


def decode_runs(runs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of `runs`; raises InputError where they do not fill `shape`."""
    lengths = np.asarray(runs, dtype=np.int64)
    height, width = shape
    if int(lengths.sum()) != height * width:
        raise InputError(
            f"runs of {int(lengths.sum())} pixels do not fill a mask of {width} x {height}"
        )
    if len(lengths) > FEW_RUNS:
        inside = np.arange(len(lengths)) % 2 == 1
        return np.repeat(inside, lengths).reshape(shape)
    flat = np.zeros(height * width, dtype=bool)
    ends = np.cumsum(lengths)
    for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=False):
        flat[start:end] = True
    return flat.reshape(shape)


def count_pixels(runs: np.ndarray) -> int:
    """Return how many pixels are inside."""
    return int(runs[1::2].sum(dtype=np.int64))


def sample(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return `mask` (H, W) bool at `shape` (h, w): the pixel below each new pixel's center."""
    if mask.shape == shape:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[rows][:, columns]
