"""The command line, `python -m comfy_revelio COMMAND`; each command has a file of the same name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import RevelioError
from . import convert, evaluate, harvest, inspect, label, train

DESCRIPTION = "Inspect, convert, train, label and evaluate dictionaries of a model's activations."

COMMANDS = (inspect, convert, harvest, train, label, evaluate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return exit code 0, or 2 after printing an error message on bad input."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except RevelioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser for all commands; parsing sets `run` to the chosen command's function."""
    top = argparse.ArgumentParser(prog="python -m comfy_revelio", description=DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
