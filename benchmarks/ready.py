"""Time from the start of a process to a model that is ready, and how fast its files are read.

    python benchmarks/ready.py --weights FOLDER --device cuda --runs 3 --output ready.json

FOLDER holds weights in our own layout, as `pipeline_gpu.py --only-write` writes them. Each run is
a process of its own and finds the files in the page cache, after one run that does not count. That
run also compiles all Python modules into a temporary folder, where the others find the byte code:
an installed Python has it; one just unpacked may not, and each start spends seconds on compiling.

On a GPU a model is ready when all its weights are there, on a CPU when its files are opened and
checked: they are read as they are used. Reading is timed apart, in one more process: all weights
into a few blocks of memory, page-locked if there is a GPU, by reading the files and by copying out
of the map.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sam3d_nb.machine import hardware, versions
from sam3d_nb.weights.folder import FOLDER_VARIABLE, SAM3D

Row = dict[str, Any]
GIB = 2**30
STEPS = ("interpreter", "torch", "package", "device", "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder of weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--child", choices=("start", "read"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        place = options.weights, options.device
        print(json.dumps(start(*place) if options.child == "start" else read(*place, options.runs)))
        return
    report = measure(options.weights, options.device, options.runs)
    for line in lines(report):
        print(line)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, device: str, runs: int) -> Row:
    """Return the seconds of `runs` starts by step, and of as many readings."""
    with tempfile.TemporaryDirectory() as code:
        starts = [_run("start", folder, device, code) for _ in range(runs + 1)][1:]
        reads = _run("read", folder, device, code, runs)
    return {
        "n": runs,
        "device": device,
        "byte_code": "compiled by a run that does not count",
        "hardware": hardware(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs_s": [sum(row[step] for step in STEPS) for row in starts],
        "steps_s": {step: [row[step] for row in starts] for step in STEPS},
        "gib": reads["gib"],
        "read_s": {how: reads[how] for how in ("read", "mapped")},
    }


def lines(report: Row) -> list[str]:
    """Return the report as lines of text."""
    told = {"process start to ready": report["runs_s"], **report["steps_s"]}
    told |= {f"{report['gib']:.2f} GiB, {how}": s for how, s in report["read_s"].items()}
    return [
        f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}–{max(seconds):.2f})"
        for name, seconds in told.items()
    ]


def _run(child: str, folder: Path, device: str, code: str, runs: int = 1) -> Row:
    """Run one child process, its byte code kept in the folder `code`; return what it measured."""
    words = ["--weights", str(folder), "--device", device, "--child", child, "--runs", str(runs)]
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": code, FOLDER_VARIABLE: str(folder)}
    environment["STARTED"] = repr(time.time())
    done = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{child}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def start(folder: Path, device: str) -> Row:
    """Return the seconds of each step of `STEPS`, the first from when the parent asked for it."""
    clock = [float(os.environ["STARTED"]), time.time()]
    import torch

    clock.append(time.time())
    import sam3d_nb.engine.load
    from sam3d_nb.weights.parts import PARTS
    from sam3d_nb.zoo import load_model

    clock.append(time.time())
    if device != "cpu":
        torch.zeros(1, device=device).item()
    clock.append(time.time())
    if device == "cpu":
        store = sam3d_nb.engine.load.load_weights(folder)
        for name in PARTS:
            store.make(name)
    else:
        load_model("sam-3d-objects", device, "resident")
        torch.cuda.synchronize()
    clock.append(time.time())
    return {step: b - a for step, a, b in zip(STEPS, clock[:-1], clock[1:], strict=True)}


def read(folder: Path, device: str, runs: int) -> Row:
    """Return the seconds of `runs` times to read all weights, and how much that is."""
    import torch

    from sam3d_nb.weights.blocks import plan_blocks, stream_blocks
    from sam3d_nb.weights.tensorfile import FileTensors

    locked = device != "cpu"
    files = [FileTensors(path) for path in sorted((folder / SAM3D).glob("*.safetensors"))]
    memories: dict[int, list[torch.Tensor]] = {}

    def run(sources: list[Mapping[str, torch.Tensor]]) -> float:
        free = {size: list(several) for size, several in memories.items()}

        def memory(size: int) -> torch.Tensor:
            if not free.get(size):
                new = torch.empty(size, dtype=torch.uint8, pin_memory=locked).zero_()
                memories.setdefault(size, []).append(new)
                return new
            return free[size].pop()

        begin = time.perf_counter()
        for source in sources:
            stream_blocks(plan_blocks(source), source, lambda block, memory: _no_wait, memory)
            free = {size: list(several) for size, several in memories.items()}
        return time.perf_counter() - begin

    run([*files])  # makes the memories, and finds the files in the page cache
    found: Row = {"read": [run([*files]) for _ in range(runs)]}
    found["mapped"] = [run([dict(file) for file in files]) for _ in range(runs)]
    return found | {"gib": sum(t.nbytes for f in files for t in f.values()) / GIB}


_no_wait: Callable[[], None] = lambda: None  # noqa: E731


if __name__ == "__main__":
    main()
