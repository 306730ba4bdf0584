"""How much nearer `refine_pose` brings poses that are off, over the objects of the examples.

    python benchmarks/layout.py --output benchmarks/results/layout.json

True shapes are placed by their true poses, and those are disturbed: turned by 5 degrees about a
random axis, moved by 5 % of the object's size, scaled by 8 % up or down. The table shows medians
over all objects before and after, for several things that may be known:

- points and masks: the exact point map, and the masks of the other objects;
- points: the exact point map alone, which also tells what stands before the object;
- rough: as the first, but with a shape that is bent by 3 % of its size, and with a point map that
  has a noise of 1 % along each ray;
- masks: no point map.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from placed import disturbed, offset, true_object

from sam3d_nb.examples import Example, list_examples, load_example
from sam3d_nb.machine import hardware, versions
from sam3d_nb.mesh import Mesh
from sam3d_nb.refine.object import other_masks
from sam3d_nb.refine.pose import refine_pose

KNOWN = ("points and masks", "points", "rough", "masks")
COLUMNS = ("degrees", "shift", "scale", "surface", "points", "iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", nargs="*", choices=KNOWN, default=KNOWN)
    parser.add_argument("--repeats", type=int, default=2, help="disturbances of each object")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--rows", action="store_true", help="print every object")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for name in list_examples() for row in example_rows(load_example(name), options)]
    print(f"{len(rows)} rows; medians before > after of {hardware()}")
    print("".join(f"{name:>18}" for name in ("known", *COLUMNS, "nearer", "seconds")))
    summary = {
        known: summarize([r for r in rows if r["known"] == known]) for known in options.known
    }
    for known, values in summary.items():
        pairs = [f"{values['before'][c]:.3f} > {values['after'][c]:.3f}" for c in COLUMNS]
        rest = [f"{values['nearer']:.0%}", f"{values['seconds']:.2f}"]
        print("".join(f"{text:>18}" for text in (known, *pairs, *rest)))
    if options.output:
        report = {
            "what": __doc__,
            "hardware": hardware(),
            "torch_threads": options.threads,
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "summary": summary,
        }
        text = json.dumps(report, indent=1).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        options.output.write_text(f'{text},\n "rows": [\n  {lines}\n ]\n}}\n')


def example_rows(example: Example, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each object with a known shape, what is known, and each disturbance."""
    rows = []
    for index in example.masks:
        if example.true_mesh(index) is None:
            continue
        for known in options.known:
            for seed in range(options.repeats):
                rows.append(measured(example, index, known, seed))
                if options.rows:
                    print(json.dumps(rows[-1]))
    return rows


def measured(example: Example, index: int, known: str, seed: int) -> dict[str, Any]:
    """Disturb one pose, refine it, and compare both with the truth."""
    mesh, true = true_object(example, index)
    start = disturbed(true, 1000 * index + seed)
    shape = bent(mesh, seed) if known == "rough" else mesh
    points = None if known == "masks" else example.pointmap
    if known == "rough":
        points = noisy(points, seed)
    others = None if known == "points" else other_masks(example, index)
    wall, cpu = time.perf_counter(), time.process_time()
    pose, report = refine_pose(
        shape, start, example.intrinsics, example.mask(index), points, others
    )
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "object": f"{example.name}/{index}",
        "known": known,
        "triangles": len(mesh.faces),
        "before": rounded(offset(mesh, start, true)._asdict() | {"iou": report.iou_before}),
        "after": rounded(offset(mesh, pose, true)._asdict() | {"iou": report.iou_after}),
        "accepted": list(report.accepted),
        "seconds": round(seconds, 2),
        "processor_seconds": round(cpu_seconds, 2),
    }


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return numbers as a file needs them."""
    return {name: round(value, 5) for name, value in values.items()}


def bent(mesh: Mesh, seed: int) -> Mesh:
    """The mesh in the unit cube with slow waves of 3 % laid over all three coordinates."""
    generator = np.random.default_rng(seed)
    waves = generator.uniform(-1, 1, (3, 3)) * 2 * np.pi
    phase = generator.uniform(0, 2 * np.pi, 3)
    return mesh.with_vertices(mesh.vertices + 0.03 * np.sin(mesh.vertices @ waves.T + phase))


def noisy(points: np.ndarray, seed: int) -> np.ndarray:
    """A point map (H, W, 3) as an estimate might have it."""
    noise = np.random.default_rng(seed).normal(1.0, 0.01, (*points.shape[:2], 1))
    return points * noise.astype(np.float32)


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, the share of objects that came nearer, and seconds."""
    return {
        "n": len(rows),
        "before": {c: statistics.median(r["before"][c] for r in rows) for c in COLUMNS},
        "after": {c: statistics.median(r["after"][c] for r in rows) for c in COLUMNS},
        "nearer": statistics.mean(r["after"]["points"] < r["before"]["points"] for r in rows),
        "worse_iou": sum(r["after"]["iou"] < r["before"]["iou"] for r in rows),
        "seconds": statistics.median(r["seconds"] for r in rows),
        "slowest": max(r["seconds"] for r in rows),
        "processor_seconds": statistics.median(r["processor_seconds"] for r in rows),
    }


if __name__ == "__main__":
    main()
