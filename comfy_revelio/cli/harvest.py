"""`harvest`: run a model and save its activations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..errors import RevelioError
from ..training import ShardSet
from ..training.harvest import CaptureSpec, items_of_prompts
from ..training.open_images import items_of_images
from ..training.parallel_harvest import harvest_in_parallel
from ..training.processes import join_processes
from .options import ProgressBar, add_fields, add_json, add_model, count, load_host, print_table, read_lines


def add(commands: Any) -> None:
    """Add the `harvest` command to the parser."""
    parser = commands.add_parser(
        "harvest",
        help="run a model and save its activations; if interrupted, the same command resumes",
        description="For several processes: accelerate launch --multi_gpu -m comfy_revelio harvest ...",
    )
    parser.add_argument("out", type=Path, help="folder to write; each hook point gets a subfolder")
    parser.add_argument("--hook-point", action="append", required=True, help="repeat for several hook points")
    add_fields(parser, CaptureSpec, "captured")
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--prompts", type=Path, help="a text file, one prompt per line")
    inputs.add_argument("--images", type=Path, help="a folder of images, each with its prompt in NAME.txt")
    add_model(parser, diffusers=True)
    parser.add_argument("--every", type=count, default=1, help="for prompts: keep every n-th step")
    parser.add_argument(
        "--timesteps", default="25,200", help="for images: timesteps from 0 to 999, separated by commas"
    )
    parser.add_argument("--checkpoint-every", type=count, default=64, help="save after this many items")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--budget-gb", type=float, help="stop before the folders together exceed this")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    processes, _ = join_processes("" if torch.cuda.is_available() else "cpu")  # first: chooses the GPU
    items = (
        items_of_images(arguments.images)
        if arguments.images
        else items_of_prompts(read_lines(arguments.prompts))
    )
    host = load_host(arguments)
    spec = CaptureSpec(
        tuple(arguments.hook_point),
        arguments.captured,
        tuple(range(0, arguments.steps, arguments.every)) if arguments.every > 1 else (),
        _timesteps(arguments.timesteps),
    )
    with ProgressBar("items", shown=processes.first) as progress:
        folders = harvest_in_parallel(
            host,
            items,
            arguments.out,
            spec,
            processes,
            batch=arguments.batch,
            dtype=getattr(torch, arguments.dtype),
            checkpoint_every=arguments.checkpoint_every,
            budget_bytes=None if arguments.budget_gb is None else int(arguments.budget_gb * 2**30),
            progress=progress,
        )
    if not processes.first:
        return
    table = {}
    for name, folder in folders.items():
        shards = ShardSet(folder)
        table[name] = {
            "folder": str(folder),
            "rows": shards.n_rows,
            "width": shards.d_model,
            "items": shards.n_items,
        }
    print_table(table, as_json=arguments.json)


def _timesteps(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= number < 1000 for number in numbers):
        raise RevelioError(f"Timesteps must be numbers from 0 to 999, separated by commas, not {text!r}.")
    return numbers
