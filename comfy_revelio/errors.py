"""The one error class for everything that a user can cause and can put right."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Choice = TypeVar("Choice", bound=str)


class RevelioError(ValueError):
    """Bad input, in one sentence: what it was, what was expected, what to do."""


def checked_choice(what: str, value: str, choices: Collection[Choice]) -> Choice:
    """The value, as one of the choices; RevelioError that lists them for any other.

    >>> checked_choice("pooling", "token", ("token", "spatial_mean"))
    'token'
    """
    for choice in choices:
        if choice == value:
            return choice
    raise RevelioError(f"Unknown {what} {value!r}; choose one of {', '.join(choices)}.")
