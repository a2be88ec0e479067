"""The one error class for everything that a user can cause and can put right."""

from __future__ import annotations


class RevelioError(ValueError):
    """Bad input, told in one sentence: what it was, what was expected, what to do."""
