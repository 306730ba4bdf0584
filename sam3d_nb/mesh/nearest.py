"""The closest point of a surface to many points, and the surface's color there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sam3d_nb.errors import InputError
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.view.shading import LINEAR_OF_SRGB, sample_texture

CANDIDATES = (12, 64, 512)  # triangles looked at, more where fewer do not settle it
POINTS = 1 << 18  # looked up at once; bounds memory
PAIRS = 1 << 16  # of point and triangle at once and a thread, so that they stay in its cache
SPREAD = 1.5  # largest radius of a piece of triangle, in mean triangle sides
REACH = 0.02  # of the longest side: how much farther a triangle that faces the right way may be


@dataclass(frozen=True, eq=False)
class Spots:
    """Places on the triangles of a mesh.

    face: (N,) int64. weights: (N, 3) float64 of the face's corners, which sum to 1.
    distance: (N,) float64 from the points that were asked for.
    """

    face: np.ndarray
    weights: np.ndarray
    distance: np.ndarray


class Surface:
    """The triangles of a mesh, ready to be asked for closest points.

    Raises InputError where there are none.
    """

    def __init__(self, mesh: Mesh) -> None:
        if not len(mesh.faces):
            raise InputError("a mesh without triangles has no closest points")
        self.mesh = mesh
        corners = mesh.vertices[mesh.faces].astype(np.float64)  # (F, 3, 3)
        a, b, c = corners.transpose(1, 0, 2)
        self.origin, self.sides = torch.from_numpy(a), torch.from_numpy(np.stack([b - a, c - a], 1))
        self.normals = torch.linalg.cross(self.sides[:, 0], self.sides[:, 1])  # (F, 3), not unit
        self.reach = REACH * float(np.ptp(mesh.bounds, axis=0).max())
        pieces, owner = _pieces(corners)
        centers = pieces.mean(1)  # (P, 3)
        self.radius = float(np.linalg.norm(pieces - centers[:, None], axis=-1).max())
        self.owner = torch.from_numpy(owner)
        self.tree = cKDTree(centers)

    def closest(self, points: np.ndarray, normals: np.ndarray | None = None) -> Spots:
        """Return the closest place to each of `points` (N, 3), looking at up to 512 triangles.

        normals: (N, 3), any length; where given, a triangle that faces away is taken only where
        none that faces the same way lies within `REACH`: so the sides of a thin wall are told
        apart.
        """
        place = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float64))
        way = None if normals is None else torch.from_numpy(np.asarray(normals, np.float64))
        face = torch.zeros(len(place), dtype=torch.int64)
        share, cost = place.new_zeros(len(place), 2), place.new_zeros(len(place))
        rest = torch.arange(len(place))
        for k in CANDIDATES:
            unsettled = []
            for rows in rest.split(POINTS):
                near, piece = self.tree.query(place[rows].numpy(), range(1, k + 1), workers=-1)
                known = torch.from_numpy(near[:, -1])  # infinite where there are fewer than k
                candidate = self.owner[torch.from_numpy(np.minimum(piece, self.tree.n - 1))]
                for part in torch.arange(len(rows)).split(PAIRS * torch.get_num_threads() // k):
                    some = rows[part]
                    found = self._best(
                        place[some], None if way is None else way[some], candidate[part]
                    )
                    face[some], share[some], cost[some] = found
                unsettled.append(rows[cost[rows] > known - self.radius])
            rest = torch.cat(unsettled)
        v, w = share.unbind(1)
        weights = torch.stack([1 - v - w, v, w], 1)
        gap = place - self.origin[face] - (self.sides[face] * share[..., None]).sum(1)
        return Spots(face.numpy(), weights.numpy(), gap.norm(dim=1).numpy())

    def colors(self, spots: Spots) -> np.ndarray:
        """Return the surface's colors (N, 3) float32 linear.

        The texture's, if there is one, else interpolated between the vertices. Raises InputError
        where there are neither.
        """
        mesh = self.mesh
        values = mesh.colors if mesh.texture is None else mesh.uv
        if values is None:
            raise InputError("the mesh has neither vertex colors nor a texture to take colors from")
        blend = (values[mesh.faces[spots.face]] * spots.weights[..., None]).sum(1)
        if mesh.texture is None:
            return blend.astype(np.float32)
        texture = LINEAR_OF_SRGB[torch.tensor(mesh.texture, dtype=torch.int64)]
        return sample_texture(texture, torch.from_numpy(blend).float()).numpy()

    def _best(
        self,
        place: Tensor,  # (n, 3)
        way: Tensor | None,  # (n, 3)
        candidate: Tensor,  # (n, k) faces
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each point's best face (n,), the place on it (n, 2) and its cost (n,)."""
        share, square = _on_triangles(
            place[:, None] - self.origin[candidate], self.sides[candidate]
        )
        cost = square.sqrt()  # (n, k)
        if way is not None:
            away = _dot(self.normals[candidate], way[:, None]) < 0
            cost = cost + away * self.reach
        best = cost.argmin(1, keepdim=True)  # (n, 1)
        chosen = share.gather(1, best[..., None].expand(-1, 1, 2))
        return candidate.gather(1, best)[:, 0], chosen[:, 0], cost.gather(1, best)[:, 0]


def _on_triangles(offset: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Return the closest place on triangles (..., 2), in shares of their sides, and distance².

    offset: (..., 3) from a triangle's first corner; sides: (..., 2, 3) from there to the others.
    """
    p, q = sides.unbind(-2)
    pp, qq, pq = _dot(p, p), _dot(q, q), _dot(p, q)
    op, oq = _dot(offset, p), _dot(offset, q)
    determinant = (pp * qq - pq * pq).clamp(min=0)
    v, w = (qq * op - pq * oq) / determinant, (pp * oq - pq * op) / determinant
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)  # false where there is no area

    def on_side(along: Tensor, length: Tensor) -> Tensor:
        return torch.nan_to_num(along / length, 0.0, 0.0, 0.0).clamp(0, 1)

    s, t = on_side(op, pp), on_side(oq, qq)
    u = on_side(oq - op - pq + pp, pp + qq - 2 * pq)  # from the second corner to the third
    zero = torch.zeros_like(s)
    best_v, best_w = s, zero
    best = s * (s * pp - 2 * op)
    for v_side, w_side in ((zero, t), (1 - u, u)):
        value = v_side * (v_side * pp - 2 * op) + w_side * (w_side * qq - 2 * oq)
        value = value + 2 * v_side * w_side * pq
        closer = value < best
        best = torch.where(closer, value, best)
        best_v, best_w = torch.where(closer, v_side, best_v), torch.where(closer, w_side, best_w)
    v, w = torch.where(inside, v, best_v), torch.where(inside, w, best_w)
    gap = offset - p * v[..., None] - q * w[..., None]
    return torch.stack([v, w], -1), _dot(gap, gap)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot products (...) of vectors (..., 3); twice as fast as summing an axis of 3."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _pieces(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (F, 3, 3) cut into small ones (P, 3, 3), and the triangle of each (P,).

    The longest side is halved until no piece is wider than `SPREAD` times what triangles of the
    same area in all would be.
    """
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1)  # (F, 3)
    area = np.linalg.norm(normals, axis=1).sum() / 2
    limit = SPREAD * max(np.sqrt(area / len(corners)), sides.max() / 1000)
    owner, small, small_owner = np.arange(len(corners)), [], []
    while len(corners):
        radius = np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=-1).max(1)
        wide = radius > limit
        small.append(corners[~wide])
        small_owner.append(owner[~wide])
        corners, owner = corners[wide], owner[wide].repeat(2)
        longest = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1).argmax(1)
        turn = (longest[:, None] + np.arange(3)) % 3
        a, b, c = np.take_along_axis(corners, turn[..., None], axis=1).transpose(1, 0, 2)
        middle = (a + b) / 2
        corners = np.stack([a, middle, c, middle, b, c], 1).reshape(-1, 3, 3)
    return np.concatenate(small), np.concatenate(small_owner)
