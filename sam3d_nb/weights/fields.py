"""Reading published settings as plain data: every field is used, checked, known to be idle, or
refused by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.folder import shown

MAX_YAML = 2**20  # bytes
MAX_NODES = 50_000  # after the file's own references are followed
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
ALWAYS_IDLE = ("_target_", "_partial_", "_recursive_", "_convert_")  # names of classes: never used


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file: mappings, lists, texts, numbers and truth values.

    Raises WeightsError where it is missing, no YAML, asks for Python objects, or expands to more
    than any settings file needs.
    """
    try:
        if path.stat().st_size > MAX_YAML:
            raise WeightsError(
                f"{path.name} is refused: settings are smaller than {MAX_YAML} bytes"
            )
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _plain(data, iter(range(MAX_NODES)))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = shown(" ".join(str(error).split()), 300)
        raise WeightsError(f"{path.name} is refused, it is no plain YAML: {reason}") from error
    except StopIteration as error:
        raise WeightsError(f"{path.name} is refused: it expands to too much") from error


def _plain(value: Any, budget: Iterator[int]) -> Any:
    next(budget)
    if isinstance(value, dict):
        table = {}
        for key, item in value.items():
            if not str(key).isprintable() or len(str(key)) > 100:
                raise ValueError("it has a key that is no name")
            table[str(key)] = _plain(item, budget)
        return table
    if isinstance(value, list):
        items = []
        for item in value:
            items.append(_plain(item, budget))
        return items
    if isinstance(value, str) and NUMBER.fullmatch(value) and not value.isdecimal():
        return float(value)  # 1e-6 is a number in YAML 1.2, a text for this reader
    return value


class Problems:
    """Collects what is unknown or different over all files, to be told at once.

    accepted: full names that the caller takes as the released model has them.
    """

    def __init__(self, accepted: tuple[str, ...] = ()) -> None:
        self.accepted = accepted
        self.used: set[str] = set()
        self._texts: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        """Take note of what is wrong with the field called `name`, unless it is accepted."""
        if name in self.accepted:
            self.used.add(name)
        else:
            self._texts.setdefault(name, text)

    def check(self) -> None:
        """Raise WeightsError that names all fields; nothing happens where there are none."""
        if not self._texts:
            return
        shown = [f"{name} {text}" for name, text in self._texts.items()]
        more = f"; and {len(shown) - 12} more" if len(shown) > 12 else ""
        names = ",".join(list(self._texts)[:12])
        raise WeightsError(
            f"the published settings are not those that this version knows: {'; '.join(shown[:12])}"
            f"{more}. Update this package; to take these fields as the released model has them: "
            f"--accept {names}"
        )


class Node:
    """A mapping of settings whose fields must all be asked for before `finish`."""

    def __init__(self, data: Any, where: str, problems: Problems) -> None:
        self.where = where
        self.problems = problems
        if not isinstance(data, Mapping):
            problems.add(where, f"is {short(data)}, which has no fields")
            data = {}
        self.data: Mapping[str, Any] = data
        self._asked = set(ALWAYS_IDLE)

    def integer(self, name: str, default: int, low: int = 1, high: int = 8192) -> int:
        """Return a whole number; `default`, that of the released model, where it is absent."""

        def valid(value: Any) -> bool:
            whole = type(value) in (int, float) and float(value).is_integer()
            return whole and low <= value <= high

        return int(self._take(name, default, valid, f"a whole number from {low} to {high}"))

    def number(self, name: str, default: float) -> float:
        """Return a finite number; `default` where it is absent."""

        def valid(value: Any) -> bool:
            return type(value) in (int, float) and math.isfinite(value)

        return float(self._take(name, default, valid, "a number"))

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value; `default` where it is absent."""
        return bool(self._take(name, default, lambda value: type(value) is bool, "true or false"))

    def numbers(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """Return as many finite numbers as `default` has, which is taken where they are absent."""

        def valid(value: Any) -> bool:
            return (
                isinstance(value, list)
                and len(value) == len(default)
                and all(type(x) in (int, float) and math.isfinite(x) for x in value)
            )

        values = self._take(name, list(default), valid, f"{len(default)} numbers")
        return tuple(map(float, values))

    def fixed(self, name: str, *allowed: Any) -> None:
        """Check that a field, where it is present, has one of the values that this code is for."""
        choices = " or ".join(short(value) for value in allowed)
        self._take(name, allowed[0], lambda value: value in allowed, choices)

    def idle(self, *patterns: str) -> None:
        """Let pass the fields, whatever their values, that act in training only or not at all."""
        for name in self.data:
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                self._asked.add(name)

    def child(self, name: str) -> Node:
        """Return a field that holds fields; an absent one is a problem."""
        self._asked.add(name)
        if name not in self.data:
            self.problems.add(f"{self.where}.{name}", "is missing")
        return Node(self.data.get(name, {}), f"{self.where}.{name}", self.problems)

    def value(self, name: str) -> Any:
        """Return a field as it is, or None."""
        self._asked.add(name)
        return self.data.get(name)

    def finish(self) -> None:
        """Take note of the fields that nobody asked for."""
        for name in self.data:
            if name not in self._asked:
                value = short(self.data[name])
                self.problems.add(f"{self.where}.{name}", f"is unknown (it is {value})")

    def _take(self, name: str, default: Any, valid: Callable[[Any], bool], wanted: str) -> Any:
        self._asked.add(name)
        value = self.data.get(name, default)
        if valid(value):
            return value
        self.problems.add(f"{self.where}.{name}", f"is {short(value)}, not {wanted}")
        return default


def short(value: Any) -> str:
    """Return a value from a file as it may be printed: short, without control codes."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def find_node(data: Any, where: str, fields: tuple[str, ...], problems: Problems) -> Node:
    """Return the one mapping at any depth with all of `fields`; none or several is a problem."""
    found = list(_mappings_with(data, where, fields))
    if len(found) != 1:
        problems.add(where, f"has {len(found)} places with the fields {', '.join(fields)}, not one")
        return Node({}, where, Problems(()))
    return Node(*found[0], problems)


def _mappings_with(
    data: Any, where: str, fields: tuple[str, ...]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    items: Any = ()
    if isinstance(data, Mapping):
        if all(field in data for field in fields):
            yield data, where
            return
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, item in items:
        yield from _mappings_with(item, f"{where}.{key}", fields)
