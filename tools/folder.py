"""Writes the files of an example folder that all examples have: masks and the description."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_description(path: Path, description: dict[str, Any]) -> None:
    """Write example.json with every vector and every row of a matrix on one line."""
    text = json.dumps(description, indent=2)
    text = re.sub(r"\[\s*([^\[\]{}]*?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    path.write_text(text + "\n")


def write_mask(path: Path, photo: np.ndarray, mask: np.ndarray) -> None:
    """Write the photo (H, W, 3) with the object in alpha; white where the object is not."""
    rgb = np.where(mask[..., None], photo, 255).astype(np.uint8)
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(path, optimize=True)
