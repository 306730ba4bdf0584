"""A contact sheet: photo, masks, and every object or the scene from four sides beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.request import mask_index_of
from sam3d_nb.scene import Scene
from sam3d_nb.view.masks import (
    DARK,
    PAPER,
    draw_legend,
    draw_masks,
    legend_width,
    show_masks,
    typeface,
)
from sam3d_nb.view.render import LIGHT, render
from sam3d_nb.view.world import Frame, Item, ball, photo_direction, upright

SIDES = {"front": (0, 0), "three-quarter": (45, 15), "side": (90, 0), "back": (180, 0)}
"""Views by name: azimuth and elevation in degrees beyond the direction of the photo."""
GAP = 12


def contact_sheet(
    example: Example, results: Object3D | Sequence[Object3D] | Scene, *, size: int = 260
) -> Image.Image:
    """Return photo and masks, and below a row an object: its photo, then itself from four sides.

    A scene is one row, all of its objects together, and only their masks are drawn. Front is the
    side that the photo shows; all stand as the photo's camera has them, a scene as its world has
    it. Where the example knows the true mesh of an object, or of all objects of the scene, that is
    the row below, from the same directions. size: pixels of one picture's side. A notebook
    displays the sheet; `.save("sheet.png")` keeps it.

    Raises InputError where there is no object, or one was made from a mask that is not there.
    """
    if isinstance(results, Scene):
        return _page(with_masks_of(example, results), _scene_rows(example, results, size))
    results = [results] if isinstance(results, Object3D) else list(results)
    if not results:
        raise InputError("a contact sheet needs at least one object")
    return _page(example, [row for r in results for row in _object_rows(example, r, size)])


def with_masks_of(example: Example, scene: Scene) -> Example:
    """Return the example with the masks of the scene's objects alone: others may be damaged."""
    made = [mask_index_of(thing, example) for thing in scene]
    masks = {index: example.masks[index] for index in example.masks if index in made}
    return replace(example, masks=masks)


def _page(example: Example, rows: list[Image.Image]) -> Image.Image:
    """Return photo and masks with the rows below them, all as wide as the widest row."""
    width = max(row.width for row in rows) + 2 * GAP
    blocks = [_overview(example, width), *rows]
    page = Image.new("RGB", (width, sum(b.height + GAP for b in blocks) + GAP), PAPER)
    top = GAP
    for block in blocks:
        page.paste(block, (GAP, top))
        top += block.height + GAP
    return page


def _overview(example: Example, width: int) -> Image.Image:
    """Return the photo, the photo with its masks, and the names below it or, if narrow, beside."""
    width -= 2 * GAP
    half = (width - GAP) // 2
    photo = Image.fromarray(example.image)
    photo.thumbnail((half, half), Image.Resampling.LANCZOS)
    names = legend_width(example.names)
    if 0 < names <= width - 2 * (photo.width + GAP):
        masks = draw_masks(example.image, example.masks, size=half)
        pictures = [photo, masks, draw_legend(example.names, names)]
    else:
        pictures = [photo, show_masks(example, size=half)]
    page = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = (width - sum(picture.width + GAP for picture in pictures) + GAP) // 2
    for picture in pictures:
        page.paste(picture, (left, 0))
        left += picture.width + GAP
    return page


def _object_rows(example: Example, result: Object3D, size: int) -> list[Image.Image]:
    """Return the object's title, its row and, where it is known, the row of the truth."""
    index = mask_index_of(result, example)
    center, _ = ball(upright([result]))
    direction = photo_direction(center)
    title = f"{result.name}{'' if index is None else f' (mask {index})'}"
    made = f"{result.provenance.model}, {len(result.mesh.faces):,} triangles"
    made += ", depth estimated" if result.depth_is_estimated else ""
    blank = Image.new("RGB", (size, size), PAPER)
    photo = blank if index is None else cutout(example.image, example.mask(index), size)
    truth = None if index is None else example.true_mesh(index)
    if index is not None:
        _name(photo, "photo")
    rows = _titled(f"{title}: {made}", [photo, *_sides([result], direction, size)])
    if truth is not None:
        title = f"truth: {len(truth.faces):,} triangles"
        rows += _titled(title, [blank, *_sides([truth], direction, size)])
    return rows


def _scene_rows(example: Example, scene: Scene, size: int) -> list[Image.Image]:
    """Return the scene's title, its row and, where all of it is known, the row of the truth."""
    center, _ = ball(upright(scene))
    direction = photo_direction(center, scene.world.translation)
    rows = _titled(scene_title(scene), _sides([scene], direction, size))
    if truth := _true_scene(example, scene):
        title = f"truth: {sum(len(mesh.faces) for mesh in truth):,} triangles"
        rows += _titled(title, _sides(truth, direction, size, "object"))
    return rows


def scene_title(scene: Scene) -> str:
    """Return what was made, by which models, and what was not known."""
    parts = ["scene", "1 object" if len(scene) == 1 else f"{len(scene)} objects"]
    parts += [f"{len(scene.failures)} failed"] if scene.failures else []
    made = list(dict.fromkeys(thing.provenance.model for thing in scene))
    made += [f"{sum(len(thing.mesh.faces) for thing in scene):,} triangles"]
    made += [f"upright by {scene.realign}"] if scene.realign != "none" else []
    made += ["depth estimated"] if any(thing.depth_is_estimated for thing in scene) else []
    return f"{', '.join(parts)}: {', '.join(made)}"


def _true_scene(example: Example, scene: Scene) -> list[Mesh]:
    """Return the true meshes of the scene's objects in its world; none unless all are known."""
    indices = [mask_index_of(thing, example) for thing in scene]
    known = [None if index is None else example.true_mesh(index) for index in indices]
    return [
        mesh.with_vertices(scene.world.apply(mesh.vertices).astype(np.float32))
        for mesh in known
        if mesh is not None and None not in known
    ]


def _sides(
    items: Sequence[Item],
    direction: tuple[float, float],
    size: int,
    frame: Frame | None = None,
) -> list[Image.Image]:
    """Return a picture a side, with the side's name on it."""
    pictures = []
    for name, (azimuth, elevation) in SIDES.items():
        around, above = direction[0] + azimuth, min(85.0, direction[1] + elevation)
        picture = Image.fromarray(render(items, around, above, size, frame=frame))
        _name(picture, name)
        pictures.append(picture)
    return pictures


def _name(picture: Image.Image, name: str) -> None:
    """Write what a square picture shows into its corner."""
    size = picture.height
    font = typeface(max(11, size // 20))
    ImageDraw.Draw(picture).text((6, size - 6), name, fill=DARK, font=font, anchor="ls")


def _titled(title: str, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the title and, to be set below it, the square pictures beside each other."""
    size = pictures[0].height
    row = Image.new("RGB", (len(pictures) * (size + GAP) - GAP, size), PAPER)
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * (size + GAP), 0))
    font = typeface(max(12, size // 16))
    caption = Image.new("RGB", (row.width, round(font.size * 1.6)), PAPER)
    baseline = round(font.size * 1.2)
    ImageDraw.Draw(caption).text((0, baseline), title, fill=DARK, font=font, anchor="ls")
    return [caption, row]


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
