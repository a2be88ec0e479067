"""RevelioError, the one class for errors that a user can cause and can fix."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Choice = TypeVar("Choice", bound=str)


class RevelioError(ValueError):
    """Bad input. The message says in one sentence what was given, what was expected and what to do."""


def checked_choice(what: str, value: str, choices: Collection[Choice]) -> Choice:
    """Return `value` if it is one of `choices`; otherwise raise a RevelioError that lists them.

    >>> checked_choice("pooling", "token", ("token", "spatial_mean"))
    'token'
    """
    for choice in choices:
        if choice == value:
            return choice
    raise RevelioError(f"Unknown {what} {value!r}; choose one of {', '.join(choices)}.")
