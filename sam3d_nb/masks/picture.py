"""What a picker sends to the browser: a scaled photo, and masks of that size as run lengths."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from sam3d_nb.masks.runs import encode_runs, sample
from sam3d_nb.view.masks import pole

LONGEST_SIDE = 1600
"""Pixels of the longer side of the photo in the browser; larger photos are scaled down."""
BADGE_SIDE = 160
"""The place of a number is looked for at this size."""


def scaled_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of a photo of `shape` (H, W) in the browser."""
    scale = min(1.0, LONGEST_SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def scaled(image: np.ndarray) -> np.ndarray:
    """Return `image` (H, W, 3) uint8 at the size for the browser."""
    height, width = scaled_shape((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))


def compressed(image: np.ndarray) -> bytes:
    """Return `image` (h, w, 3) uint8 as JPEG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def drawn_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return `mask` (H, W) bool as the browser draws it.

    runs: lengths of the runs at the scaled size, uint32 in little-endian bytes. place: x, y in
    pixels of the scaled photo where a number fits, None for an empty mask.
    """
    small = sample(mask, scaled_shape((mask.shape[0], mask.shape[1])))
    return {"runs": encode_runs(small).astype("<u4").tobytes(), "place": _place(small)}


def _place(small: np.ndarray) -> list[float] | None:
    height, width = small.shape
    scale = min(1.0, BADGE_SIDE / max(small.shape))
    tiny = sample(small, (max(1, round(height * scale)), max(1, round(width * scale))))
    if not tiny.any():
        if not small.any():
            return None
        row, column = np.argwhere(small)[0].tolist()
        return [column + 0.5, row + 0.5]
    row, column = pole(tiny)
    return [(column + 0.5) * width / tiny.shape[1], (row + 0.5) * height / tiny.shape[0]]
