"""Every entry of a JSON table is of the expected type, or the message names file, entry and expectation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfy_revelio.errors import RevelioError
from comfy_revelio.files.json_fields import Fields


def _fields(table: Any, **options: Any) -> Fields:
    return Fields("a.json", table, "get it again", "config", **options)


def test_sound_entries_come_back() -> None:
    fields = _fields(
        {"a": "x", "b": 3, "c": [1, 2], "d": {"hat": [4]}, "e": [{"a": "y"}], "f": 2, "g": {"fvu": 1}}
    )
    assert (fields.text("a"), fields.count("b"), fields.counts("c")) == ("x", 3, [1, 2])
    assert fields.named_counts("d") == {"hat": [4]} and fields.named_numbers("g") == {"fvu": 1}
    assert [entry.text("a") for entry in fields.tables("e")] == ["y"]
    assert type(fields.number("f")) is float
    assert fields.choice("a", ("x", "y")) == "x"
    assert (fields.text("z", ""), fields.count("z", 7), fields.texts("z", [])) == ("", 7, [])


REFUSED: dict[str, tuple[Any, Callable[[Fields], Any], str]] = {
    "missing": ({}, lambda f: f.text("a"), "a in its config must be a text, not nothing"),
    "null in place of a default": ({"a": None}, lambda f: f.text("a", ""), "not nothing"),
    "long text": ({"a": "xxx"}, lambda f: f.text("a", longest=2), "at most 2 letters, not 'xxx'"),
    "bool as count": ({"a": True}, lambda f: f.count("a"), "from 0 to 2147483647, not True"),
    "fraction": ({"a": 1.0}, lambda f: f.count("a"), "whole number"),
    "count out of range": ({"a": 9}, lambda f: f.count("a", least=1, most=8), "from 1 to 8, not 9"),
    "number too large for a float": ({"a": 10**400}, lambda f: f.number("a"), "a finite number"),
    "number below": ({"a": -0.5}, lambda f: f.number("a", least=0), "a number from 0, not -0.5"),
    "choice that cannot be hashed": ({"a": ["x"]}, lambda f: f.choice("a", ("x",)), "one of x, not a list"),
    "mixed list": ({"a": [1, "x"]}, lambda f: f.counts("a"), "whole numbers, not a list"),
    "list of numbers with text": ({"a": [1, "x"]}, lambda f: f.numbers("a"), "list of numbers"),
    "list as table": ({"a": [1]}, lambda f: f.named_counts("a"), "not a list"),
    "table of text": ({"a": {"x": "1"}}, lambda f: f.named_numbers("a"), "not a table"),
    "tables of text": ({"a": ["x"]}, lambda f: f.tables("a"), "its entry of a is not a table"),
    "tables with other entries": ({"a": [{}]}, lambda f: f.tables("a", ("x",)), "exactly the entries x"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_other_entries_are_refused(what: str) -> None:
    table, ask, message = REFUSED[what]
    with pytest.raises(RevelioError) as caught:
        ask(_fields(table))
    assert message in str(caught.value)
    assert str(caught.value).startswith("a.json is broken: ") and str(caught.value).endswith(
        "; get it again."
    )


def test_the_table_itself_is_checked() -> None:
    with pytest.raises(RevelioError, match="its config is not a table"):
        _fields([])
    with pytest.raises(RevelioError, match="must have exactly the entries a, b"):
        _fields({"a": 1}, keys=("b", "a"))


def test_a_message_stays_short_whatever_is_in_the_file() -> None:
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    for value in ("x\n" * 10**6, nested, {"a": nested}, 10**300):
        with pytest.raises(RevelioError) as caught:
            _fields({"a": value}).texts("a")
        assert len(str(caught.value)) < 150 and "\n" not in str(caught.value)
