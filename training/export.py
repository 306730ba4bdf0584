"""Put trained weights into the package: `python -m training.export FOLDER --version 1`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

from sam3d_nb.tiny.config import TINY
from sam3d_nb.tiny.shipped import FOLDER, NAME
from sam3d_nb.weights.converted import CONFIG, Converted, read_converted
from sam3d_nb.weights.folder import MANIFEST, FileRecord, hash_file, write_manifest
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.write import find_shared, piece_tensors, write_model
from training.networks import build, load, share_vision
from training.train import file_of

ATTRIBUTION = Path(__file__).with_name("ATTRIBUTION.md")
FILE_LIMIT = 16 * 10**6  # bytes
TOTAL_LIMIT = 48 * 10**6


def export(trained: Path, version: str, target: Path = FOLDER) -> int:
    """Write `target` out of what `training.train` left in `trained`; return the bytes of all files.

    The attribution goes along; a model card that lies in `target` stays. Raises FileNotFoundError
    where a file is missing, ValueError where files are too large.
    """
    networks = {name: build(name, "cpu") for name in PARTS}
    for name, network in networks.items():
        if name == "condition_stage2":
            share_vision(networks["condition_stage1"], network)
        load(trained / file_of(name), {name: network}, partial=name == "condition_stage2")
    tensors: dict[str, dict[str, Tensor]] = {
        name: {key: value.detach() for key, value in network.state_dict().items()}
        for name, network in networks.items()
    }
    vision = find_shared(TINY, tensors)
    converted = Converted(TINY, "float16", vision, NAME, version)
    with tempfile.TemporaryDirectory() as folder:
        made = write_model(
            converted, lambda piece: piece_tensors(piece, tensors, vision), Path(folder)
        )
        target.mkdir(exist_ok=True)
        for old in target.glob("*.safetensors"):
            old.unlink()
        for path in made.iterdir():
            shutil.copyfile(path, target / path.name)
    paths = [*sorted(target.glob("*.safetensors")), target / CONFIG]
    records = {path.name: FileRecord(path.stat().st_size, hash_file(path)) for path in paths}
    write_manifest(target, NAME, records)
    shutil.copyfile(ATTRIBUTION, target / ATTRIBUTION.name)
    read_converted(target, NAME)
    return _check_sizes(records)


def _check_sizes(records: dict[str, FileRecord]) -> int:
    for name, record in records.items():
        if record.bytes > FILE_LIMIT:
            raise ValueError(f"{name} has {record.bytes} bytes, more than {FILE_LIMIT}")
    total = sum(record.bytes for record in records.values())
    if total > TOTAL_LIMIT:
        raise ValueError(f"all weights have {total} bytes, more than {TOTAL_LIMIT}")
    return total


def main() -> None:
    """Export what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what `training.train --out` wrote")
    parser.add_argument("--version", required=True)
    options = parser.parse_args()
    total = export(options.folder, options.version)
    print(f"{FOLDER / MANIFEST}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
