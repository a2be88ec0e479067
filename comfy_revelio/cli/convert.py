"""`convert`: read a dictionary in any known layout and save it in Revelio's layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..dictionary import describe_file, load_dictionary, save_dictionary
from ..dictionary.orbax import is_orbax, read_orbax
from ..errors import RevelioError
from .options import add_json, count, print_table


def add(commands: Any) -> None:
    """Add the `convert` command to the parser."""
    parser = commands.add_parser(
        "convert", help="read a dictionary in any layout (also Flux's Orbax) and save it in Revelio's layout"
    )
    parser.add_argument("source", type=Path, help="file or folder")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--hook-point", default="", help="overrides the hook point in the source")
    parser.add_argument("--captured", choices=("output", "diff"), help="trained on output, or output - input")
    parser.add_argument("--k", type=count, help="number of active features, only for Orbax checkpoints")
    parser.add_argument("--float32", action="store_true", help="save in float32; by default float16")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if is_orbax(arguments.source):
        dictionary = read_orbax(arguments.source, arguments.k)
        dictionary.hook_point = arguments.hook_point or dictionary.hook_point
        dictionary.captured = arguments.captured or dictionary.captured
    else:
        if arguments.k is not None:
            raise RevelioError("--k is for Orbax checkpoints; files in every other layout include their k.")
        dictionary = load_dictionary(
            arguments.source, hook_point=arguments.hook_point, captured=arguments.captured
        )
    save_dictionary(dictionary, arguments.out, dtype=torch.float32 if arguments.float32 else torch.float16)
    print_table(describe_file(arguments.out), as_json=arguments.json)
