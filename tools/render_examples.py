"""Makes the rendered examples under `data/`: photo, masks, point map, true meshes, description.

Run by hand: `python tools/render_examples.py --library PATH`; see `tools/README.md`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from blender import Builder, look_of
from folder import write_description, write_mask
from furniture import Library, Material
from glb import write_glb
from PIL import Image
from placing import Placed, place
from scenes import SCENES
from stage import Scene
from truth import Paint, surface_of

LIBRARY = Path("/usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f")
SOURCE = (
    "Rendered with Blender Cycles from models of the BlendSwap CC-0 library "
    "in Debian's sweethome3d-furniture"
)


def render(
    scene: Scene, library: Library, target: Path, width: int | None = None, samples: int = 96
) -> None:
    """Make the example folder `target` from `scene`; `width` makes it smaller, for drafts."""
    placed = place(scene, library)
    builder = Builder(scene, placed, library)
    factor = (width or scene.size[0]) / scene.size[0]
    columns, rows = round(scene.size[0] * factor), round(scene.size[1] * factor)
    with tempfile.TemporaryDirectory() as folder:
        numbers, world = builder.geometry(Path(folder) / "geometry.exr", columns, rows)
        builder.photo(Path(folder) / "photo.png", columns, rows, samples)
        photo = np.asarray(Image.open(Path(folder) / "photo.png").convert("RGB"))
    if target.exists():
        shutil.rmtree(target)
    (target / "meshes").mkdir(parents=True)
    Image.fromarray(photo).save(target / "image.png", optimize=True)
    for index in range(len(placed)):
        write_mask(target / f"{index}.png", photo, numbers == index + 1)
    K, camera = builder.intrinsics(columns, rows), builder.camera_from_world()
    write_pointmap(target / "pointmap.npz", world, camera, K)
    for index, entry in enumerate(placed):
        size = 1024 if (numbers == index + 1).sum() > 0.08 * numbers.size else 512
        write_truth(target / "meshes" / f"{index}.glb", entry, camera, library, size)
    description = describe(scene, placed, numbers, camera, K, library)
    write_description(target / "example.json", description)


def write_pointmap(path: Path, world: np.ndarray, camera: np.ndarray, K: np.ndarray) -> None:
    """Write world points (H, W, 3) as float32 in the camera frame.

    They are rounded to a power of two of a metre, so that the file compresses: the coarsest that
    is at most an eighth of a pixel at the nearest point (1/8192 m in the rooms).
    """
    points = world @ camera[:3, :3].T + camera[:3, 3]
    grid = 2.0 ** np.ceil(np.log2(8 * K[0, 0] / np.nanmin(points[..., 2])))
    rounded = (np.rint(points * grid) / grid).astype(np.float32)
    # column-major: x, y and z lie apart in the file, which compresses better
    np.savez_compressed(path, points=np.asfortranarray(rounded), K=K)


def write_truth(
    path: Path, placed: Placed, camera: np.ndarray, library: Library, texture_size: int
) -> None:
    """Write the item's mesh in the camera frame."""

    def paint(material: Material) -> Paint:
        _, color, texture = look_of(placed, material)
        return color, np.asarray(library.image(texture)) if texture else None

    surface = surface_of(placed.model, camera @ placed.matrix, paint, texture_size)
    write_glb(path, placed.item.name, surface)


def describe(
    scene: Scene,
    placed: list[Placed],
    numbers: np.ndarray,
    camera: np.ndarray,
    K: np.ndarray,
    library: Library,
) -> dict[str, Any]:
    """Return what goes into example.json."""
    objects = []
    for index, entry in enumerate(placed):
        model, item = entry.model, entry.item
        size = (np.ptp(model.vertices, axis=0) * item.scale).round(3)
        objects.append(
            {
                "index": index,
                "name": item.name,
                "model": model.key,
                "creator": model.creator,
                "license": "CC0-1.0",
                "size": size.tolist(),
                "pose": (camera @ entry.matrix).round(7).tolist(),
                "pixels": int((numbers == index + 1).sum()),
            }
        )
    return {
        "title": scene.title,
        "objects": objects,
        "camera": {"K": K.tolist(), "world_to_camera": camera.round(7).tolist()},
        "frame": "opencv",
        "unit": "metre",
        "source": SOURCE,
        "license": "CC0-1.0",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=LIBRARY, help="BlendSwap-CC-0.sh3f")
    parser.add_argument("--output", type=Path, default=Path("data"))
    parser.add_argument("--only", nargs="*", help="names of scenes; default: all")
    parser.add_argument("--width", type=int, help="pixels, for drafts; default: the scene's own")
    parser.add_argument("--samples", type=int, default=96)
    arguments = parser.parse_args()
    library = Library(arguments.library)
    for scene in SCENES:
        if not arguments.only or scene.name in arguments.only:
            target = arguments.output / scene.name
            render(scene, library, target, arguments.width, arguments.samples)
            print(f"wrote {target}")


if __name__ == "__main__":
    main()
