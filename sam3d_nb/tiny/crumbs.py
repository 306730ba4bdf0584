"""Small pieces of a surface that float beside it, dropped."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sam3d_nb.mesh.topology import components
from sam3d_nb.model.flexicubes import Surface

FEWEST = 50  # triangles of a piece that stays


def without_crumbs(surface: Surface) -> Surface:
    """Return the surface without pieces of less than `FEWEST` triangles, but for the largest."""
    if not len(surface.faces):
        return surface
    piece = pieces(surface.faces, len(surface.vertices))  # (V,)
    of_face = piece[surface.faces[:, 0]]  # (F,)
    triangles = torch.bincount(of_face, minlength=len(piece))  # (V,) by piece
    large = triangles >= min(FEWEST, int(triangles.max()))
    if bool(large[of_face].all()):
        return surface
    stays = large[piece]  # (V,)
    faces = (stays.int().cumsum(0) - 1)[surface.faces[large[of_face]]]
    return Surface(surface.vertices[stays], faces, surface.attributes[stays])


def pieces(faces: Tensor, count: int) -> Tensor:
    """Return the piece (count,) int64 that each vertex hangs together with by `faces` (F, 3)."""
    if not faces.is_cuda:
        a, b, c = faces.cpu().numpy().T
        label = components(count, np.concatenate([a, b]), np.concatenate([b, c]))
        return torch.from_numpy(label).to(faces.device)
    return lowest(faces, count)


def lowest(faces: Tensor, count: int) -> Tensor:
    """Return the lowest vertex (count,) of the piece of each vertex, by `faces` (F, 3).

    A step takes the lowest of each triangle, also for the vertex that each of its corners had as
    its lowest, and then that vertex's own: so a dozen steps reach over tens of thousands.
    """
    label, before = torch.arange(count, device=faces.device), None
    corner = faces.reshape(-1)
    while before is None or not torch.equal(label, before):
        before = label
        least = label[faces].amin(1, keepdim=True).expand(-1, 3).reshape(-1)
        found = label.scatter_reduce(0, corner, least, "amin")
        found = found.scatter_reduce(0, label[corner], least, "amin")
        label = found[found]
    return label
