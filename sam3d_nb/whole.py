"""Whole numbers, told from whatever else a caller or a browser may give."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_whole(number: Any) -> bool:
    """Say whether something is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
