"""The weights of `tiny` as the package brings them along; needs no torch."""

from __future__ import annotations

from pathlib import Path

from sam3d_nb.weights.folder import MANIFEST

NAME = "tiny"
FOLDER = Path(__file__).parent / "weights"
"""The weights, their model card and the attribution of what they were trained on."""

ADVICE = "install sam3d_nb from its repository or wheel again"
"""What to do where weights are missing or damaged."""


def missing() -> str:
    """Return what to do where the package came without the weights; empty where they are there."""
    if (FOLDER / MANIFEST).is_file():
        return ""  # a file that the manifest names and is not there is damage, which loading tells
    return f"{ADVICE}: the weights of tiny are not in it"
