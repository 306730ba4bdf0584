"""The header of a benchmark: what ran, on what, how."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sam3d_nb.machine import clocks, code_sha256, commit, driver, hardware, versions
from sam3d_nb.pipeline import Model

FORMAT = 1


def make_header(model: Model, configuration: dict[str, Any]) -> dict[str, Any]:
    """Return what the times of a benchmark depend on, and what else tells about it.

    In `identity` is what must be the same for a benchmark to go on in another process. `benchmark`
    adds `first_load_seconds`, except where the model was there before.
    """
    identity = {
        "format": FORMAT,
        "model": {"name": model.name, "version": model.version, **model.deciding()},
        "weights_sha256": weights_sha256(model),
        "code_sha256": code_sha256(),
        "configuration": configuration,
        "hardware": hardware(),
        "driver": driver(),
        "versions": versions(),
    }
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "clocks_mhz": clocks(),
        "identity": identity,
    }


def weights_sha256(model: Model) -> str:
    """Return the hash of the manifest of a model's weights, empty where it has no such files."""
    origin = getattr(getattr(model, "store", None), "origin", None)
    return getattr(origin, "sha256", "")


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Return the entries in which two nested dictionaries differ, with both values."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else [f"{path} {first!r} instead of {second!r}"]
    found: list[str] = []
    for name in dict.fromkeys([*first, *second]):
        inner = f"{path}.{name}" if path else str(name)
        found += differences(first.get(name), second.get(name), inner)
    return found
