"""Checks that example folders are what they say: masks, point maps and true meshes agree.

Run `python tools/check_examples.py data`; needs numpy, pillow and trimesh, not Blender. The
functions return lists of sentences, one a problem, so that tests can call them too.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

SMALLEST_MASK = 2500  # pixels
SILHOUETTE_IOU = 0.97
SURFACE_DISTANCE = 0.005  # metres, median
REPROJECTION = 0.2  # pixels; the points are rounded to an eighth of a pixel
LARGEST_MESH = 1_500_000  # bytes
LARGEST_FOLDER = 40_000_000  # bytes, all examples together


@dataclass(frozen=True, eq=False)
class Folder:
    """An example folder as it lies on the disk.

    image: (H, W, 3) uint8; masks: index to (H, W) bool; points: (H, W, 3) or None; K: (3, 3);
    meshes: index to (vertices (V, 3), faces (F, 3)) in the camera frame.
    """

    path: Path
    info: dict[str, Any]
    image: np.ndarray
    masks: dict[int, np.ndarray]
    points: np.ndarray | None
    K: np.ndarray | None
    meshes: dict[int, tuple[np.ndarray, np.ndarray]]


def read_folder(path: Path) -> Folder:
    """Read everything in an example folder."""
    masks = {
        int(p.stem): np.asarray(Image.open(p))[..., -1] > 0
        for p in sorted(path.glob("*.png"))
        if p.stem.isdigit()
    }
    points = K = None
    if (path / "pointmap.npz").exists():
        with np.load(path / "pointmap.npz") as file:
            points, K = file["points"], file["K"]
    meshes = {}
    for p in sorted((path / "meshes").glob("*.glb")):
        mesh = trimesh.load(p, force="mesh", process=False)
        meshes[int(p.stem)] = (np.asarray(mesh.vertices), np.asarray(mesh.faces))
    info = json.loads((path / "example.json").read_text())
    image = np.asarray(Image.open(path / "image.png"))
    return Folder(path, info, image, masks, points, K, meshes)


def rasterize(
    vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return the depth z (H, W) of the nearest surface at every pixel's center, inf where none.

    vertices: (V, 3) in the camera frame, all in front of the camera; faces: (F, 3).
    """
    pixels = vertices @ K.T
    depth = vertices[:, 2]
    corners = (pixels[:, :2] / depth[:, None])[faces]  # (F, 3, 2)
    inverse = 1 / depth[faces]  # (F, 3), linear over the picture
    low = np.maximum(np.ceil(corners.min(1) - 0.5).astype(int), 0)  # first pixel column and row
    high = np.minimum(np.floor(corners.max(1) - 0.5).astype(int), [width - 1, height - 1])
    span = high - low + 1  # (F, 2) columns and rows of a triangle's box
    seen = (span > 0).all(1)
    longest = span.max(1)
    nearest = np.full((height, width), np.inf)
    for size in (2, 4, 8, 16, 32, 64, 128, 256, 1 << 20):
        now = np.flatnonzero(seen & (longest <= size))
        seen[now] = False
        if not len(now):
            continue
        chunk = max(1, 500_000 // int(longest[now].max()) ** 2)
        for part in np.split(now, range(chunk, len(now), chunk)):
            _fill(nearest, corners[part], inverse[part], low[part], span[part].max(0))
    return nearest


def _fill(
    nearest: np.ndarray, corners: np.ndarray, inverse: np.ndarray, low: np.ndarray, span: np.ndarray
) -> None:
    """Put triangles (F, 3, 2), whose boxes start at `low` (F, 2) and have at most `span` (2,)
    columns and rows, into the depth picture."""
    height, width = nearest.shape
    x = low[:, 0, None, None] + np.arange(span[0])[None, None, :]  # (F, 1, columns)
    y = low[:, 1, None, None] + np.arange(span[1])[None, :, None]  # (F, rows, 1)
    weights = []
    for a, b in ((1, 2), (2, 0), (0, 1)):
        start, edge = corners[:, a, :, None, None], corners[:, b] - corners[:, a]
        across = edge[:, 0, None, None] * (y + 0.5 - start[:, 1])
        weights.append(across - edge[:, 1, None, None] * (x + 0.5 - start[:, 0]))
    stacked = np.stack(weights)  # (3, F, rows, columns), twice the area of the opposite part
    area = stacked.sum(0)
    inside = ((stacked >= 0).all(0) | (stacked <= 0).all(0)) & (np.abs(area) > 1e-12)
    inside &= (x < width) & (y < height)
    flat = (y * width + x)[inside]
    value = (stacked * inverse.T[:, :, None, None]).sum(0)[inside] / area[inside]
    np.minimum.at(nearest.reshape(-1), flat, 1 / value)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def check_masks(folder: Folder) -> list[str]:
    """Masks lie on the photo, are binary, disjoint, large enough, and named one by one."""
    problems = []
    if folder.image.dtype != np.uint8 or folder.image.ndim != 3 or folder.image.shape[2] != 3:
        problems.append(f"image is {folder.image.dtype} {folder.image.shape}, not 8-bit RGB")
    if sorted(folder.masks) != list(range(len(folder.masks))):
        problems.append(f"masks are not numbered from 0: {sorted(folder.masks)}")
    listed = [entry["index"] for entry in folder.info["objects"]]
    if listed != sorted(folder.masks):
        problems.append(f"example.json lists {listed} but masks are {sorted(folder.masks)}")
    names = [entry["name"] for entry in folder.info["objects"]]
    if len(set(names)) != len(names):
        problems.append(f"two objects have the same name: {names}")
    for entry in (folder.info, *folder.info["objects"]):
        if not str(entry.get("license", "")).startswith("CC0"):
            problems.append(f"license is {entry.get('license')!r}, not CC0")
    for index, mask in folder.masks.items():
        rgba = np.asarray(Image.open(folder.path / f"{index}.png"))
        if rgba.shape != (*folder.image.shape[:2], 4) or not np.isin(rgba[..., 3], (0, 255)).all():
            problems.append(f"mask {index} is not RGBA of the photo's size with alpha 0 or 255")
        elif not (rgba[mask][:, :3] == folder.image[mask]).all():
            problems.append(f"mask {index} does not carry the photo's colors")
        if mask.sum() < SMALLEST_MASK:
            problems.append(f"mask {index} has only {mask.sum()} pixels")
    if len(folder.masks) > 1 and np.sum(list(folder.masks.values()), axis=0).max() > 1:
        problems.append("masks overlap")
    return problems


def check_pointmap(folder: Folder) -> list[str]:
    """The point map projects onto its own pixels, and is known wherever there is an object."""
    problems = []
    points, K = folder.points, folder.K
    if points is None or K is None:
        return []
    height, width = folder.image.shape[:2]
    if points.dtype != np.float32 or points.shape != (height, width, 3):
        return [f"point map is {points.dtype} {points.shape}, not float32 {(height, width, 3)}"]
    if not np.allclose(K, folder.info["camera"]["K"], atol=1e-6):
        problems.append("K of the point map is not K of example.json")
    known = np.isfinite(points).all(-1)
    v, u = np.mgrid[:height, :width] + 0.5
    pixels = points[known].astype(np.float64) @ K.T
    off = pixels[:, :2] / pixels[:, 2:] - np.stack([u[known], v[known]], axis=1)
    if np.abs(off).max() > REPROJECTION:
        problems.append(f"points project up to {np.abs(off).max():.2f} pixels from their own")
    for index, mask in folder.masks.items():
        if not known[mask].all():
            problems.append(f"{(~known[mask]).sum()} pixels of mask {index} have no point")
    return problems


def check_meshes(folder: Folder) -> tuple[list[str], list[dict[str, Any]]]:
    """The true meshes, drawn with K, give the masks back, and the points lie on them.

    Also returns one row an object: IoU of the mask with the mesh drawn among all others, share
    of the whole silhouette that is in the mask, median distance of the points in metres.
    """
    if not folder.meshes or folder.K is None or folder.points is None:
        return [], []
    problems, rows = [], []
    if sorted(folder.meshes) != sorted(folder.masks):
        problems.append(f"meshes {sorted(folder.meshes)} but masks {sorted(folder.masks)}")
    shape = folder.image.shape[:2]
    depth = {i: rasterize(*mesh, folder.K, *shape) for i, mesh in folder.meshes.items()}
    front = np.min(list(depth.values()), axis=0)
    for index, mask in folder.masks.items():
        near = depth[index]
        drawn = np.isfinite(near)
        agreement = iou(mask, drawn & (near <= front))
        both = mask & drawn
        ray = np.linalg.norm(folder.points[both] / folder.points[both][:, 2:], axis=1)
        distance = float(np.median(np.abs(folder.points[both][:, 2] - near[both]) * ray))
        visible = visible_share(folder, index)
        rows.append(
            {"index": index, "pixels": int(mask.sum()), "iou": agreement, "visible": visible}
            | {"distance": distance}
        )
        if agreement < SILHOUETTE_IOU:
            problems.append(f"mesh {index} drawn among the others has IoU {agreement:.3f}")
        if distance > SURFACE_DISTANCE:
            problems.append(f"points of mask {index} lie {distance * 1000:.1f} mm off the mesh")
        if visible < 0.4:
            problems.append(f"only {visible:.0%} of object {index} can be seen")
    for index in folder.meshes:
        size = (folder.path / "meshes" / f"{index}.glb").stat().st_size
        if size > LARGEST_MESH:
            problems.append(f"mesh {index} has {size} bytes")
    return problems, rows


def visible_share(folder: Folder, index: int) -> float:
    """Return the mask's share of the whole silhouette, parts outside the picture included."""
    vertices, faces = folder.meshes[index]
    height, width = folder.image.shape[:2]
    assert folder.K is not None
    wider = folder.K.copy()
    wider[:2, 2] += [width / 2, height / 2]
    whole = np.isfinite(rasterize(vertices, faces, wider, 2 * height, 2 * width))
    return float(folder.masks[index].sum() / max(whole.sum(), 1))


def check_folder(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return all problems of one example folder and the measures of its objects."""
    folder = read_folder(path)
    problems, rows = check_meshes(folder)
    return check_masks(folder) + check_pointmap(folder) + problems, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("data"))
    data = parser.parse_args().data
    folders = sorted(p.parent for p in data.glob("*/example.json"))
    failed = 0
    for path in folders:
        problems, rows = check_folder(path)
        print(f"{path.name}: {'ok' if not problems else 'PROBLEMS'}")
        for row in rows:
            print(
                f"  {row['index']:2d} {row['pixels']:7d} px  IoU {row['iou']:.4f}  "
                f"visible {row['visible']:.2f}  {row['distance'] * 1000:.2f} mm"
            )
        for problem in problems:
            print(f"  ! {problem}")
        failed += len(problems)
    total = sum(p.stat().st_size for p in data.rglob("*") if p.is_file())
    print(f"{len(folders)} examples, {total / 1e6:.1f} MB")
    if total > LARGEST_FOLDER:
        print("! too large")
        failed += 1
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
