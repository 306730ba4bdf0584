"""The photo of one object as a texture without any background in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

LARGEST_TEXTURE = 2048
RIM = 2.0  # pixels along the outline that are mixed with the background in a usual photo


@dataclass(frozen=True, eq=False)
class Cutout:
    """A texture and how photo pixels map to it.

    texture: (h, w, 3) uint8 sRGB; both sides are powers of two, which every viewer can filter.
    origin: photo position (u, v) of the texture's upper left corner. scale: texels a photo pixel.
    """

    texture: np.ndarray
    origin: np.ndarray
    scale: float

    def uv(self, pixels: np.ndarray) -> np.ndarray:
        """Return texture coordinates (N, 2), origin upper left, of photo positions (N, 2)."""
        height, width = self.texture.shape[:2]
        return (pixels - self.origin) * self.scale / np.array([width, height])


def cut_out(image: np.ndarray, mask: np.ndarray, margin: int = 4) -> Cutout:
    """Return the texture of the masked object; everything around it repeats its nearest color.

    image: (H, W, 3) uint8; mask: (H, W) bool, not empty. The outermost `RIM` pixels of the object
    are repainted from within too, since they hold some background; thin parts keep their own.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    box = (slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1))
    colors, inside = _shrunk(image[box], mask[box], LARGEST_TEXTURE - 2 * margin)
    scale = colors.shape[1] / (box[1].stop - left)

    height, width = (1 << int(n + 2 * margin - 1).bit_length() for n in colors.shape[:2])
    below, right = (height - margin - colors.shape[0], width - margin - colors.shape[1])
    inside = np.pad(inside, ((margin, below), (margin, right)))
    colors = np.pad(colors, ((margin, below), (margin, right), (0, 0)))
    nearest = ndimage.distance_transform_edt(
        ~_pure(inside), return_distances=False, return_indices=True
    )
    origin = np.array([left, top]) - margin / scale
    return Cutout(np.ascontiguousarray(colors[tuple(nearest)]), origin, scale)


def _shrunk(colors: np.ndarray, inside: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask scaled so that no side is longer than `largest`."""
    height, width = inside.shape
    factor = largest / max(height, width)
    if factor >= 1:
        return colors, inside
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    small = Image.fromarray(colors).resize(size, Image.Resampling.BOX)
    share = Image.fromarray(inside.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    covered = np.asarray(share)
    return np.asarray(small), covered > min(127, int(covered.max()) - 1)


def _pure(inside: np.ndarray) -> np.ndarray:
    """Return the pixels whose color is surely the object's (H, W)."""
    core = ndimage.distance_transform_edt(inside) > RIM
    if not core.any():
        return inside
    return core | (inside & (ndimage.distance_transform_edt(~core) > 2 * RIM))
