"""What the tests of the engine share: a photo, masks, a point map, and a store that counts."""

from typing import Any

import numpy as np

from sam3d_nb.object3d import Object3D
from sam3d_nb.weights.store import StandInStore

H, W = 60, 80


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def disc(u0: float = 40, v0: float = 30, radius: float = 20) -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    return (u - u0) ** 2 + (v - v0) ** 2 < radius**2


def plane(depth: float = 2.0) -> np.ndarray:
    """A wall that comes nearer to the right, with a hole."""
    v, u = np.mgrid[:H, :W] + 0.5
    z = depth - 0.3 * u / W
    points = np.dstack([(u - 40) / 90 * z, (v - 30) / 90 * z, z]).astype(np.float32)
    points[:5, :5] = np.nan
    return points


class CountingStore(StandInStore):
    """Remembers which networks were got and not released, now and at any time together."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.together: set[frozenset[str]] = set()

    def get(self, name: str, device: Any = None) -> Any:
        self.held.add(name)
        self.together.add(frozenset(self.held))
        return super().get(name, device)

    def release(self, name: str) -> None:
        self.held.discard(name)
        super().release(name)


QUICK: dict[str, Any] = {"steps": (2, 2), "pointmap": plane()}


def arrays(made: Object3D) -> dict[str, np.ndarray]:
    """Everything in the result that is a number."""
    assert made.gaussians is not None
    pose = np.array([*made.pose.rotation, *made.pose.translation, *made.pose.scale])
    mesh = {name: getattr(made.mesh, name) for name in ("vertices", "faces", "colors")}
    return mesh | vars(made.gaussians) | {"pose": pose}


def assert_same(first: Object3D, second: Object3D) -> None:
    """Bit for bit."""
    for (name, a), (_, b) in zip(arrays(first).items(), arrays(second).items(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
