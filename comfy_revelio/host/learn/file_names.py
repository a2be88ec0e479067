"""Check the names that users give to harvests and SAEs, which become file names."""

from __future__ import annotations

import re

from ...errors import RevelioError

_NAME = re.compile(r"[\w\- ]{1,80}")


def require_file_name(name: str) -> None:
    """Refuse a path, or a name that is not a valid file name on every system."""
    if not _NAME.fullmatch(name):
        raise RevelioError(
            f"{name!r} cannot be a file name; use letters, digits, spaces, - and _, at most 80 characters."
        )
