"""Packs the CC-BY furniture of Debian's `sweethome3d-furniture` for training.

    python -m training.data.furniture            # downloads, converts: .carry/furniture.npz
    python -m training.data.furniture --only_list         # writes the attribution anew, no more

645 models of four catalogs; the fifth, `BlendSwap-CC-0`, is for evaluation and is left alone.
Every model becomes some 2,000 triangles, a color each, in the object frame. The list of authors
and licenses goes to `training/ATTRIBUTION.md`; models that weights saw in a run with an earlier
pack, `training/furniture_earlier.json`, stay in it.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sam3d_nb.mesh.color import to_srgb
from training.data.simplify import simplified, surface

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "training/furniture.json"
EARLIER = ROOT / "training/furniture_earlier.json"
ATTRIBUTION = ROOT / "training/ATTRIBUTION.md"
PACKAGE = "sweethome3d-furniture"
CATALOGS = ("BlendSwap-CC-BY", "KatorLegaz", "Reallusion", "Scopia")
EVALUATION_CATALOG = "BlendSwap-CC-0"
MOST_TRIANGLES = 2200
WORST = 0.08
"""Models that lose more than this share of their surface are left out."""
STEPS = 4095
"""Positions are stored in steps of 1 / STEPS."""
LIMIT = 8_500_000
"""Bytes of the packed file; the models that simplification hurt most are left out for it."""
THICKNESS = 0.006
"""Half the thickness that sheets get later: the longest side is 1 - 2 · THICKNESS here."""


@dataclass(frozen=True, eq=False)
class Packed:
    """One model: vertices (V, 3) uint16, 0 ... STEPS for -0.5 ... 0.5; faces; colors (F, 3)."""

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    error: float  # share of the original surface that is farther than 0.025 from this one


def _tools() -> object:
    sys.path.insert(0, str(ROOT / "tools"))
    import furniture

    return furniture


def geometry(library, key: str):
    """Return points (P, 3), faces (F, 3), and colors (S, 3) at surface samples (S, 3)."""
    tools = _tools()
    path = library.entries[key]["model"].lstrip("/")
    points, uv, corners, material, names = tools.parse_obj(library._text(path))
    materials = _materials(library, path, names)
    points = library._to_size(points, np.unique(corners[:, :, 0]), library.entries[key])
    clear = np.array([m.opacity < 0.3 for m in materials])[material]
    keep = np.ones(len(corners), bool) if clear.all() else ~clear
    keep &= tools.clean_faces(points, corners[:, :, 0])
    corners, material = corners[keep], material[keep]
    low, high = (f(points[corners[:, :, 0].reshape(-1)], axis=0) for f in (np.min, np.max))
    scale = (1 - 2 * THICKNESS) / float((high - low).max())
    points = (points - (low + high) / 2) * scale
    samples, face, weights = surface(points, corners[:, :, 0], 40_000)
    colors = _colors(library, materials, material, uv, corners, face, weights)
    return points, corners[:, :, 0], samples, colors


def _materials(library, path: str, names: list[str]):
    """Return the model's materials; grey ones where a model names a file that is not there."""
    try:
        return library._materials(path, names)
    except KeyError:
        return tuple(_tools().Material(name) for name in names)


def _colors(library, materials, material, uv, corners, face, weights) -> np.ndarray:
    """Return sRGB (S, 3) in [0, 1] of surface samples, textures looked up."""
    base = to_srgb(np.array([m.color for m in materials]))
    which = material[face]
    colors = base[which]
    uv = np.concatenate([uv, np.zeros((1, 2))])
    at = (uv[corners[face][:, :, 1]] * weights[:, :, None]).sum(1)
    for i, m in enumerate(materials):
        mine = which == i
        if m.texture is None or not mine.any():
            continue
        picture = (
            Image.open(io.BytesIO(library._zip.read(m.texture))).convert("RGBA").convert("RGB")
        )
        picture.thumbnail((256, 256))
        texels = np.asarray(picture, dtype=np.float64) / 255
        height, width = texels.shape[:2]
        x = np.floor(at[mine, 0] % 1 * width).astype(int) % width
        y = np.floor((1 - at[mine, 1] % 1) * height).astype(int) % height
        colors[mine] = texels[y, x]
    return np.clip(colors, 0, 1)


def convert(library, key: str) -> Packed:
    """Simplify one model; colors are means over what the triangles cover."""
    from scipy.spatial import cKDTree

    points, faces, samples, colors = geometry(library, key)
    _, first, weld = np.unique(np.round(points, 5), axis=0, return_index=True, return_inverse=True)
    vertices, faces = points[first], weld.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, 1)).all(1)]
    vertices, faces, error = simplified(vertices, faces, samples[:4000])
    tree = cKDTree(samples)
    vertices, faces = _split(vertices, faces, tree, colors)
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    mean, _ = _face_colors(vertices, faces, tree, colors)
    return Packed(
        f"furniture/{library.entries[key]['id']}",
        *_ordered(np.round((np.clip(vertices, -0.5, 0.5) + 0.5) * STEPS), faces, mean),
        error,
    )


def _ordered(vertices, faces, colors):
    """Sort along a space-filling curve, so that differences are small and pack well."""
    bits = (vertices.astype(np.int64)[:, :, None] >> np.arange(12)) & 1  # (V, 3, 12)
    code = (bits << (3 * np.arange(12) + np.arange(3)[:, None])).sum((1, 2))
    order = np.argsort(code)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    faces = place[faces]
    first = faces.argmin(1)[:, None]
    faces = np.take_along_axis(faces, (first + np.arange(3)) % 3, 1)
    row = np.lexsort(faces.T[::-1])
    vertices, colors = vertices[order].astype(np.uint16), np.round(colors[row] * 255)
    return vertices, faces[row].astype(np.uint16), colors.astype(np.uint8)


INNER = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4], [3, 3, 0], [0, 3, 3], [3, 0, 3]]) / 6


def _face_colors(vertices, faces, tree, colors):
    """Return mean (F, 3) and deviation (F,) of the colors that triangles cover."""
    at = np.einsum("kc,fcd->fkd", INNER, vertices[faces])
    found = colors[tree.query(at.reshape(-1, 3), k=2)[1]].reshape(len(faces), -1, 3)
    return found.mean(1), found.std(1).mean(1)


def _split(vertices, faces, tree, colors):
    """Split triangles whose colors differ and that are large, while there is room."""
    for _ in range(3):
        room = max(0, MOST_TRIANGLES - len(faces)) // 3
        side = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, 1)], axis=2).max(1)
        _, spread = _face_colors(vertices, faces, tree, colors)
        score = np.where((spread > 0.04) & (side > 0.06), spread * side, 0)
        chosen = np.argsort(-score)[:room]
        chosen = chosen[score[chosen] > 0]
        if not len(chosen):
            break
        a, b, c = faces[chosen].T
        middle = [(vertices[p] + vertices[q]) / 2 for p, q in ((a, b), (b, c), (c, a))]
        n, k = len(vertices), len(chosen)
        ab, bc, ca = (np.arange(k) + n + i * k for i in range(3))
        vertices = np.concatenate([vertices, *middle])
        new = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        rest = np.delete(faces, chosen, 0)
        faces = np.concatenate([rest, *(np.stack(t, 1) for t in new)])
    return vertices, faces


def fetch(folder: Path) -> Path:
    """Download and unpack the Debian package; return the folder of its catalogs."""
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True)
    package = next(folder.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return folder / "usr/share/sweethome3d/furniture"


def _convert_one(task: tuple[Path, str]) -> Packed | str:
    path, key = task
    try:
        return convert(_tools().Library(path), key)
    except Exception as problem:
        return f"{path.stem}/{key}: {type(problem).__name__}: {problem}"


def pack(models: list[Packed], path: Path) -> list[Packed]:
    """Write the models, the best ones where `LIMIT` does not hold all; return those written."""
    models = [m for m in models if m.error < WORST]
    models = sorted(models, key=lambda m: m.error + len(m.faces) / 1e5)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = sorted(models, key=lambda m: m.name)
        np.savez_compressed(
            path,
            names=np.array([m.name for m in kept]),
            vertices=np.concatenate([_delta(m.vertices) for m in kept]),
            first=np.concatenate([_delta(m.faces[:, :1]) for m in kept]),
            other=np.concatenate([m.faces[:, 1:] - m.faces[:, :1] for m in kept]),
            colors=np.concatenate([m.colors for m in kept]),
            counts=np.array([(len(m.vertices), len(m.faces)) for m in kept]),
        )
        if path.stat().st_size <= LIMIT:
            return kept
        models = models[: int(len(models) * 0.98)]


def _delta(values: np.ndarray) -> np.ndarray:
    """Return rows minus their predecessors, modulo 2^16."""
    return np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), values.dtype))


def read(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, triangles (F, 3, 3) float32 in the object frame, sRGB colors (F, 3) uint8."""
    with np.load(path) as data:
        names, counts = data["names"], data["counts"]
        vertices, first, other, colors = (data[k] for k in ("vertices", "first", "other", "colors"))
    starts = np.concatenate([[[0, 0]], np.cumsum(counts, 0)])
    for name, (v, f), (v1, f1) in zip(names, starts[:-1], starts[1:], strict=True):
        at = np.cumsum(vertices[v:v1], 0, dtype=np.uint16).astype(np.float32) / STEPS - 0.5
        corner = np.cumsum(first[f:f1], 0, dtype=np.uint16)  # (F, 1)
        faces = np.concatenate([corner, corner + other[f:f1]], 1)
        yield str(name), at[faces], colors[f:f1]


def attribution(folder: Path, kept: set[str], earlier: set[str]) -> str:
    """Return the list of authors, licenses and models, as Markdown.

    kept: names of the models in the pack; earlier: of those that only earlier packs had.
    """
    lines = [
        "# Attribution of the training data",
        "",
        f"The model `tiny` is trained on {len(kept)} models of Debian's package",
        f"`{PACKAGE}` besides procedural shapes. Its first runs saw {len(earlier - kept)}",
        "more, listed at the end. All were simplified, recolored, stretched and rendered; nobody",
        "named here endorses the result. `BlendSwap-CC-0` is used for evaluation only.",
        "",
        "Licenses: [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/),",
        "[CC BY 3.0 United States](https://creativecommons.org/licenses/by/3.0/us/).",
    ]
    libraries = {name: _tools().Library(folder / f"{name}.sh3f") for name in CATALOGS}
    for catalog, library in libraries.items():
        lines += ["", f"## {catalog}", *_attributed(library, catalog, kept)]
    lines += ["", "## Used by earlier runs only"]
    for catalog, library in libraries.items():
        if any(f"furniture/{e['id']}" in earlier - kept for e in library.entries.values()):
            lines += ["", f"### {catalog}", *_attributed(library, catalog, earlier - kept)]
    return "\n".join(lines) + "\n"


def _attributed(library, catalog: str, names: set[str]) -> list[str]:
    """Return the license of a catalog and a table of those of its models that are in `names`."""
    license = library._text("PluginFurnitureCatalog.properties")
    license = next(x for x in license.splitlines() if x.startswith("license="))[8:]
    rows = [
        (e["name"], e.get("creator", catalog), e["id"])
        for e in library.entries.values()
        if f"furniture/{e['id']}" in names
    ]
    lines = ["", " ".join(license.split()), "", "| model | author | id |", "|---|---|---|"]
    return lines + [f"| {name} | {author} | `{key}` |" for name, author, key in sorted(rows)]


def write_list(folder: Path, kept: set[str]) -> None:
    """Write which models are in the pack, and whose they are."""
    earlier = set(json.loads(EARLIER.read_text()))
    ATTRIBUTION.write_text(attribution(folder, kept, earlier))
    LIST.write_text(json.dumps(sorted(kept), indent=0))


def main() -> None:
    """Convert everything; print what was left out and why."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder of the .sh3f files, if unpacked")
    parser.add_argument("--output", type=Path, default=ROOT / ".carry/furniture.npz")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, help="models of each catalog, for a trial")
    parser.add_argument("--no_list", action="store_true", help="leave ATTRIBUTION.md as it is")
    parser.add_argument("--only_list", action="store_true", help="write ATTRIBUTION.md, no pack")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.source or fetch(Path(temporary))
        if arguments.only_list:
            write_list(folder, set(json.loads(LIST.read_text())))
            return
        tools, tasks = _tools(), []
        for catalog in CATALOGS:
            path = folder / f"{catalog}.sh3f"
            tasks += [(path, key) for key in tools.Library(path).entries][: arguments.limit]
        with ProcessPoolExecutor(arguments.jobs) as workers:
            results = list(workers.map(_convert_one, tasks, chunksize=4))
        models = [r for r in results if isinstance(r, Packed)]
        kept = pack(models, arguments.output)
        if not arguments.no_list:
            write_list(folder, {m.name for m in kept})
    print("\n".join(r for r in results if isinstance(r, str)))
    size = arguments.output.stat().st_size / 1e6
    triangles = np.mean([len(m.faces) for m in kept])
    print(f"{len(kept)} of {len(tasks)} models, {size:.2f} MB, {triangles:.0f} triangles a model")
    print(f"lost surface: mean {np.mean([m.error for m in kept]):.4f}, {len(models)} converted")


if __name__ == "__main__":
    main()
