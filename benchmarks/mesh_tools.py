"""Time what `finish` does to a mesh of 200,000 triangles, step by step.

    python benchmarks/mesh_tools.py --output benchmarks/results/mesh_tools.json
    python benchmarks/mesh_tools.py --unsimplified-xatlas --runs 1

The mesh is a painted chair from an analytic distance field, cut off at the feet, so that it has
holes. Everything runs on the processor, the closest-point search on all of its cores. Processor
seconds count all cores together, and little of what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import fields

from sam3d_nb import __version__
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.bake import bake
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.finish import finish
from sam3d_nb.mesh.repair import fill_holes, make_watertight
from sam3d_nb.mesh.simplify import simplify
from sam3d_nb.mesh.unwrap import unwrap
from sam3d_nb.splats import Gaussians

RESOLUTION = 224
LIMITS = "2 s on an H100's host, 20 s on two cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="timed runs, after one that is not")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: as many as cores")
    parser.add_argument("--resolution", type=int, default=RESOLUTION, help="cells a side")
    parser.add_argument("--only", help="steps whose name begins so, such as finish")
    parser.add_argument("--unsimplified-xatlas", action="store_true", help="minutes, a run")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    mesh = raw_mesh(options.resolution)
    print(f"{len(mesh.faces):,} triangles; {processor()}; limits: {LIMITS}")
    print(f"{'step':44}{'median s':>10}{'slowest s':>11}{'processor s':>13}")
    rows = []
    for name, run in steps(mesh, options.unsimplified_xatlas):
        if not name.startswith(options.only or ""):
            continue
        row = timed(name, run, options.runs)
        print(
            f"{name:44}{row['median']:10.2f}{row['slowest']:11.2f}{row['processor']:13.2f}",
            flush=True,
        )
        rows.append(row)
        save(mesh, options, rows)


def save(mesh: Mesh, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write what is known so far, so that a run that is cut short leaves what it has."""
    if options.output is None:
        return
    report = {
        "triangles": len(mesh.faces),
        "machine": processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": {"sam3d_nb": __version__, "torch": torch.__version__},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": options.runs,
        "steps": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def raw_mesh(resolution: int) -> Mesh:
    """A chair without feet, as a decoder might give it."""
    mesh = fields.chair(resolution)
    return fields.cut(mesh, (mesh.vertices[mesh.faces][:, :, 1] > -0.47).all(1))


def steps(mesh: Mesh, unsimplified_xatlas: bool) -> list[tuple[str, Callable[[], Any]]]:
    """Names and functions of what is timed."""
    small, smaller = simplify(mesh, 20_000), simplify(mesh, 10_000)
    flat = unwrap(small, 1024, method="planar")
    splats = gaussians(mesh)
    found: list[tuple[str, Callable[[], Any]]] = [
        ("fill holes", lambda: fill_holes(mesh)),
        ("make watertight", lambda: make_watertight(mesh)),
        ("simplify to 20,000", lambda: simplify(mesh, 20_000)),
        ("unwrap all, planar", lambda: unwrap(mesh, 1024, method="planar")),
        ("unwrap 20,000, planar", lambda: unwrap(small, 1024, method="planar")),
        ("unwrap 10,000, xatlas", lambda: unwrap(smaller, 1024, method="xatlas")),
        ("unwrap 20,000, xatlas", lambda: unwrap(small, 1024, method="xatlas")),
        ("bake 1024 onto 20,000", lambda: bake(flat, mesh, 1024)),
        (f"bake 1024 from {len(splats):,} gaussians", lambda: bake(flat, splats, 1024)),
        ("finish: texture 1024 on all", lambda: finish(mesh, texture=1024)),
        ("finish: texture 2048 on all", lambda: finish(mesh, texture=2048)),
        (
            "finish: watertight, 20,000, texture 1024",
            lambda: finish(mesh, watertight=True, triangles=20_000, texture=1024),
        ),
    ]
    if unsimplified_xatlas:
        found.append(("unwrap all, xatlas", lambda: unwrap(mesh, 1024, method="xatlas")))
    return found


def gaussians(mesh: Mesh) -> Gaussians:
    """Eight gaussians a vertex, scattered about it."""
    rng = np.random.default_rng(0)
    centers = np.repeat(mesh.vertices, 8, axis=0)
    centers = centers + rng.normal(0, 0.002, centers.shape)
    return Gaussians(
        centers,
        rng.uniform(0.0005, 0.004, centers.shape),
        np.tile([1.0, 0, 0, 0], (len(centers), 1)),
        rng.random(len(centers)),
        to_srgb(fields.paint(centers)),
    )


def timed(name: str, run: Callable[[], Any], runs: int) -> dict[str, Any]:
    """Time `runs` runs after one for warming up."""
    run()
    seconds, used = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), time.process_time()
        run()
        seconds.append(time.perf_counter() - start)
        used.append(time.process_time() - before)
    return {
        "step": name,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "slowest": max(seconds),
        "processor": statistics.median(used),
    }


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    names = [platform.processor() or platform.machine()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")] or names
    return f"{names[0]}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
