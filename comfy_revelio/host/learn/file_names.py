"""Check names of harvests and SAEs that users choose, because these names become file names."""

from __future__ import annotations

import re

from ...errors import RevelioError

_NAME = re.compile(r"[\w\- ]{1,80}")


def require_file_name(name: str) -> None:
    """Raise RevelioError unless `name` is a valid file name on every system, and not a path."""
    if not _NAME.fullmatch(name):
        raise RevelioError(
            f"{name!r} cannot be a file name; use letters, digits, spaces, - and _, at most 80 characters."
        )
