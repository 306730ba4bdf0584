"""Time what the processor does for one object beside the network: checks, copies, files.

    python benchmarks/host_work.py --output host_work.json

The object has as many triangles and gaussians as the one of `pipeline_gpu.py`, of random numbers.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sam3d_nb.frames import Pose
from sam3d_nb.machine import hardware, versions
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.glb import Node, encode_glb
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.scene.keep import Keep
from sam3d_nb.splats import Gaussians

VERTICES, FACES, GAUSSIANS = 268_000, 536_732, 825_216


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="timed runs, after one that is not")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = work(Path(folder))
        rows = {name: timed(run, options.runs) for name, run in steps.items()}
    for name, seconds in rows.items():
        middle = statistics.median(seconds)
        low, high = 1e3 * min(seconds), 1e3 * max(seconds)
        print(f"{name}: {1e3 * middle:.1f} ms ({low:.1f} to {high:.1f})")
    if options.output:
        about = {"hardware": hardware(), "versions": versions()}
        report = about | {"n": options.runs, "seconds": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def work(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; files go into `folder`."""
    rng = np.random.default_rng(0)
    vertices = rng.random((VERTICES, 3), dtype=np.float32) - 0.5
    corners = rng.permuted(np.tile(np.arange(VERTICES, dtype=np.int32), 7))[: 3 * FACES]
    faces = corners.reshape(-1, 3)
    mesh = Mesh(vertices, faces, colors=vertices + 0.5)
    _ = mesh.normals  # come from the device with the mesh
    widths = (3, 3, 4, 1, 3)
    columns = [rng.random((GAUSSIANS, width), dtype=np.float32) for width in widths]
    columns[3] = columns[3][:, 0]
    made = Object3D(
        mesh, Pose(), Provenance("none", "1", "1", "0" * 64), gaussians=Gaussians(*columns)
    )
    whole = torch.from_numpy(np.concatenate([c.reshape(GAUSSIANS, -1) for c in columns], axis=1))
    keep = Keep(folder)
    return {
        "checks of a mesh": lambda: Mesh(vertices, faces, colors=vertices + 0.5),
        "checks of gaussians": lambda: Gaussians(*columns),
        "gaussians into new memory of PyTorch's": whole.clone,
        "gaussians into new memory of NumPy's": lambda: torch.from_numpy(
            np.empty(whole.shape, np.float32)
        ).copy_(whole),
        "GLB in memory": lambda: encode_glb([Node(mesh, "object")]),
        "GLB on disk": lambda: made.save(folder / "object.glb", overwrite=True),
        "object kept for resuming": lambda: keep.put_object("0" * 64, made),
    }


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """Return the seconds of `runs` runs after one for warming up."""
    run()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
