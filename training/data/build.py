"""A builder of procedural objects: a list of primitives, one row of numbers each.

Build frame: y up, any unit, any place; z towards the viewer who sees the front.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float]

BOX, FRUSTUM, ELLIPSOID, TORUS = range(4)
ADD, CUT = range(2)
PLAIN, STRIPES, CHECKS, WAVES = range(4)

# Columns of a row.
KIND, OP, BLEND, ROUND, PATTERN, PAINTED = range(6)
CENTER, TURN, SIZE = slice(6, 9), slice(9, 18), slice(18, 21)
COLOR, SECOND, FREQUENCY = slice(21, 24), slice(24, 27), slice(27, 30)
WIDTH = 30


class Paint:
    """A color (sRGB in [0, 1]) and perhaps a pattern with a second one.

    frequency: radians per build unit along the primitive's own axes.
    """

    def __init__(
        self,
        color: Vector,
        second: Vector | None = None,
        pattern: int = PLAIN,
        frequency: Vector = (0, 0, 0),
    ):
        self.color, self.pattern, self.frequency = color, pattern, frequency
        self.second = color if second is None else second


class Builder:
    """Collects primitives; later ones act on all earlier ones."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.rows: list[list[float]] = []
        self.trimmed = False

    def box(self, center: Vector, half: Vector, paint: Paint, round: float = 0.0, **how) -> None:
        """Add a box with half sides `half`, its edges rounded by `round` inside of them."""
        round = min(round, min(half))
        self._row(BOX, center, [h - round for h in half], paint, round, **how)

    def tube(self, a: Vector, b: Vector, r0: float, r1: float | None, paint: Paint, **how) -> None:
        """Add a frustum from a (radius r0) to b (radius r1, or r0)."""
        r1 = r0 if r1 is None else r1
        axis = np.subtract(b, a)
        length = float(np.linalg.norm(axis))
        round = min(how.pop("round", 0.0), r0 * 0.9, r1 * 0.9, length * 0.45)
        center = [(p + q) / 2 for p, q in zip(a, b, strict=True)]
        size = [r0 - round, r1 - round, length / 2 - round]
        self._row(FRUSTUM, center, size, paint, round, turn=along(axis / length), **how)

    def rod(self, a: Vector, b: Vector, radius: float, paint: Paint, **how) -> None:
        """Add a capsule from a to b."""
        axis = np.subtract(b, a)
        length = float(np.linalg.norm(axis))
        center = [(p + q) / 2 for p, q in zip(a, b, strict=True)]
        turn = along(axis / max(length, 1e-9))
        self._row(BOX, center, [0, length / 2, 0], paint, radius, turn=turn, **how)

    def ball(self, center: Vector, radii: Vector | float, paint: Paint, **how) -> None:
        """Add an ellipsoid."""
        size = [radii] * 3 if isinstance(radii, float | int) else radii
        self._row(ELLIPSOID, center, size, paint, 0.0, **how)

    def ring(self, center: Vector, radius: float, thick: float, paint: Paint, **how) -> None:
        """Add a torus around its own y axis; `thick` is the tube's radius."""
        self._row(TORUS, center, [radius, thick, 0], paint, 0.0, **how)

    def _row(
        self,
        kind: int,
        center: Vector,
        size: Vector,
        paint: Paint,
        round: float,
        turn: np.ndarray | None = None,  # (3, 3), own axes in its columns
        blend: float = 0.0,
        cut: bool = False,
        trim: bool = False,
    ) -> None:
        turn = np.eye(3) if turn is None else turn
        self.trimmed |= trim
        row = [kind, CUT if cut or trim else ADD, blend, round, paint.pattern, 1.0]
        row += [*center, *turn.reshape(-1).tolist(), *size]
        self.rows.append([*row, *paint.color, *paint.second, *paint.frequency])

    def table(self) -> np.ndarray:
        """Return the rows (M, WIDTH) float64, scaled to the object frame by their own box."""
        rows = np.array(self.rows, dtype=np.float64)
        reach = _reach(rows)
        solid = rows[:, OP] == ADD
        low = (rows[:, CENTER] - reach)[solid].min(0)
        high = (rows[:, CENTER] + reach)[solid].max(0)
        return rescale(rows, (low + high) / 2, 1 / float((high - low).max()))


def rescale(rows: np.ndarray, center: np.ndarray, scale: float) -> np.ndarray:
    """Return rows moved by -center, then scaled."""
    rows = rows.copy()
    rows[:, CENTER] = (rows[:, CENTER] - center) * scale
    rows[:, SIZE] *= scale
    rows[:, [BLEND, ROUND]] *= scale
    rows[:, FREQUENCY] /= scale
    return rows


def _reach(rows: np.ndarray) -> np.ndarray:
    """Return the half sides (M, 3) of every primitive's axis-parallel box."""
    turn = rows[:, TURN].reshape(-1, 3, 3)
    size, kind = rows[:, SIZE], rows[:, KIND]
    axis = turn[:, :, 1]
    across = np.sqrt(np.clip(1 - axis**2, 0, 1))
    box = np.abs(turn) @ size[:, :, None]
    frustum = np.abs(axis) * size[:, 2:] + across * size[:, :2].max(1, keepdims=True)
    ellipsoid = np.sqrt(((turn * size[:, None]) ** 2).sum(2))
    torus = across * size[:, :1] + size[:, 1:2]
    which = [kind == k for k in range(4)]
    parts = [box[:, :, 0], frustum, ellipsoid, torus]
    reach = np.select([w[:, None] for w in which], parts)
    return reach + rows[:, [ROUND]]


def along(axis: Vector | np.ndarray) -> np.ndarray:
    """Return a rotation (3, 3) that takes y to the unit vector `axis`."""
    y = np.asarray(axis, float)
    x = np.cross(y, [0, 0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0, 0])
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], 1)


def tilt(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Return the rotation (3, 3) about x, then y, then z; radians."""
    cx, sx, cy, sy, cz, sz = (f(v) for v in (x, y, z) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
