"""A sheet of pictures: what a model makes of objects drawn at random, good and bad ones alike.

`python tools/sheet.py --model NAME --examples DIR --count 24 --seed 0 --output docs/NAME.png`.
An object's row has its photo with the outline of its mask, the prediction from three sides and the
truth from the same three sides. Both are seen by the same cameras, which go around the upright of
the scene where the example tells it, so a wrong place or size shows as well. The seed alone draws
the objects. After them come those of a real photo, which has no truth. Needs the package, not
Blender.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from sam3d_nb.errors import Sam3dError
from sam3d_nb.evaluation.surface import compare_surfaces, sample_surface
from sam3d_nb.examples import Example, list_examples, load_example
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model
from sam3d_nb.view.camera import orbit_camera
from sam3d_nb.view.masks import DARK, PAPER, typeface
from sam3d_nb.view.render import LIGHT, picture
from sam3d_nb.view.world import ball, photo_direction
from sam3d_nb.zoo import load_model

SIDES = (0, 90, 180)
"""Degrees around the object, from where the photo was taken."""
OUTLINE = (255, 0, 200)
LARGEST_VIEW = 1.6  # radius of what a picture holds, at most, in radii of the true object
POINTS = 10_000
GAP = 4
LARGEST_FILE = 1_500_000  # bytes


@dataclass(frozen=True, eq=False)
class Entry:
    """One object of the sheet. predicted: in the camera frame, None where the model failed."""

    example: Example
    index: int
    predicted: Mesh | None
    true: Mesh | None
    reason: str = ""

    @property
    def caption(self) -> str:
        """Name of the object and, where there is a truth, the F-score as it is placed."""
        text = f"{self.example.name}: {self.example.names[self.index]}"
        if self.predicted is None or self.true is None:
            return text
        side = float(np.ptp(self.true.bounds, axis=0).max())
        points = (
            sample_surface(m, POINTS, s) / side for s, m in enumerate((self.predicted, self.true))
        )
        return f"{text}, F-score {compare_surfaces(*points).f_score:.2f}"


def draw_objects(
    examples: Sequence[str | Path], count: int, seed: int
) -> list[tuple[str | Path, int]]:
    """Return `count` objects drawn by `seed` alone, in the order of their names."""
    objects = [(path, index) for path in examples for index in load_example(path).masks]
    if len(objects) <= count:
        return objects
    chosen = np.random.default_rng(seed).choice(len(objects), count, replace=False)
    return [objects[place] for place in sorted(chosen.tolist())]


def reconstruct(model: Model, objects: Sequence[tuple[str | Path, int]]) -> list[Entry]:
    """Return an entry an object, also where the model failed."""
    entries = []
    for path, index in objects:
        example = load_example(path)
        true = example.true_mesh(index)
        try:
            predicted = model.reconstruct(example, index).mesh_in_camera()
            entries.append(Entry(example, index, predicted, true))
        except Sam3dError as error:
            entries.append(Entry(example, index, None, true, str(error)))
    return entries


def draw_sheet(entries: Sequence[Entry], title: str, size: int = 120) -> Image.Image:
    """Return the sheet, two objects a row. size: pixels of one picture's side."""
    rows = [draw_entry(entry, size) for entry in entries]
    head, wide, high = round(size * 0.3), rows[0].width + 4 * GAP, rows[0].height + GAP
    half = -(-len(rows) // 2)
    page = Image.new("RGB", (2 * wide, head + half * high), PAPER)
    text = f"{title}. Each: photo with mask, prediction from three sides, truth from the same"
    font = typeface(round(size * 0.13))
    ImageDraw.Draw(page).text((2 * GAP, head / 2), text, fill=DARK, font=font, anchor="lm")
    for place, row in enumerate(rows):
        page.paste(row, (place // half * wide + 2 * GAP, head + place % half * high))
    return page


def draw_entry(entry: Entry, size: int) -> Image.Image:
    """Return photo, prediction and truth in a row below their caption."""
    high = round(size * 0.16)
    row = Image.new("RGB", (7 * size + 8 * GAP, high + size), PAPER)
    draw, font = ImageDraw.Draw(row), typeface(round(high * 0.72))
    draw.text((0, high / 2), entry.caption, fill=DARK, font=font, anchor="lm")
    row.paste(outlined(entry.example.image, entry.example.mask(entry.index), size), (0, high))
    for mesh, first in ((entry.predicted, 1), (entry.true, 4)):
        left = first * (size + GAP) + GAP * (first // 4 + 1)
        if mesh is None:
            text = entry.reason if first == 1 and entry.reason else "no truth"
            draw.text((left, high + size / 2), text[:60], fill=DARK, font=font, anchor="lm")
            continue
        for number, view in enumerate(views(mesh, entry, size)):
            row.paste(view, (left + number * (size + GAP), high))
    return row


def views(mesh: Mesh, entry: Entry, size: int) -> list[Image.Image]:
    """Return `mesh` (camera frame) from every side, by cameras that depend on the entry alone."""
    turn = upright_axes(entry.example)
    meshes = [stood(m, turn) for m in (entry.true, entry.predicted) if m is not None]
    center, radius = ball(meshes[:1])
    if len(meshes) > 1:
        reach = np.linalg.norm(meshes[1].vertices - center, axis=1).max()
        radius = min(max(radius, float(reach)), LARGEST_VIEW * radius)
    azimuth, elevation = photo_direction(center)
    result = []
    for around in SIDES:
        camera = orbit_camera(center, radius, azimuth + around, elevation, size=size)
        result.append(Image.fromarray(picture([stood(mesh, turn)], camera, background=LIGHT)))
    return result


def upright_axes(example: Example) -> np.ndarray:
    """Return the rotation (3, 3) from the camera frame to x right, y up, z towards the viewer.

    Up is the world's where `example.json` tells it, as the camera's `up` or its `world_to_camera`
    (from a world with z up), else the photo's.
    """
    camera = example.info.get("camera", {})
    pose = camera.get("world_to_camera")
    told = (0.0, -1.0, 0.0) if pose is None else np.asarray(pose)[:3, 2]
    up = np.asarray(camera.get("up", told), dtype=np.float64)
    right = np.cross(up, [0.0, 0, -1])
    if np.linalg.norm(right) < 0.05:  # the camera looks straight down
        right = np.array([1.0, 0, 0])
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


def stood(mesh: Mesh, turn: np.ndarray) -> Mesh:
    """Return `mesh` turned by `turn` (3, 3)."""
    return mesh.with_vertices(mesh.vertices @ turn.T)


def outlined(image: np.ndarray, mask: np.ndarray, size: int) -> Image.Image:
    """Return the photo as a square of `size` pixels, with the mask's outline; bars where needed."""
    height, width = mask.shape
    scale = size / max(height, width)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    photo = np.array(Image.fromarray(image).resize(small, Image.Resampling.LANCZOS))
    shape = Image.fromarray(mask).convert("L").resize(small, Image.Resampling.BOX)
    inside = np.asarray(shape) >= 128
    photo[ndimage.binary_dilation(inside) & ~inside] = OUTLINE
    square = Image.new("RGB", (size, size), LIGHT)
    square.paste(Image.fromarray(photo), ((size - small[0]) // 2, (size - small[1]) // 2))
    return square


def save_small(page: Image.Image, path: Path, largest: int = LARGEST_FILE) -> int:
    """Write a PNG of at most `largest` bytes: with fewer colors, then smaller; return its size."""
    for scale in (1.0, 0.85, 0.7, 0.6, 0.5):
        size = round(page.width * scale), round(page.height * scale)
        smaller = page if scale == 1 else page.resize(size, Image.Resampling.LANCZOS)
        for version in (smaller, smaller.quantize(256, dither=Image.Dither.NONE)):
            file = io.BytesIO()
            version.save(file, "PNG", optimize=True)
            if file.tell() <= largest:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.getvalue())
                return file.tell()
    raise SystemExit(f"{path}: the sheet does not fit {largest} bytes; give a smaller --count")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: the best that is ready")
    parser.add_argument("--examples", type=Path, required=True, help="folder of examples")
    parser.add_argument("--count", type=int, default=24, help="objects drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photo", default="coffee", help="example shown after them; '' for none")
    parser.add_argument("--size", type=int, default=120, help="pixels of a picture's side")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    folders = list_examples(arguments.examples)
    objects = draw_objects(folders, arguments.count, arguments.seed)
    title = f"{model.name}: {len(objects)} objects of {arguments.examples.name}"
    title += f" drawn by seed {arguments.seed}"
    if arguments.photo:
        photo = load_example(arguments.photo)
        objects += [(photo.folder, index) for index in photo.masks]
        title += f", and the photo {photo.name}"
    page = draw_sheet(reconstruct(model, objects), title, arguments.size)
    print(f"wrote {arguments.output}, {save_small(page, arguments.output)} bytes")


if __name__ == "__main__":
    main()
