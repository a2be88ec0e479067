"""The command line: `python -m comfy_revelio inspect FILE` and `python -m comfy_revelio evaluate mini`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import RevelioError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0, or 2 with one sentence on bad input."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except RevelioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m comfy_revelio", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="say what a dictionary file holds")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    evaluate = commands.add_parser("evaluate", help="measure a model and its dictionaries")
    subjects = evaluate.add_subparsers(required=True, metavar="SUBJECT")
    mini = subjects.add_parser("mini", help="the bundled model, its judge, its SAEs and steering with them")
    mini.add_argument("--prompts", type=_count, default=512, help="held-out prompts")
    mini.add_argument(
        "--steering", type=_count_or_zero, default=128, help="prompts per concept and direction; 0: none"
    )
    mini.add_argument("--minutes", type=_minutes, help="a smaller sample that takes about this long")
    mini.add_argument("--json", type=Path, help="file for the figures")
    mini.set_defaults(run=_evaluate_mini)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _count_or_zero(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _inspect(arguments: argparse.Namespace) -> None:
    from .dictionary import peek

    config = peek(arguments.file)
    if arguments.json:
        print(json.dumps(config, indent=2))
        return
    for name, value in config.items():
        if name == "labels":
            value = ", ".join(value) or "none"
        print(f"{name}: {value}")


def _evaluate_mini(arguments: argparse.Namespace) -> None:
    from .host.standalone import use_comfyui

    use_comfyui()
    from .host.mini_evaluation import evaluate, evaluate_in

    def say(text: str) -> None:
        print(text, flush=True)

    report: dict[str, Any]
    if arguments.minutes is not None:
        report = evaluate_in(arguments.minutes, say=say)
    else:
        report = evaluate(arguments.prompts, arguments.steering, say=say)
    text = json.dumps(_rounded(report), indent=2)
    if arguments.json:
        try:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(text + "\n", encoding="utf-8")
        except OSError as problem:
            print(text)  # minutes of work must not be lost
            raise RevelioError(f"{arguments.json} could not be written: {problem.strerror}.") from None
    else:
        print(text)


def _rounded(value: Any) -> Any:
    """The same structure with floats at four digits behind the point."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
