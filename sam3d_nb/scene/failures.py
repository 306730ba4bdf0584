"""What objects of a scene fail by: told while the rest go on, raised where nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from sam3d_nb.errors import Sam3dError, explain
from sam3d_nb.scene.scene import Failure


def failure_of(name: str, mask_index: int | None, error: Exception) -> Failure:
    """Return what became of an object; where nobody expected the error, with its traceback."""
    return Failure(name, mask_index, type(error).__name__, *explain(error))


def raise_all_failed(failures: Sequence[Failure], what: str = "made") -> NoReturn:
    """Raise the kind of error that the first object had. what: could not be done with any."""
    first = failures[0]
    kinds = {kind.__name__: kind for kind in Sam3dError.__subclasses__()}
    many = "" if len(failures) == 1 else f"none of the {len(failures)} objects could be {what}; "
    raise kinds.get(first.kind, Sam3dError)(f"{many}{first.name}: {first.reason}")
