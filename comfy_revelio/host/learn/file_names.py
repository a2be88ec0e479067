"""Names that users give to what is learned: they become files."""

from __future__ import annotations

import re

from ...errors import RevelioError

_NAME = re.compile(r"[\w\- ]{1,80}")


def require_file_name(name: str) -> None:
    """Refuse a name that could not be a file on every system, or that is a path."""
    if not _NAME.fullmatch(name):
        raise RevelioError(
            f"{name!r} cannot be a file name; use letters, digits, spaces, - and _, at most 80 characters."
        )
