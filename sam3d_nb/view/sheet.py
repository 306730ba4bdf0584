"""A contact sheet: photo, masks, and every object from four sides beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example
from sam3d_nb.object3d import Object3D
from sam3d_nb.view.masks import DARK, PAPER, show_masks, typeface
from sam3d_nb.view.render import LIGHT, render
from sam3d_nb.view.world import Item, ball, photo_direction, upright

SIDES = {"front": (0, 0), "three-quarter": (45, 15), "side": (90, 0), "back": (180, 0)}
"""Views by name: azimuth and elevation in degrees beyond the direction of the photo."""
GAP = 12


def contact_sheet(
    example: Example, results: Object3D | Sequence[Object3D], *, size: int = 260
) -> Image.Image:
    """Return photo and masks, and below a row an object: its photo, then itself from four sides.

    Front is the side that the photo shows; all stand as the photo's camera has them. Where the
    example knows an object's true mesh, that is the row below it, from the same directions. size:
    pixels of one picture's side. A notebook displays the sheet; `.save("sheet.png")` keeps it.

    Raises InputError where there is no object, or one was made from a mask that is not there.
    """
    results = [results] if isinstance(results, Object3D) else list(results)
    if not results:
        raise InputError("a contact sheet needs at least one object")
    width = (len(SIDES) + 1) * (size + GAP) + GAP
    blocks = [_overview(example, width)]
    for result in results:
        blocks += _object_rows(example, result, size)
    page = Image.new("RGB", (width, sum(b.height + GAP for b in blocks) + GAP), PAPER)
    top = GAP
    for block in blocks:
        page.paste(block, (GAP, top))
        top += block.height + GAP
    return page


def _overview(example: Example, width: int) -> Image.Image:
    """Return the photo and, beside it, the photo with its masks."""
    half = (width - 3 * GAP) // 2
    masks = show_masks(example, size=half)
    photo = Image.fromarray(example.image)
    photo.thumbnail((half, half), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (width - 2 * GAP, max(photo.height, masks.height)), PAPER)
    page.paste(photo, (0, 0))
    page.paste(masks, (half + GAP, 0))
    return page


def _object_rows(example: Example, result: Object3D, size: int) -> list[Image.Image]:
    """Return the object's title, its row and, where it is known, the row of the truth."""
    index = result.provenance.mask_index
    center, _ = ball(upright([result]))
    direction = photo_direction(center)
    title = f"{result.name}{'' if index is None else f' (mask {index})'}"
    made = f"{result.provenance.model}, {len(result.mesh.faces):,} triangles"
    made += ", depth estimated" if result.depth_is_estimated else ""
    photo = None if index is None else cutout(example.image, example.mask(index), size)
    truth = None if index is None else example.true_mesh(index)
    rows = [_caption(f"{title}: {made}", size), _row(result, direction, photo, size)]
    if truth is not None:
        rows += [
            _caption(f"truth: {len(truth.faces):,} triangles", size),
            _row(truth, direction, None, size),
        ]
    return rows


def _row(
    item: Item, direction: tuple[float, float], photo: Image.Image | None, size: int
) -> Image.Image:
    """Return a picture a side, with the photo's part before them."""
    row = Image.new("RGB", ((len(SIDES) + 1) * (size + GAP) - GAP, size), PAPER)
    if photo is not None:
        row.paste(photo, (0, 0))
    draw = ImageDraw.Draw(row)
    font = typeface(max(11, size // 20))
    for place, (name, (azimuth, elevation)) in enumerate(SIDES.items(), start=1):
        around, above = direction[0] + azimuth, min(85.0, direction[1] + elevation)
        left = place * (size + GAP)
        row.paste(Image.fromarray(render([item], around, above, size)), (left, 0))
        draw.text((left + 6, size - 6), name, fill=DARK, font=font, anchor="ls")
    return row


def cutout(image: np.ndarray, mask: np.ndarray, size: int) -> Image.Image:
    """Return the photo's part around `mask` as a square of `size` pixels, the rest faded."""
    rows, columns = np.nonzero(mask)
    middle = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    half = max(np.ptp(rows), np.ptp(columns)) * 0.56 + 2
    faded = image * 0.2 + np.array(LIGHT) * 0.8
    shown = Image.fromarray(np.where(mask[..., None], image, faded).round().astype(np.uint8))
    frame = (middle[1] - half, middle[0] - half, middle[1] + half, middle[0] + half)
    square = Image.new("RGB", (round(2 * half), round(2 * half)), LIGHT)
    square.paste(shown, (-round(frame[0]), -round(frame[1])))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _caption(text: str, size: int) -> Image.Image:
    font = typeface(max(12, size // 16))
    page = Image.new("RGB", ((len(SIDES) + 1) * (size + GAP) - GAP, round(font.size * 1.6)), PAPER)
    baseline = round(font.size * 1.2)
    ImageDraw.Draw(page).text((0, baseline), text, fill=DARK, font=font, anchor="ls")
    return page
