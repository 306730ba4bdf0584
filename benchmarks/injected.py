"""The network of stand-in weights with realistic voxels and surfaces put in.

What stand-in weights would make of a photo has no meaning: so after stage 1 the voxels of a shape
replace what was found, and before extraction the signed distance of that shape what was decoded.
The work that they replace is done all the same. Shapes are put in by an object's first run; later
ones find them ready, so that making them is in no time of a warm run.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from stages import shape_distance, with_distance
from torch import Tensor
from torch.nn import functional as F
from voxels import timing_voxels

from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.evaluation.surface import sample_surface
from sam3d_nb.examples import load_example
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.surface import Sculpt, mesh_from_features
from sam3d_nb.request import Request
from sam3d_nb.work.items import Item, list_work

POINTS = 400_000  # on a true mesh: no voxel of its surface is missed


class Injected(Sam3dObjects):
    """Every object has the voxels of `voxels.py`."""

    shape = ""
    """Names the shape that is put in: the hash of a sample object's mask, or of none."""

    def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Voxels:
        """Find voxels as ever, then return those of the shape."""
        super().find_voxels(logits, generator)
        coords = shape_voxels(self.shape, logits.shape[-1]).to(self.device, non_blocking=True)
        return Voxels(coords, coords, 1)

    def extract(
        self, decoder: MeshDecoder, latent: Tensor, grid: Grid, sculpt: Sculpt | None = None
    ) -> Surface:
        """Decode as ever, but with the signed distance of the shape."""
        hidden, fine = decoder.hidden(latent, grid)
        head = with_distance(decoder.head(hidden), self._distance(grid))
        return mesh_from_features(fine.xyz, head, fine.resolution)

    def _distance(self, grid: Grid) -> Tensor:
        """Return the signed distance (64 N, 8) at the corners of the voxels that are decoded."""
        key = self.shape, grid.resolution
        if key not in distances:
            fine = Grid(grid.coords, grid.resolution).subdivided.subdivided
            distances[key] = pinned(shape_distance(fine).cpu())
        return distances[key].to(self.device, non_blocking=True)


class Shaped(Injected):
    """Every sample object has the voxels of its true mesh, others those of `voxels.py`."""

    def run(self, request: Request, *arguments: Any, **options: Any) -> Any:
        """Make the object; its mask tells which one it is."""
        self.shape = request.mask_sha256()
        return super().run(request, *arguments, **options)


distances: dict[tuple[str, int], Tensor] = {}
"""Signed distances of all shapes so far, whoever loaded the model; on the host, 2 KiB a voxel."""


def pinned(tensor: Tensor) -> Tensor:
    """Return `tensor` where a GPU can fetch it without the host."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


@cache
def shape_voxels(mask_sha256: str, side: int) -> Tensor:
    """Return the voxels (N, 4) of an object's true surface in a grid of `side`, on the CPU."""
    item = objects().get(mask_sha256) if mask_sha256 else None
    truth = None if item is None else load_example(item.path).true_mesh(item.mask)
    if truth is None:
        return batched(timing_voxels() * side // 64)
    points = sample_surface(truth, POINTS, seed=0)
    low, high = points.min(0), points.max(0)
    inside = (points - (low + high) / 2) / (high - low).max() * 0.98 + 0.5
    return batched((inside * side).astype(int))


@cache
def objects() -> dict[str, Item]:
    """Return the sample objects by the hash of their masks."""
    found = {}
    for item in list_work():
        example = load_example(item.path)
        request = Request(example.image, example.mask(item.mask), None, np.eye(3), 0)
        found[request.mask_sha256()] = item
    return found


def batched(xyz: np.ndarray) -> Tensor:
    """Return voxels as the network has them: sorted, without twins, one object in the batch."""
    return pinned(F.pad(torch.as_tensor(np.unique(xyz, axis=0)), (1, 0)).int())
