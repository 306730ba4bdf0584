"""A photo with its masks on it: colored, outlined and numbered, with a legend."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example

PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Colors that people with color-blindness can tell apart (Okabe and Ito 2008), used in turn."""
OPACITY = 0.45
DARK, PAPER = (24, 24, 24), (255, 255, 255)
LEGEND_FONT, LEGEND_PAD, LEGEND_SWATCH = 15, 12, 40


def show_masks(example: Example, *, size: int = 900) -> Image.Image:
    """Return the photo with every mask colored, outlined and numbered, and the names below.

    The numbers are the masks' indices; each stands where its mask is widest. size: pixels of the
    longer side; smaller photos stay as they are. A notebook displays the picture.

    Raises InputError where a mask has another size than the photo.
    """
    photo = draw_masks(example.image, example.masks, size=size)
    if not example.masks:
        return photo
    names = draw_legend(example.names, photo.width)
    page = Image.new("RGB", (photo.width, photo.height + names.height), PAPER)
    page.paste(photo, (0, 0))
    page.paste(names, (0, photo.height))
    return page


def draw_masks(
    image: np.ndarray, masks: Mapping[int, np.ndarray], *, size: int = 900
) -> Image.Image:
    """Return `image` (H, W, 3) uint8 with `masks`, index to (H, W) bool, drawn on it.

    size: pixels of the longer side, where the photo is larger.
    """
    height, width = image.shape[:2]
    for index, mask in masks.items():
        if mask.shape != (height, width):
            raise InputError(f"mask {index} is {mask.shape} but the image is {(height, width)}")
    scale = min(1.0, size / max(height, width))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    photo = np.asarray(Image.fromarray(image).resize(small, Image.Resampling.LANCZOS))
    shapes = {
        index: np.asarray(Image.fromarray(mask).convert("L").resize(small, Image.Resampling.BOX))
        >= 128
        for index, mask in masks.items()
    }
    order = sorted(shapes, key=lambda index: -int(masks[index].sum()))  # small ones on top
    visible = _visible(shapes, order)
    picture = _colored(photo, shapes, order)
    draw = ImageDraw.Draw(picture)
    font = typeface(max(13, round(max(small) / 40)))
    taken = np.zeros(photo.shape[:2], dtype=bool)
    for index in reversed(order):  # small ones have the least choice of places
        areas = (visible[index] & ~taken, visible[index], shapes[index])
        area = next((area for area in areas if area.any()), None)
        if area is not None:
            row, column = pole(area)
            wide, high = _number(draw, index, (row, column), font)
            top, left = max(0, round(row - 2 * high)), max(0, round(column - 2 * wide))
            taken[top : round(row + 2 * high), left : round(column + 2 * wide)] = True
    return picture


def color_of(index: int) -> tuple[int, int, int]:
    """Return the color of mask `index`, (red, green, blue)."""
    return PALETTE[index % len(PALETTE)]


def pole(mask: np.ndarray) -> tuple[int, int]:
    """Return (row, column) of the pixel that is farthest from the outside of `mask` (H, W) bool.

    Raises InputError where the mask is empty.
    """
    if not mask.any():
        raise InputError("an empty mask has no place for a number")
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(row), int(column)


def _visible(shapes: dict[int, np.ndarray], order: list[int]) -> dict[int, np.ndarray]:
    """Return what of each mask no later one in `order` covers."""
    result, covered = {}, np.array(False)
    for index in reversed(order):
        result[index] = shapes[index] & ~covered
        covered = covered | shapes[index]
    return result


def _colored(photo: np.ndarray, shapes: dict[int, np.ndarray], order: list[int]) -> Image.Image:
    """Lay the masks over `photo`, each with a light line within a dark one around it."""
    canvas = photo.astype(np.float32)
    line = max(1, round(max(photo.shape) / 450))
    for index in order:
        shape, color = shapes[index], np.array(color_of(index), dtype=np.float32)
        canvas[shape] += (color - canvas[shape]) * OPACITY
        inner = ndimage.binary_erosion(shape, iterations=line, border_value=1)
        outer = ndimage.binary_dilation(shape, iterations=line)
        canvas[outer & ~shape] = DARK
        canvas[shape & ~inner] = color
    return Image.fromarray(canvas.round().astype(np.uint8))


def _number(
    draw: ImageDraw.ImageDraw,
    index: int,
    place: tuple[int, int],
    font: ImageFont.FreeTypeFont,
) -> tuple[float, float]:
    """Write `index` in a dark pill edged with its color, centered at (row, column).

    Returns half the pill's width and height.
    """
    text, (row, column) = str(index), place
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    half_height = (bottom - top) / 2 + font.size * 0.28
    half_width = max((right - left) / 2 + font.size * 0.35, half_height)
    frame = (column - half_width, row - half_height, column + half_width, row + half_height)
    edge = max(2, round(font.size / 8))
    draw.rounded_rectangle(frame, half_height, fill=DARK, outline=color_of(index), width=edge)
    draw.text((column, row), text, fill=PAPER, font=font, anchor="mm")
    return half_width, half_height


def legend_width(names: Mapping[int, str]) -> int:
    """Return the width in pixels that a legend of one column needs; 0 without names."""
    font = typeface(LEGEND_FONT)
    widest = max((round(font.getlength(name)) for name in names.values()), default=0)
    return widest + 4 * LEGEND_PAD + LEGEND_SWATCH if names else 0


def draw_legend(names: Mapping[int, str], width: int) -> Image.Image:
    """Return number, color and name of every mask, in as many columns as fit `width` pixels."""
    font = typeface(LEGEND_FONT)
    pad, height, swatch = LEGEND_PAD, 30, LEGEND_SWATCH
    cell = min(width, legend_width(names))
    columns = max(1, width // cell)
    rows = -(-len(names) // columns)
    page = Image.new("RGB", (width, rows * height + pad), PAPER)
    draw = ImageDraw.Draw(page)
    for place, (index, name) in enumerate(sorted(names.items())):
        x, y = place // rows * cell + pad, place % rows * height + (pad + height) // 2
        draw.rectangle((x, y - 11, x + swatch, y + 11), fill=color_of(index))
        _number(draw, index, (y, x + swatch // 2), font)
        draw.text((x + swatch + pad, y), name, fill=DARK, font=font, anchor="lm")
    return page


def typeface(size: int) -> ImageFont.FreeTypeFont:
    """Return a typeface with most of the world's letters, which comes with matplotlib."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
