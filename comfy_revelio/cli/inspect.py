"""`inspect`: describe a dictionary file or folder in any layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..dictionary import describe_file
from .options import add_json, print_table


def add(commands: Any) -> None:
    """Add the `inspect` command to the parser."""
    parser = commands.add_parser("inspect", help="describe a dictionary file or folder in any layout")
    parser.add_argument("file", type=Path)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    print_table(describe_file(arguments.file), as_json=arguments.json)
