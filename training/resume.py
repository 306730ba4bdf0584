"""Checkpoints out of the package's weights, for `--init`: `python -m training.resume FOLDER`.

The encoder of sparse structures is no part of the package; that of version 1 lies beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from sam3d_nb.tiny.shipped import FOLDER, NAME
from sam3d_nb.weights.converted import read_converted
from sam3d_nb.weights.load import FileStore
from sam3d_nb.weights.parts import PARTS
from training.networks import build, load
from training.train import save_files

ENCODER = "structure_encoder"
ENCODER_FILE = Path(__file__).parent / f"{ENCODER}.safetensors"


def unpack(target: Path, weights: Path = FOLDER, encoder: Path = ENCODER_FILE) -> None:
    """Write into `target` what `training.train --init` reads.

    Raises WeightsError where the weights are damaged.
    """
    converted, manifest = read_converted(weights, NAME)
    store = FileStore(weights, converted, manifest, dtype=torch.float32)
    networks: dict[str, nn.Module] = {name: store.get(name, "cpu") for name in PARTS}
    networks[ENCODER] = build(ENCODER, "cpu")
    load(encoder, {ENCODER: networks[ENCODER]})
    save_files(target, networks)


def main() -> None:
    """Unpack into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    unpack(options.folder)
    print(f"{options.folder}: for --init")


if __name__ == "__main__":
    main()
