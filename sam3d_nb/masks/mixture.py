"""Mixtures of Gaussians over the colors of weighted regions, as GrabCut has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPREAD = 4.0
"""Variance that is added to every color axis, in CIELAB units squared: noise and small samples."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """K Gaussians. height: (K,) log density at the mean. mean: (K, 3). root: (K, 3, 3).

    Differences from the mean times `root` have variance 1 along every axis.
    """

    height: np.ndarray
    mean: np.ndarray
    root: np.ndarray

    def parts(self, colors: np.ndarray) -> np.ndarray:
        """Return (N, K), the log density of each color (N, 3) under each Gaussian."""
        distance = np.stack(
            [
                (((colors - mean) @ root) ** 2).sum(axis=1)
                for mean, root in zip(self.mean, self.root, strict=True)
            ],
            axis=1,
        )
        return self.height - 0.5 * distance

    def log_density(self, colors: np.ndarray) -> np.ndarray:
        """Return (N,), the log density of each color (N, 3), up to a constant."""
        return np.logaddexp.reduce(self.parts(colors), axis=1)


def fit_mixture(colors: np.ndarray, weights: np.ndarray, count: int, rounds: int = 3) -> Mixture:
    """Return at most `count` Gaussians of colors (N, 3) with weights (N,) above 0; no chance in it.

    Each color belongs to one Gaussian: k-means first, then the most likely one, a few rounds.
    """
    mixture = _fit(colors, weights, _k_means(colors, weights, min(count, len(colors))))
    for _ in range(rounds):
        mixture = _fit(colors, weights, mixture.parts(colors).argmax(axis=1))
    return mixture


def _fit(colors: np.ndarray, weights: np.ndarray, owner: np.ndarray) -> Mixture:
    heights, means, roots = [], [], []
    for k in np.unique(owner):
        own, weight = colors[owner == k], weights[owner == k]
        mean = np.average(own, axis=0, weights=weight)
        off = own - mean
        covariance = (weight[:, None] * off).T @ off / weight.sum() + SPREAD * np.eye(3)
        root = np.linalg.cholesky(np.linalg.inv(covariance))
        heights.append(np.log(weight.sum() / weights.sum() * root.diagonal().prod()))
        means.append(mean)
        roots.append(root)
    return Mixture(np.array(heights), np.array(means), np.array(roots))


def _k_means(colors: np.ndarray, weights: np.ndarray, count: int, rounds: int = 8) -> np.ndarray:
    """Return (N,), the cluster of each color; begins with colors far from each other."""
    centers = colors[[int(weights.argmax())]]
    nearest = ((colors - centers[0]) ** 2).sum(axis=1)
    for _ in range(count - 1):
        new = colors[int((nearest * np.sqrt(weights)).argmax())]
        centers = np.concatenate([centers, new[None]])
        nearest = np.minimum(nearest, ((colors - new) ** 2).sum(axis=1))
    for _ in range(rounds):
        owner = ((colors[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
        for k in np.unique(owner):
            own = owner == k
            centers[k] = np.average(colors[own], axis=0, weights=weights[own])
    return owner
