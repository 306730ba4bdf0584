"""Makes the household set: every model of the CC0 library as an example of one object.

Run by hand, with the same environment as `render_examples.py`:
`python tools/render_household.py --library PATH --output .scratch/household`; a run that was
stopped goes on where it was. See `tools/README.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from blender import Builder
from folder import write_description, write_mask
from furniture import Library
from household import BRANDS, SIDE, household_scene
from PIL import Image
from placing import place
from render_examples import LIBRARY, SOURCE, describe, write_pointmap, write_truth

ROOT = Path(__file__).parent.parent
CATEGORIES = ROOT / "sam3d_nb" / "evaluation" / "categories.json"
MANIFEST = ROOT / "benchmarks" / "results" / "household_manifest.json"
SAMPLES = 16
BOUNCES = 3
FILES = ("image.png", "0.png", "pointmap.npz", "meshes/0.glb")


class QuickBuilder(Builder):
    """Renders on one core, with less light that has gone around many corners."""

    def _settings(self, width: int, height: int, samples: int) -> Any:
        settings = super()._settings(width, height, samples)
        settings.render.threads = 1
        settings.cycles.max_bounces = settings.cycles.diffuse_bounces = BOUNCES
        return settings


def render(key: str, category: str, library: Library, target: Path, seed: int) -> None:
    """Make the example folder `target`, whole or not at all."""
    scene = household_scene(key, library[key], seed)
    placed = place(scene, library)
    builder = QuickBuilder(scene, placed, library)
    draft = target.with_name(f"_{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "meshes").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        numbers, world = builder.geometry(Path(folder) / "geometry.exr", SIDE, SIDE)
        builder.photo(Path(folder) / "photo.png", SIDE, SIDE, SAMPLES)
        photo = np.asarray(Image.open(Path(folder) / "photo.png").convert("RGB"))
    Image.fromarray(photo).save(draft / "image.png", optimize=True)
    write_mask(draft / "0.png", photo, numbers == 1)
    K, camera = builder.intrinsics(SIDE, SIDE), builder.camera_from_world()
    write_pointmap(draft / "pointmap.npz", world, camera, K)
    write_truth(draft / "meshes" / "0.glb", placed[0], camera, library, 512)
    description = describe(scene, placed, numbers, camera, K, library)
    description["objects"][0]["category"] = category
    description["seed"] = seed
    write_description(draft / "example.json", description)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def manifest(library: Library, path: Path, categories: dict[str, str], folder: Path) -> dict:
    """Return what the set was made from and the hashes of what was made."""
    objects = []
    for key in sorted(categories):
        entry, made = library.entries[key], folder / key
        objects.append(
            {
                "model": key,
                "name": entry["name"],
                "id": entry["id"],
                "creator": entry.get("creator", ""),
                "license": "CC0-1.0",
                "category": categories[key],
                "sha256": {name: _sha256(made / name) for name in FILES},
            }
        )
    return {
        "set": "household",
        "source": SOURCE,
        "library": {"file": path.name, "sha256": _sha256(path)},
        "left_out": list(BRANDS),
        "objects": objects,
    }


def write_manifest(path: Path, content: dict[str, Any]) -> None:
    """Write the manifest with one line an object."""
    objects = ",\n  ".join(json.dumps(entry) for entry in content["objects"])
    head = json.dumps({k: v for k, v in content.items() if k != "objects"}, indent=1)
    path.write_text(f'{head[:-2]},\n "objects": [\n  {objects}\n ]\n}}\n')


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, default=LIBRARY, help="BlendSwap-CC-0.sh3f")
    parser.add_argument("--output", type=Path, default=Path(".scratch/household"))
    parser.add_argument("--only", nargs="*", help="names of models; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    arguments = parser.parse_args()
    library = Library(arguments.library)
    listing = json.loads(CATEGORIES.read_text())
    categories = {key: name for name, keys in listing.items() for key in keys if key not in BRANDS}
    missing = sorted(set(library.entries) - set(BRANDS) - set(categories))
    if missing:
        raise SystemExit(f"{CATEGORIES} has no category for {', '.join(missing)}")
    started = perf_counter()
    for number, key in enumerate(arguments.only or sorted(categories), start=1):
        target = arguments.output / key
        if target.exists() and not arguments.only:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        render(key, categories[key], library, target, arguments.seed)
        print(f"{perf_counter() - started:6.0f} s  {number:3d}  {target}", flush=True)
    if not arguments.only:
        content = manifest(library, arguments.library, categories, arguments.output)
        write_manifest(arguments.manifest, content)
        print(f"wrote {arguments.manifest}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
