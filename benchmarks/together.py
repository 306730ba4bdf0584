"""Time several processes that make an object at once, as notebooks of a workshop on one machine do.

    python benchmarks/together.py --processes 1 2 4 --runs 3 --output together.json

Each is `sam3d-nb inference` with `tiny`, from its start to its files. OpenMP's threads look out for
work before they sleep, which takes the cores from the other processes: timed with its own number
of turns, with the number that `sam3d_nb` sets, and with one thread, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sam3d_nb.machine import hardware, versions

SETTINGS: dict[str, dict[str, str]] = {
    "as OpenMP has it": {"GOMP_SPINCOUNT": "300000"},
    "as sam3d_nb sets it": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--example", default="living_room")
    parser.add_argument("--mask", type=int, default=1)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    rows = []
    for count in options.processes:
        seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for _ in range(options.runs):
            for name, variables in SETTINGS.items():
                seconds[name].append(round(together(count, variables, options), 2))
        rows.append({"processes": count, "seconds": seconds})
        print(count, {name: statistics.median(found) for name, found in seconds.items()})
    report = {"hardware": hardware(), "versions": versions(), "runs": options.runs, "rows": rows}
    options.output.write_text(json.dumps(report, indent=1) + "\n")


def together(count: int, variables: dict[str, str], options: argparse.Namespace) -> float:
    """Return the seconds until the last of `count` processes is done; raises where one fails."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-c", "from sam3d_nb.cli import main; raise SystemExit(main())"]
    command += ["inference", f"--image_path={options.example}", f"--mask_index={options.mask}"]
    command += [f"--model={options.model}", f"--output_dir={folder}"]
    env, none = known | variables, subprocess.DEVNULL
    start = time.perf_counter()
    running = [subprocess.Popen(command, env=env, stdout=none, stderr=none) for _ in range(count)]
    codes = [process.wait() for process in running]
    taken = time.perf_counter() - start
    shutil.rmtree(folder)
    if failed := [code for code in codes if code]:
        raise SystemExit(
            f"{len(failed)} of {count} ended with {failed[0]}: {' '.join(command[3:])}"
        )
    return taken


if __name__ == "__main__":
    main()
