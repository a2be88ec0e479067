"""`evaluate`: measure a dictionary, or the bundled model and steering with its dictionaries."""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from ..dictionary import load_dictionary
from ..errors import RevelioError
from ..render.canvas import save_jpeg
from ..training import ShardSet
from ..training.metrics import measure_by_timestep
from .options import add_json, count, print_table, rounded


def add(commands: Any) -> None:
    """Add the `evaluate` command to the parser."""
    parser = commands.add_parser("evaluate", help="measure a model and its dictionaries")
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    mini = subjects.add_parser("mini", help="the bundled model, its judge, its SAEs and steering with them")
    mini.add_argument("--prompts", type=count, default=512, help="number of held-out prompts")
    mini.add_argument(
        "--steering", type=_count_or_zero, default=128, help="prompts per concept and direction; 0: none"
    )
    mini.add_argument("--minutes", type=_minutes, help="measure only as many samples as this time allows")
    mini.add_argument("--json", type=Path, help="file for the metrics")
    mini.set_defaults(run=_mini)
    steering = subjects.add_parser(
        "steering", help="the bundled model, steered with every mode, role, schedule and mask"
    )
    steering.add_argument("--prompts", type=count, default=16, help="number of prompts for each direction")
    steering.add_argument("--json", type=Path, required=True, help="file for the metrics")
    steering.add_argument("--pictures", type=Path, required=True, help="folder for the images")
    steering.set_defaults(run=_steering)
    reconstruction = subjects.add_parser("reconstruction", help="how well a dictionary explains activations")
    reconstruction.add_argument("dictionary", type=Path, help="file or folder in any layout")
    reconstruction.add_argument("data", type=Path, help="folder of activations")
    reconstruction.add_argument("--rows", type=count, default=65_536, help="number of activations")
    reconstruction.add_argument("--all", action="store_true", help="use all activations, not just held-out")
    add_json(reconstruction)
    reconstruction.set_defaults(run=_reconstruction)


def _count_or_zero(text: str) -> int:
    return 0 if text == "0" else count(text)


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _reconstruction(arguments: argparse.Namespace) -> None:
    dictionary, shards = load_dictionary(arguments.dictionary), ShardSet(arguments.data)
    if dictionary.d_model != shards.d_model:
        raise RevelioError(
            f"{arguments.dictionary} is for activations {dictionary.d_model} wide, but those in "
            f"{arguments.data} are {shards.d_model} wide."
        )
    view = shards.split(held_out=0.0)[0] if arguments.all else shards.split()[1]
    rows = view.all(limit=arguments.rows)
    print_table(rounded(measure_by_timestep(dictionary, rows.x, rows.timestep)), as_json=arguments.json)


def _lab(name: str) -> Any:
    """Import a module of `lab.evaluate`, which exists only in a clone of the repository."""
    from ..host.standalone import use_comfyui

    use_comfyui()
    try:
        return import_module(f"lab.evaluate.{name}")
    except ModuleNotFoundError as problem:
        if problem.name not in ("lab", "lab.evaluate"):
            raise
        raise RevelioError(
            "This installation does not include the evaluation of the bundled model; run the command in a "
            "clone of the repository."
        ) from None


def _say(text: str) -> None:
    print(text, flush=True)


def _steering(arguments: argparse.Namespace) -> None:
    report, images = _lab("modes_roles_masks").measure(arguments.prompts, say=_say)
    try:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            save_jpeg(image, arguments.pictures / f"{name}.jpg")
        _write_json(report, arguments.json)
    except OSError as problem:
        raise RevelioError(f"The metrics could not be written: {problem.strerror}.") from None


def _mini(arguments: argparse.Namespace) -> None:
    started = time.monotonic()  # the requested time includes loading
    notes: Path | None = None
    if arguments.minutes is not None:
        report = _lab("in_time").evaluate_in(
            arguments.minutes, arguments.prompts, arguments.steering, started=started, say=_say
        )
    else:
        # If this long measurement is interrupted, the same command resumes from these notes.
        notes = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial")
        report = _lab("measure").evaluate(arguments.prompts, arguments.steering, notes=notes, say=_say)
    if not arguments.json:
        print(json.dumps(rounded(report), indent=2))
        return
    try:
        _write_json(report, arguments.json)
    except OSError as problem:
        print(json.dumps(rounded(report), indent=2))  # otherwise, the long work would be lost
        raise RevelioError(f"{arguments.json} could not be written: {problem.strerror}.") from None
    if notes:
        notes.unlink(missing_ok=True)


def _write_json(report: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rounded(report), indent=2) + "\n", encoding="utf-8")
