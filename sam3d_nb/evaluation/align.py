"""The similarity transform that lays one point set onto another: ICP from several starts.

Each round pairs every point of either set with the nearest of the other (both directions, so that
the scale cannot shrink) and solves for rotation, translation and one scale (Umeyama 1991).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

COARSE = (400, 12)  # points, rounds for every start
FINE = (2500, 40)  # for the best few
KEPT = 4
EQUALLY_GOOD = 1.02  # a symmetric object fits in several ways: then the smallest turn counts


@dataclass(frozen=True, eq=False)
class Similarity:
    """Maps points p to scale * rotation p + translation."""

    scale: float = 1.0
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return the images (N, 3) of `points` (N, 3)."""
        return self.scale * points @ self.rotation.T + self.translation

    def undo(self, points: np.ndarray) -> np.ndarray:
        """Return the points (N, 3) whose images are `points` (N, 3)."""
        return (points - self.translation) @ self.rotation / self.scale

    @property
    def degrees(self) -> float:
        """Angle of the rotation, 0 to 180."""
        return float(np.degrees(np.linalg.norm(Rotation.from_matrix(self.rotation).as_rotvec())))


def align(source: np.ndarray, target: np.ndarray, seed: int = 0) -> Similarity:
    """Return the similarity that lays points (N, 3) best onto `target` (M, 3), by Chamfer distance.

    Starts as the sets lie, and from the 24 turns of a cube, each also after 45 degrees about the
    y axis, with boxes matched. Never worse than no transform. Of fits that are equally good within
    2 % the one with the smallest rotation is taken.
    """
    generator = np.random.default_rng(seed)
    coarse = _Pair(_some(source, COARSE[0], generator), _some(target, COARSE[0], generator))
    fine = _Pair(_some(source, FINE[0], generator), _some(target, FINE[0], generator))
    starts = [Similarity(), *(_boxes_matched(source, target, turn) for turn in _turns())]
    tried = [coarse.refine(start, COARSE[1]) for start in starts]
    best = sorted(tried, key=coarse.chamfer)[:KEPT]
    if not any(start is tried[0] for start in best):
        best.append(tried[0])
    ends = [Similarity(), *(fine.refine(start, FINE[1]) for start in best)]

    whole = _Pair(source, target)
    distances = [whole.chamfer(end) for end in ends]
    good = [e for e, d in zip(ends, distances, strict=True) if d <= min(distances) * EQUALLY_GOOD]
    return min(good, key=lambda end: end.degrees)


def fit(source: np.ndarray, target: np.ndarray) -> Similarity:
    """Return the least-squares similarity for pairs (N, 3), (N, 3) of points (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / max((a**2).sum(), 1e-30))
    scale = max(scale, 1e-6)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


class _Pair:
    """Two point sets with their search trees."""

    def __init__(self, source: np.ndarray, target: np.ndarray) -> None:
        self.source, self.target = source, target
        self.source_tree, self.target_tree = cKDTree(source), cKDTree(target)

    def refine(self, start: Similarity, rounds: int) -> Similarity:
        """Return where ICP gets from `start`."""
        current = start
        for _ in range(rounds):
            forward = self.target_tree.query(current.apply(self.source))[1]
            backward = self.source_tree.query(current.undo(self.target))[1]
            following = fit(
                np.concatenate([self.source, self.source[backward]]),
                np.concatenate([self.target[forward], self.target]),
            )
            moved = following.apply(self.source) - current.apply(self.source)
            current = following
            if np.abs(moved).max() < 1e-5:
                break
        return current

    def chamfer(self, transform: Similarity) -> float:
        """Return the Chamfer distance after `transform`."""
        forward = self.target_tree.query(transform.apply(self.source))[0]
        backward = self.source_tree.query(transform.undo(self.target))[0] * transform.scale
        return float(forward.mean() + backward.mean()) / 2


def _some(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return points[generator.permutation(len(points))[:count]]


def _turns() -> list[np.ndarray]:
    """Return 48 rotation matrices (3, 3): the cube's, and those after 45 degrees about y."""
    cube = Rotation.create_group("O")
    between = Rotation.from_euler("y", 45, degrees=True) * cube
    return [*cube.as_matrix(), *between.as_matrix()]


def _boxes_matched(source: np.ndarray, target: np.ndarray, rotation: np.ndarray) -> Similarity:
    """Return the turn with the scale and shift that lay one set's box onto the other's."""
    turned = source @ rotation.T
    low, high = turned.min(0), turned.max(0)
    size, wanted = np.linalg.norm(high - low), np.linalg.norm(target.max(0) - target.min(0))
    scale = float(wanted) / max(float(size), 1e-12)
    center = (target.min(0) + target.max(0)) / 2
    return Similarity(scale, rotation, center - scale * (low + high) / 2)
