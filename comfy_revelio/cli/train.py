"""`train`: train a dictionary on harvested activations."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..analysis.name_features import name_features
from ..errors import RevelioError
from ..training import PRESETS, ShardSet, TrainConfig, preset
from ..training.train_on_shards import train_on_shards
from .options import ProgressBar, add_fields, add_json, count, print_table, require_safetensors, rounded

_FIELDS = ("n_features", "k", "steps", "batch", "learning_rate", "seed", "device", "amp")


def add(commands: Any) -> None:
    """Add the `train` command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a dictionary on harvested activations; if interrupted, the same command resumes",
        description="For several processes: accelerate launch --multi_gpu -m comfy_revelio train ...",
        epilog="presets:\n" + "\n".join(f"  {name:10}  {recipe.about}" for name, recipe in PRESETS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="folder of activations")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--preset", default="topk", help="a recipe, listed below; see docs/training.md")
    parser.add_argument("--expansion", type=float, help="number of features / width of the activations")
    add_fields(parser, TrainConfig, *_FIELDS, use_defaults=False)
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, as in --option aux_k=256",
    )
    parser.add_argument("--checkpoint-every", type=count, default=500, help="save after this many steps")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    require_safetensors(arguments.out, "a dictionary file")
    width = ShardSet(arguments.data).d_model
    options = {name: value for name in _FIELDS if (value := getattr(arguments, name)) is not None}
    if arguments.expansion is not None:
        if not 0 < arguments.expansion < float("inf"):
            raise RevelioError(f"The expansion must be a number above 0, not {arguments.expansion}.")
        options.setdefault("n_features", max(1, round(arguments.expansion * width)))
    config = preset(arguments.preset, width, **_named_values(arguments.option), **options)
    with ProgressBar("steps") as progress:
        metrics = train_on_shards(
            arguments.data,
            arguments.out,
            config,
            progress,
            finish=name_features,
            checkpoint_every=arguments.checkpoint_every,
        )
    if metrics:
        print_table(rounded(metrics), as_json=arguments.json)


def _named_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE pairs into a dict; values are parsed as JSON if possible, else kept as text."""
    result = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise RevelioError(f"An option must be NAME=VALUE; got {pair!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        result[name] = tuple(value) if isinstance(value, list) else value
    return result
