"""Example folders: a photo, its masks and, where known, point map and ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sam3d_nb.mesh import Mesh


@dataclass(frozen=True, eq=False)
class Example:
    """One photo with masks, read from a folder.

    image: (H, W, 3) uint8 RGB. masks: index to (H, W) bool. pointmap: (H, W, 3) float32 in the
    camera frame (OpenCV), NaN where unknown, or None. intrinsics: K (3, 3) in pixels, or None.
    info: what `example.json` says.
    """

    folder: Path
    image: np.ndarray
    masks: dict[int, np.ndarray]
    pointmap: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @cached_property
    def names(self) -> dict[int, str]:
        """Name of every masked object, `object N` where the example gives none."""
        given = {int(o["index"]): str(o.get("name", "")) for o in self.info.get("objects", [])}
        return {i: given.get(i) or f"object {i}" for i in self.masks}

    def mask(self, index: int) -> np.ndarray:
        """Return mask `index` (H, W) bool; raises InputError that says which exist."""
        raise NotImplementedError

    def true_mesh(self, index: int) -> Mesh | None:
        """Return the ground-truth mesh of object `index` in the camera frame, None without one."""
        raise NotImplementedError
