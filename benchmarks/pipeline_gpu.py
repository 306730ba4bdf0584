"""Time the whole way from photo and mask to a GLB on disk, at published sizes, under memory plans.

    python benchmarks/pipeline_gpu.py --output benchmarks/results/pipeline_gpu.json
    python benchmarks/pipeline_gpu.py --ready 5          # also process start to ready, see ready.py
    python benchmarks/pipeline_gpu.py --small --device cpu --dtype float32 --runs 1

Point map by MoGe, conditioning, both flows, layout, gaussians, mesh and the GLB file are all in the
time; the GLB of a scene is timed apart. Weights are stand-ins with shapes put in, see
`injected.py`. They are written to a folder first, and read from there. `pipeline_case.py` runs each
case in a process of its own, so that none sees what another one left.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ready
import torch
from measure import GIB
from model_h100 import machine, save
from pipeline_case import CASES, Case, add_common
from standins import drawn
from torch import Tensor, nn

from sam3d_nb.engine.options import FEW_STEPS
from sam3d_nb.weights.config import RELEASED, SMALL, ModelConfig
from sam3d_nb.weights.folder import SAM3D, read_json
from sam3d_nb.weights.store import Origin, StandInStore
from sam3d_nb.weights.write import write_stand_in

Row = dict[str, Any]
LIMIT = 300  # seconds of one case


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.weights is None:
        with tempfile.TemporaryDirectory() as folder:
            return measure_all(options, Path(folder))
    return measure_all(options, options.weights)


def measure_all(options: argparse.Namespace, folder: Path) -> int:
    """Run every case on the weights in `folder`, which are written if they are not there."""
    told = {name: v for name, v in vars(options).items() if not isinstance(v, Path)}
    report: Row = {"machine": machine(torch.device(options.device)), "options": told}
    report |= write_weights(options, folder)
    if options.only_write:
        return 0
    report["cases"] = []
    by_name = {case.name: case for case in CASES}
    for case in [by_name[name] for name in options.cases]:
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        report["cases"].append(run_case(case, folder, options))
        save(report, options.output)
    if options.ready:
        report["ready"] = ready.measure(folder, options.device, options.ready)
        save(report, options.output)
    print_tables(report)
    return int(any("error" in row for row in report["cases"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", default="float16")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, help="in order")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--ready", type=int, default=0, help="how often to time starts, too")
    parser.add_argument("--weights", type=Path, help="folder to keep the stand-in weights in")
    parser.add_argument("--only-write", action="store_true", help="write the weights and stop")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    add_common(parser)
    return parser.parse_args(arguments)


def write_weights(options: argparse.Namespace, folder: Path) -> Row:
    """Write stand-in weights unless they are there; say what they are."""
    model = folder / SAM3D
    if not model.is_dir():
        print("writing stand-in weights ...", file=sys.stderr, flush=True)
        config = SMALL if options.small else RELEASED
        store = Drawn(config, getattr(torch, options.dtype), device=options.device)
        write_stand_in(store, folder)
    files = [path.stat().st_size for path in model.glob("*.safetensors")]
    return {
        "weights": read_json(model / "config.json")["version"],
        "network_gib": sum(files) / GIB,
    }


class Drawn(StandInStore):
    """Stand-ins of the same distribution, drawn on the device: seconds instead of minutes."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, *, device: str) -> None:
        super().__init__(config, dtype, device=device)
        self.origin = Origin("stand-in", f"stand-in, drawn on {self.device.type}")

    def _read(self, piece: str, empty: nn.Module) -> Mapping[str, Tensor]:
        parameters = dict(empty.named_parameters())
        found = {}
        for name, like in empty.state_dict().items():
            if not like.is_meta:  # of a network inside, which is there already
                continue
            if name in parameters:
                seed = zlib.crc32(f"{piece}.{name}".encode())
                found[name] = drawn(name, like.shape, seed, self.device).to(like.dtype).cpu()
            else:
                found[name] = self._table(piece, name, like)
        return found


def run_case(case: Case, folder: Path, options: argparse.Namespace) -> Row:
    """Measure one case in a new process; one that fails becomes a row that says why."""
    script = Path(__file__).with_name("pipeline_case.py")
    command = [sys.executable, str(script), case.name, "--weights", str(folder)]
    for name in ("device", "runs", "scenes", "objects"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--steps", *map(str, options.steps)]
    row: Row = asdict(case) | {"steps": list(FEW_STEPS if case.few_step else options.steps)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return row | {"error": f"took more than {LIMIT} s"}
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return row | {"error": lines[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def print_tables(report: Row) -> None:
    print(f"{report['weights']}; networks {report['network_gib']:.2f} GiB")
    heads = "case,steps,median,min,max,goal,first,GiB,reserved,goal,cancel,left,same bits,faces"
    lines = [tuple(heads.split(",")), *(cells(row) for row in report["cases"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        texts = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(texts).rstrip())
    for row in report["cases"]:
        print(f"{row['name']}: {row.get('error') or details(row)}")
    if "ready" in report:
        print("\n".join(ready.lines(report["ready"])))


def details(row: Row) -> str:
    """Return where the time of a row went."""
    if "objects_s" in row:
        objects = "; ".join(" ".join(f"{s:.2f}" for s in each) for each in row["objects_s"])
        kept = f"{row['kept']['seconds']:.2f} s if objects are kept"
        voxels = " ".join(map(str, row["voxels"]))
        alone = f"GLB {row['save_s']}; alone {row['alone']}"
        return f"an object {objects}; voxels {voxels}; {kept}; {alone}"
    stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["stages_s"].items())
    graphs = f"{row['captures']} captures, least room {row['least_room_gib']} GiB"
    return f"{stages}; loaded in {row['load_s']:.2f} s; {graphs}"


def cells(row: Row) -> tuple[str, ...]:
    """Return one table row; times in seconds."""

    def number(key: str, digits: int = 3) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    steps = "{}+{}".format(*row["steps"])
    if "error" in row:
        return (row["name"], steps, "failed", *[""] * 11)
    return (
        row["name"],
        steps,
        number("median_s"),
        f"{min(row['runs_s']):.3f}",
        f"{max(row['runs_s']):.3f}",
        number("goal", 1),
        number("first_call_s"),
        number("peak_allocated_gib", 2),
        number("peak_reserved_gib", 2),
        number("memory_goal", 0),
        number("cancel_s"),
        number("left_after_cancel_gib", 2),
        {True: "yes", False: "NO"}.get(row.get("same_bits"), "-"),  # type: ignore[arg-type]
        str(row["faces"]),
    )


if __name__ == "__main__":
    sys.exit(main())
