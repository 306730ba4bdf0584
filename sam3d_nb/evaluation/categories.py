"""What kind of thing an object is: eight kinds for the models of the household library."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from sam3d_nb.examples import Example

OTHER = "other"


def category(example: Example, index: int) -> str:
    """Return the category of object `index`: as `example.json` says it, else by its model's name.

    `OTHER` where neither is known.
    """
    for entry in example.info.get("objects", []):
        if entry["index"] == index:
            given = entry.get("category") or category_of_models().get(str(entry.get("model")))
            return str(given or OTHER)
    return OTHER


@cache
def category_of_models() -> dict[str, str]:
    """Return the category of every model of the CC0 furniture library, by the model's name."""
    text = Path(__file__).with_name("categories.json").read_text(encoding="utf-8")
    return {model: name for name, models in json.loads(text).items() for model in models}
