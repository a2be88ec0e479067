"""Check JSON from untrusted files; refuse values of unexpected types with a one-sentence error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import RevelioError

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)
_REQUIRED: Any = object()
_LARGEST = sys.float_info.max
_JSON_NAMES: dict[type, str] = {type(None): "nothing", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Fields:
    """A JSON object whose entries are checked when they are read.

    >>> Fields("a.json", {"name": "hat", "features": [3, 5]}, "get the file again").counts("features")
    [3, 5]
    """

    path: str | os.PathLike[str]
    table: Any
    advice: str
    """The end of every error message: what the user should do about a broken file."""
    what: str = "description"
    """What error messages call this JSON object, such as "config"."""
    keys: Collection[str] = ()
    """If given, the JSON object must have exactly these keys."""

    def __post_init__(self) -> None:
        if not isinstance(self.table, dict):
            raise self.broken(f"its {self.what} is not a table")
        if self.keys and set(self.table) != set(self.keys):
            raise self.broken(f"its {self.what} must have exactly the entries {', '.join(sorted(self.keys))}")

    def broken(self, reason: str) -> RevelioError:
        return RevelioError(f"{self.path} is broken: {reason}; {self.advice}.")

    def take(self, name: str, is_sound: Callable[[Any], bool], expected: str, default: T = _REQUIRED) -> T:
        """Return the entry `name` if `is_sound` accepts it. A missing entry gives `default`, if given."""
        if name not in self.table and default is not _REQUIRED:
            return default
        value: T = self.table.get(name)
        if not is_sound(value):
            # Lists and tables are not shown: their text could be as long as the file.
            shown = repr(value)[:40] if isinstance(value, (str, int, float)) else _JSON_NAMES[type(value)]
            raise self.broken(f"{name} in its {self.what} must be {expected}, not {shown}")
        return value

    def text(self, name: str, default: str = _REQUIRED, *, longest: int = sys.maxsize) -> str:
        expected = "a text" if longest == sys.maxsize else f"a text of at most {longest} letters"
        return self.take(name, lambda v: is_text(v) and len(v) <= longest, expected, default)

    def count(self, name: str, default: int = _REQUIRED, *, least: int = 0, most: int = 2**31 - 1) -> int:
        expected = f"a whole number from {least} to {most}"
        return self.take(name, lambda v: is_count(v, least, most), expected, default)

    def number(self, name: str, *, least: float = -_LARGEST) -> float:
        expected = "a finite number" if least < 0 else f"a number from {least}"
        value: float = self.take(name, lambda v: is_number(v) and v >= least, expected)
        return float(value)

    def choice(self, name: str, choices: Sequence[Choice]) -> Choice:
        return self.take(name, lambda v: v in choices, f"one of {', '.join(choices)}")

    def texts(self, name: str, default: list[str] = _REQUIRED) -> list[str]:
        return self.take(name, lambda v: is_list(v, is_text), "a list of texts", default)

    def counts(self, name: str) -> list[int]:
        return self.take(name, _are_counts, "a list of whole numbers")

    def numbers(self, name: str) -> list[float]:
        values: list[float] = self.take(name, lambda v: is_list(v, is_number), "a list of numbers")
        return [float(value) for value in values]

    def named_counts(self, name: str) -> dict[str, list[int]]:
        return self.take(name, lambda v: is_table(v, _are_counts), "a table of lists of whole numbers")

    def named_numbers(self, name: str) -> dict[str, float]:
        return self.take(name, lambda v: is_table(v, is_number), "a table of numbers")

    def tables(self, name: str, keys: Collection[str] = ()) -> list[Fields]:
        entries: list[Any] = self.take(name, lambda v: isinstance(v, list), "a list of tables")
        return [Fields(self.path, entry, self.advice, f"entry of {name}", keys) for entry in entries]


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_count(value: Any, least: int = 0, most: int = 2**31 - 1) -> bool:
    return type(value) is int and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether the value is a finite number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= _LARGEST


def is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(is_item, value))


def is_table(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(is_item, value.values()))


def _are_counts(value: Any) -> bool:
    return is_list(value, is_count)
