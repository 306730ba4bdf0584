"""Examples of procedural objects that training never sees, for evaluation.

python -m training.heldout --output .scratch/heldout --count 60

One folder an object, in the layout of `data/`: photo, visible mask, point map, true mesh (marching
cubes of the very field that was rendered, with its colors), description. Objects are those of the
first held-out seeds, one photo each. Seeds alone draw the scenes, and the first one that passes the
tests of training samples is taken. Others of the set stand around as clutter. The manifest has the
hashes of what was made: where they differ, the shapes or the renderer have changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.measure import marching_cubes
from torch import Tensor

from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.glb import Node, encode_glb
from training.data.objects import HALF, Objects
from training.data.pool import LEAST_AREA, LEAST_VISIBLE
from training.data.render import Renderer
from training.data.scenes import Random, Scenes, sample
from training.data.shade import Look, Noise, develop, exposure, looks, recolor, to_linear
from training.data.shapes import HELD_OUT_SEEDS, procedural

SIZE, GRID = 320, 128
MANIFEST = Path(__file__).parent.parent / "benchmarks" / "results" / "heldout_manifest.json"
FILES = ("image.png", "0.png", "pointmap.npz", "meshes/0.glb")
CATEGORIES = {
    "seating": (
        *("chair", "office chair", "shell chair", "armchair", "sofa", "stool", "pouf", "bench"),
    ),
    "tables and beds": ("table", "desk", "bed"),
    "storage": ("cabinet", "shelf", "carton", "basket"),
    "appliances": ("screen", "laptop", "fridge", "washer"),
    "bathroom": ("bathtub", "toilet"),
    "kitchenware and small things": (
        *("mug", "bowl", "plate", "bottle", "vase", "pan", "pillow", "clock"),
    ),
    "plants and lamps": ("plant", "floor lamp", "table lamp", "hanging lamp"),
    "toys and outdoors": ("figure", "animal", "car", "blocks", "ball", "stairs", "rug", "abstract"),
}
"""The categories of the household set, here by the kind of procedural object."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo of one object, in the camera frame and metres. K is in pixels."""

    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool, visible part of the object
    points: np.ndarray  # (H, W, 3) float32, NaN where unknown
    K: np.ndarray  # (3, 3)
    up: np.ndarray  # (3,)
    visible: float  # share of the object's silhouette
    mesh: Mesh


def shoot(objects: Objects, index: int, seed: int, noise: Noise, size: int = SIZE) -> Photo:
    """Return the first good photo of object `index`, at most `size` by `size` pixels."""
    r = Random(torch.Generator(objects.device).manual_seed(seed * 1_000_003 + index))
    target = torch.tensor([index], device=objects.device)
    while True:
        scenes = sample(objects, 1, r, target)
        if not bool(scenes.valid):
            continue
        look = looks(r, scenes)
        view = Renderer(objects, scenes, look, noise).view(scenes.intrinsics(size), size)
        area, whole = int(view.mask.sum()), int(view.whole.sum())
        if area >= LEAST_AREA * int(view.photo.sum()) and area >= LEAST_VISIBLE * whole:
            break
    image = develop(view.light, exposure(view.light, view.photo, look), look, size, r)[0]
    inside = view.photo.view(size, size).cpu().numpy()  # the rest are bars that make it square
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    area_of_photo = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def cut(values: Tensor) -> np.ndarray:
        return values.view(size, size, -1).cpu().numpy()[area_of_photo]

    K = scenes.intrinsics(size)[0].double().cpu().numpy()
    K[:2, 2] -= columns[0], rows[0]
    return Photo(
        image=cut((image.permute(1, 2, 0) * 255 + 0.5).byte()),
        mask=cut(view.mask)[..., 0],
        points=cut(view.points[0] * scenes.unit),
        K=K,
        up=scenes.world[0, :, 1].double().cpu().numpy(),
        visible=area / whole,
        mesh=true_mesh(objects, scenes, look),
    )


def cube_surface(sdf: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) in the object frame and faces (F, 3), outwards, of a field's zero.

    sdf: (G, G, G), axes z, y, x, over the cube of half side `HALF`.
    """
    field = np.pad(sdf.float().cpu().numpy(), 1, constant_values=1.0)  # closed at the cube's faces
    step = 2 * HALF / (sdf.shape[-1] - 1)
    zyx, faces, _, _ = marching_cubes(field, 0.0)
    vertices = ((zyx - 1) * step - HALF)[:, ::-1]
    return np.ascontiguousarray(vertices), outwards(vertices, faces)


def outwards(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return closed faces (F, 3) turned so that they enclose a positive volume."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum()
    return faces if volume > 0 else faces[:, ::-1]


def true_mesh(objects: Objects, scenes: Scenes, look: Look) -> Mesh:
    """Return the target of one scene in the camera frame, metres, with linear vertex colors."""
    ids = scenes.ids[0, :1]
    vertices, faces = cube_surface(objects.sdf[int(ids[0]), 0])
    points = torch.tensor(vertices, dtype=torch.float32, device=objects.device)  # (V, 3)
    albedo = objects.albedo(ids, points[None])[0]
    tint, wave = (x[0, :1].expand(len(points), *x.shape[2:]) for x in (look.tint, look.wave))
    color = to_linear(recolor(tint, wave, points, albedo))
    placed = (points @ scenes.linear[0, 0].T + scenes.offset[0, 0]) * scenes.unit
    place = placed.double().cpu().numpy()
    return Mesh(place, outwards(place, faces), color.cpu().numpy())


def write_example(folder: Path, kind: str, photo: Photo, seed: int) -> None:
    """Write one example, whole or not at all."""
    draft, name = folder.with_name(f"_{folder.name}"), kind.split("/")[1]
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "meshes").mkdir(parents=True)
    Image.fromarray(photo.image).save(draft / "image.png")
    rgb = np.where(photo.mask[..., None], photo.image, 255)
    alpha = photo.mask[..., None] * 255
    Image.fromarray(np.concatenate([rgb, alpha], 2).astype(np.uint8)).save(draft / "0.png")
    np.savez_compressed(draft / "pointmap.npz", points=photo.points, K=photo.K)
    (draft / "meshes" / "0.glb").write_bytes(encode_glb([Node(photo.mesh, name)]))
    description = json.dumps(describe(kind, name, photo, seed), indent=1)
    (draft / "example.json").write_text(description + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def describe(kind: str, name: str, photo: Photo, seed: int) -> dict[str, Any]:
    """Return what goes into example.json."""
    entry = {
        "index": 0,
        "name": name,
        "model": kind,
        "category": category(name),
        "license": "CC0-1.0",
        "pixels": int(photo.mask.sum()),
        "visible": round(photo.visible, 3),
    }
    return {
        "title": f"A procedural {name}",
        "objects": [entry],
        "camera": {"K": photo.K.tolist(), "up": photo.up.tolist()},
        "frame": "opencv",
        "unit": "metre",
        "source": "training/heldout.py",
        "license": "CC0-1.0",
        "seed": seed,
    }


def category(name: str) -> str:
    """Return the category of a kind of procedural object."""
    return next((key for key, names in CATEGORIES.items() if name in names), "other")


def folder_name(kind: str) -> str:
    """Return the folder of an object such as `procedural/office chair/7`."""
    _, name, number = kind.split("/")
    return f"{number}_{name.replace(' ', '_')}"


def write_manifest(path: Path, made: Path, kinds: list[str]) -> None:
    """Write which objects are in the set and the hashes of their files, one line an object."""

    def sha256(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    lines = [
        json.dumps(
            {
                "model": kind,
                "category": category(kind.split("/")[1]),
                "sha256": {name: sha256(made / folder_name(kind) / name) for name in FILES},
            }
        )
        for kind in kinds
    ]
    objects = ",\n  ".join(lines)
    path.write_text(f'{{\n "set": "heldout",\n "objects": [\n  {objects}\n ]\n}}\n')


def main() -> None:
    """Make the examples that are not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(".scratch/heldout"))
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    parser.add_argument("--device", default="cpu", help="others round differently")
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    a = parser.parse_args()
    started = time.perf_counter()
    seeds = HELD_OUT_SEEDS[: a.count]
    objects = procedural(seeds, a.device, GRID, held_out=True)
    noise = Noise(objects.device)
    for index, kind in enumerate(objects.kind):
        folder = a.output / folder_name(kind)
        if not folder.exists():
            photo = shoot(objects, index, a.seed, noise)
            write_example(folder, objects.kind[index], photo, a.seed)
            print(f"{time.perf_counter() - started:6.0f} s  {folder}", flush=True)
    write_manifest(a.manifest, a.output, objects.kind)
    print(f"wrote {a.manifest}")


if __name__ == "__main__":
    main()
