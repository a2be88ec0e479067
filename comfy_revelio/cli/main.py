"""The command line: `python -m comfy_revelio` with inspect, convert, harvest, train, label and evaluate."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import RevelioError
from .label import add_label


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

    inspect = commands.add_parser("inspect", help="say what a dictionary file or folder of any layout holds")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser(
        "convert", help="read a dictionary of any layout, Flux's Orbax checkpoints too, and save it as ours"
    )
    convert.add_argument("source", type=Path, help="file or folder")
    convert.add_argument("out", type=Path, help="the .safetensors file to write")
    convert.add_argument("--hook-point", default="", help="instead of the one that its name or config says")
    convert.add_argument(
        "--captured", choices=("output", "diff"), help="what of the module it was trained on"
    )
    convert.add_argument("--k", type=_count, help="active features, for Orbax checkpoints that do not say it")
    convert.add_argument("--float32", action="store_true", help="keep all digits; by default float16")
    convert.add_argument("--json", action="store_true", help="print JSON")
    convert.set_defaults(run=_convert)

    harvest = commands.add_parser(
        "harvest",
        help="run a model and keep its activations; after a kill, the same command goes on",
        description="For several processes: accelerate launch --multi_gpu -m comfy_revelio harvest ...",
    )
    harvest.add_argument("out", type=Path, help="folder; each hook point gets one in it")
    harvest.add_argument("--hook-point", action="append", required=True, help="once for each")
    harvest.add_argument("--captured", choices=("output", "diff"), default="output")
    what = harvest.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompts", type=Path, help="a text file, one prompt a line")
    what.add_argument("--images", type=Path, help="a folder of pictures, NAME.txt beside one is its prompt")
    whom = harvest.add_mutually_exclusive_group()
    whom.add_argument(
        "--checkpoint", type=Path, help="a checkpoint for ComfyUI; by default the bundled model"
    )
    whom.add_argument("--diffusers", type=Path, help="a diffusers pipeline folder, run without ComfyUI")
    harvest.add_argument("--steps", type=_count, default=20)
    harvest.add_argument("--cfg", type=float, default=3.0)
    harvest.add_argument("--every", type=_count, default=1, help="keep every n-th step of prompts")
    harvest.add_argument(
        "--timesteps", default="25,200", help="how much pictures are noised, 0 to 1000, with commas"
    )
    harvest.add_argument(
        "--size", default="", help="WIDTHxHEIGHT; by default 128x128, 512x512 if not bundled"
    )
    harvest.add_argument("--batch", type=_count, default=8, help="items at once")
    harvest.add_argument("--checkpoint-every", type=_count, default=64, help="items that a kill may cost")
    harvest.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    harvest.add_argument("--budget-gb", type=float, help="stop when the folders would be larger together")
    harvest.add_argument("--json", action="store_true", help="print JSON")
    harvest.set_defaults(run=_harvest)

    train = commands.add_parser(
        "train",
        help="train a dictionary on harvested activations; after a kill, the same command goes on",
        description="For several processes: accelerate launch --multi_gpu -m comfy_revelio train ...",
    )
    train.add_argument("data", type=Path, help="folder of activations")
    train.add_argument("out", type=Path, help="the .safetensors file to write")
    train.add_argument("--preset", default="topk", help="a recipe; see docs/training.md")
    train.add_argument("--expansion", type=float, help="features for each dimension of the activations")
    for name in ("n-features", "k", "steps", "batch"):
        train.add_argument(f"--{name}", type=_count)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--seed", type=int)
    train.add_argument("--device", help="cpu or cuda; by default cuda where there is one")
    train.add_argument("--amp", action="store_true", default=None, help="matrix products in bfloat16")
    train.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, as in --option aux_k=256",
    )
    train.add_argument("--checkpoint-every", type=_count, default=500, help="steps that a kill may cost")
    train.add_argument("--json", action="store_true", help="print the figures as JSON")
    train.set_defaults(run=_train)

    add_label(commands, _count, _host)

    evaluate = commands.add_parser("evaluate", help="measure a model and its dictionaries")
    subjects = evaluate.add_subparsers(required=True, metavar="SUBJECT")
    mini = subjects.add_parser("mini", help="the bundled model, its judge, its SAEs and steering with them")
    mini.add_argument("--prompts", type=_count, default=512, help="held-out prompts")
    mini.add_argument(
        "--steering", type=_count_or_zero, default=128, help="prompts per concept and direction; 0: none"
    )
    mini.add_argument("--minutes", type=_minutes, help="the part of the sample that fits this time")
    mini.add_argument("--json", type=Path, help="file for the figures")
    mini.set_defaults(run=_evaluate_mini)
    steering = subjects.add_parser(
        "steering", help="every mode, role, schedule and mask on the bundled model"
    )
    steering.add_argument("--prompts", type=_count, default=16, help="prompts for each direction")
    steering.add_argument("--json", type=Path, required=True, help="file for the figures")
    steering.add_argument("--pictures", type=Path, required=True, help="folder for the pictures")
    steering.set_defaults(run=_evaluate_steering)
    reconstruction = subjects.add_parser("reconstruction", help="how well a dictionary explains activations")
    reconstruction.add_argument("dictionary", type=Path, help="file or folder of any layout")
    reconstruction.add_argument("data", type=Path, help="folder of activations")
    reconstruction.add_argument("--rows", type=_count, default=65_536, help="activations to measure on")
    reconstruction.add_argument("--all", action="store_true", help="also those that training has seen")
    reconstruction.add_argument("--json", action="store_true", help="print JSON")
    reconstruction.set_defaults(run=_evaluate_reconstruction)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _count_or_zero(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _inspect(arguments: argparse.Namespace) -> None:
    from ..dictionary import describe_file

    print_table(describe_file(arguments.file), as_json=arguments.json)


def _convert(arguments: argparse.Namespace) -> None:
    import torch

    from ..dictionary import describe_file, load_dictionary, save_dictionary
    from ..dictionary.orbax import is_orbax, read_orbax

    if is_orbax(arguments.source):
        dictionary = read_orbax(arguments.source, arguments.k)
        dictionary.hook_point = arguments.hook_point or dictionary.hook_point
        dictionary.captured = arguments.captured or dictionary.captured
    else:
        if arguments.k is not None:
            raise RevelioError("--k is for Orbax checkpoints; every other layout says its own k.")
        dictionary = load_dictionary(
            arguments.source, hook_point=arguments.hook_point, captured=arguments.captured
        )
    save_dictionary(dictionary, arguments.out, dtype=torch.float32 if arguments.float32 else torch.float16)
    print_table(describe_file(arguments.out), as_json=arguments.json)


def print_table(config: dict[str, Any], *, as_json: bool) -> None:
    """A table of a command, as lines or as JSON."""
    if as_json:
        print(json.dumps(config, indent=2))
        return
    for name, value in config.items():
        if name in ("labels", "concepts"):
            value = ", ".join(value) or "none"
        print(f"{name}: {value}")


def _harvest(arguments: argparse.Namespace) -> None:
    import torch

    from ..training import ShardSet
    from ..training.harvest import CaptureSpec, items_of_images, items_of_prompts
    from ..training.processes import join
    from ..training.shards.join import harvest_together

    processes, _ = join("" if torch.cuda.is_available() else "cpu")  # first: it chooses the GPU
    items = (
        items_of_images(arguments.images)
        if arguments.images
        else items_of_prompts(lines_of_file(arguments.prompts))
    )
    host = _host(arguments)
    wanted = CaptureSpec(
        tuple(arguments.hook_point),
        arguments.captured,
        tuple(range(0, arguments.steps, arguments.every)) if arguments.every > 1 else (),
        _numbers(arguments.timesteps),
    )
    folders = harvest_together(
        host,
        items,
        arguments.out,
        wanted,
        processes,
        batch=arguments.batch,
        dtype=getattr(torch, arguments.dtype),
        checkpoint_every=arguments.checkpoint_every,
        budget_bytes=None if arguments.budget_gb is None else int(arguments.budget_gb * 2**30),
        progress=lambda done, all_: print(f"{done}/{all_} items", file=sys.stderr, flush=True),
    )
    if not processes.first:
        return
    found = {name: ShardSet(folder) for name, folder in folders.items()}
    table = {
        name: {
            "folder": str(folders[name]),
            "rows": shards.n_rows,
            "width": shards.d_model,
            "items": shards.n_items,
        }
        for name, shards in found.items()
    }
    print_table(table, as_json=arguments.json)


def _host(arguments: argparse.Namespace) -> Any:
    """The model that is to be harvested."""
    from ..training.harvest import SamplingSettings

    bundled = not arguments.diffusers and not arguments.checkpoint
    width, height = _size(arguments.size or ("128x128" if bundled else "512x512"))
    drawing = SamplingSettings(height, width, arguments.steps, arguments.cfg)
    if arguments.diffusers:
        from ..training.diffusers_host import DiffusersHost

        return DiffusersHost(arguments.diffusers, drawing)
    from ..host.standalone import load_checkpoint, use_comfyui

    use_comfyui()
    from ..host.learn.comfy_host import ComfyHost
    from ..host.mini.model import load_mini

    if bundled:
        return ComfyHost(*load_mini(), "revelio-mini", drawing)
    return ComfyHost(*load_checkpoint(arguments.checkpoint), arguments.checkpoint.stem, drawing)


def lines_of_file(file: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise RevelioError(f"{file} cannot be read as text ({problem}).") from None
    if not (prompts := [line for line in lines if line]):
        raise RevelioError(f"{file} is empty; write something, one a line.")
    return prompts


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= number < 1000 for number in numbers):
        raise RevelioError(f"Timesteps are numbers from 0 to 999 with commas between, not {text!r}.")
    return numbers


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not x or not width.isdigit() or not height.isdigit() or not int(width) or not int(height):
        raise RevelioError(f"A size is written WIDTHxHEIGHT, as in 512x768, not {text!r}.")
    return int(width), int(height)


def _train(arguments: argparse.Namespace) -> None:
    from ..analysis.name_features import name_features
    from ..training import ShardSet, preset
    from ..training.train_on_shards import train_on_shards

    if arguments.out.suffix != ".safetensors":
        raise RevelioError(f"The name of a dictionary file ends in .safetensors; {arguments.out} does not.")
    width = ShardSet(arguments.data).d_model
    given = ("n_features", "k", "steps", "batch", "learning_rate", "seed", "device", "amp")
    options = {name: value for name in given if (value := getattr(arguments, name)) is not None}
    if arguments.expansion is not None:
        if not 0 < arguments.expansion < float("inf"):
            raise RevelioError(f"The expansion must be a number above 0, not {arguments.expansion}.")
        options.setdefault("n_features", max(1, round(arguments.expansion * width)))
    config = preset(arguments.preset, width, **_named(arguments.option), **options)

    def progress(step: int, steps: int, figures: dict[str, float]) -> None:
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{step}/{steps}  {told}", file=sys.stderr, flush=True)

    figures = train_on_shards(
        arguments.data,
        arguments.out,
        config,
        progress,
        finish=name_features,
        checkpoint_every=arguments.checkpoint_every,
    )
    if figures:
        print_table(_rounded(figures), as_json=arguments.json)


def _named(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as a dict, with values read as JSON where they are it."""
    result = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise RevelioError(f"An option is written NAME=VALUE, not {pair!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        result[name] = tuple(value) if isinstance(value, list) else value
    return result


def _evaluate_reconstruction(arguments: argparse.Namespace) -> None:
    from ..dictionary import load_dictionary
    from ..training import ShardSet
    from ..training.train_on_shards import metrics_on

    dictionary, shards = load_dictionary(arguments.dictionary), ShardSet(arguments.data)
    if dictionary.d_model != shards.d_model:
        raise RevelioError(
            f"{arguments.dictionary} is for activations {dictionary.d_model} wide, but those in "
            f"{arguments.data} are {shards.d_model} wide."
        )
    view = shards.split(held_out=0.0)[0] if arguments.all else shards.split()[1]
    rows = view.all(limit=arguments.rows)
    print_table(_rounded(metrics_on(dictionary, rows.x, rows.timestep)), as_json=arguments.json)


def _lab(name: str) -> Any:
    """A module of `lab.evaluate`, which only a clone of the repository has: the engine never imports it."""
    try:
        return import_module(f"lab.evaluate.{name}")
    except ModuleNotFoundError as problem:
        if problem.name not in ("lab", "lab.evaluate"):
            raise
        raise RevelioError(
            "What measures the bundled model is not part of this installation; run the command in a clone of "
            "the repository."
        ) from None


def _evaluate_steering(arguments: argparse.Namespace) -> None:
    from ..host.standalone import use_comfyui

    use_comfyui()
    from ..render.canvas import save_jpeg

    measure = _lab("steering_settings").measure
    report, pictures = measure(arguments.prompts, say=lambda text: print(text, flush=True))
    try:
        for folder in (arguments.pictures, arguments.json.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for name, sheet in pictures.items():
            save_jpeg(sheet, arguments.pictures / f"{name}.jpg")
        arguments.json.write_text(json.dumps(_rounded(report), indent=2) + "\n", encoding="utf-8")
    except OSError as problem:
        raise RevelioError(f"The figures could not be written: {problem.strerror}.") from None


def _evaluate_mini(arguments: argparse.Namespace) -> None:
    from ..host.standalone import use_comfyui

    started = time.monotonic()  # loading everything is part of the time asked for
    use_comfyui()

    def say(text: str) -> None:
        print(text, flush=True)

    report: dict[str, Any]
    notes: Path | None = None
    if arguments.minutes is not None:
        report = _lab("in_time").evaluate_in(
            arguments.minutes, arguments.prompts, arguments.steering, started=started, say=say
        )
    else:
        # a stop in the middle of an hour of work costs little: the same command goes on
        notes = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial")
        report = _lab("measure").evaluate(arguments.prompts, arguments.steering, notes=notes, say=say)
    text = json.dumps(_rounded(report), indent=2)
    if arguments.json:
        try:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(text + "\n", encoding="utf-8")
        except OSError as problem:
            print(text)  # minutes of work must not be lost
            raise RevelioError(f"{arguments.json} could not be written: {problem.strerror}.") from None
        if notes:
            notes.unlink(missing_ok=True)
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
