"""Code that the commands share: options from config dataclasses, loading the model to run, and printing."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tqdm import tqdm

from ..errors import RevelioError
from ..training.harvest import SamplingSettings


def add_fields(parser: Any, config: type, *names: str, use_defaults: bool = True) -> None:
    """Add an option for each named field of a config dataclass, with the field's type, default and docstring.

    use_defaults: if False, an option that is not given is None, so that a preset can set the field.
    """
    texts, types = field_docstrings(config), get_type_hints(config)
    for field in (field for field in fields(config) if field.name in names):
        kind, default, text = types[field.name], field.default, texts.get(field.name, "")
        flag = f"--{field.name.replace('_', '-')}"
        text = text[:1].lower() + text[1:].rstrip(".") + (f"; default {default}" if use_defaults else "")
        settings: dict[str, Any] = {
            "default": default if use_defaults else None,
            "help": text.replace("%", "%%"),
        }
        if kind is bool:
            parser.add_argument(flag, action="store_true", **settings)
        elif get_origin(kind) is Literal:
            parser.add_argument(flag, choices=get_args(kind), **settings)
        else:  # a whole number must be at least 1, unless its default is 0
            parser.add_argument(flag, type=count if kind is int and default else kind, **settings)


def field_docstrings(config: type) -> dict[str, str]:
    """Return {field: docstring under it} for a dataclass, read from the source, as Python does not keep them.

    >>> field_docstrings(SamplingSettings)["steps"]
    'Steps of the sampler.'
    """
    (definition,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def add_json(parser: Any) -> None:
    """Add the option --json, which makes `print_table` print JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def count(text: str) -> int:
    """Parse the value of an option as a whole number that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def add_model(parser: Any, *, diffusers: bool = False) -> None:
    """Add the options that `load_host` needs, and --batch."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--checkpoint", type=Path, help="a checkpoint for ComfyUI; by default the bundled model"
    )
    if diffusers:
        model.add_argument("--diffusers", type=Path, help="a diffusers pipeline folder, run without ComfyUI")
    add_fields(parser, SamplingSettings, "steps", "cfg")
    parser.add_argument(
        "--size", default="", help="WIDTHxHEIGHT; default 128x128 for the bundled model, 512x512 for others"
    )
    parser.add_argument("--batch", type=count, default=8, help="number of prompts or images at once")
    parser.set_defaults(diffusers=None)


def load_host(arguments: argparse.Namespace) -> Any:
    """Load the model to run: the bundled one, a checkpoint for ComfyUI, or a diffusers pipeline folder."""
    bundled = not arguments.diffusers and not arguments.checkpoint
    width, height = _size(arguments.size or ("128x128" if bundled else "512x512"))
    sampling = SamplingSettings(height, width, arguments.steps, arguments.cfg)
    if arguments.diffusers:
        from ..training.diffusers_host import DiffusersHost

        return DiffusersHost(arguments.diffusers, sampling)
    from ..host.standalone import load_checkpoint, use_comfyui

    use_comfyui()
    from ..host.learn.comfy_host import ComfyHost
    from ..host.mini.model import load_mini

    if bundled:
        return ComfyHost(*load_mini(), "revelio-mini", sampling)
    return ComfyHost(*load_checkpoint(arguments.checkpoint), arguments.checkpoint.stem, sampling)


def _size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT and return (width, height)."""
    width, x, height = text.lower().partition("x")
    if not x or not width.isdigit() or not height.isdigit() or not int(width) or not int(height):
        raise RevelioError(f"A size must be WIDTHxHEIGHT, such as 512x768; got {text!r}.")
    return int(width), int(height)


def read_lines(file: Path) -> list[str]:
    """Return the non-empty lines of a text file."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise RevelioError(f"{file} cannot be read as text ({problem}).") from None
    if not (found := [line for line in lines if line]):
        raise RevelioError(f"{file} is empty; write at least one line.")
    return found


def require_safetensors(file: Path, what: str) -> None:
    """Raise RevelioError unless the name of a file to write ends in .safetensors."""
    if file.suffix != ".safetensors":
        raise RevelioError(f"The name of {what} must end in .safetensors; {file} does not.")


def print_table(table: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a command as lines or as JSON."""
    if as_json:
        print(json.dumps(table, indent=2))
        return
    for name, value in table.items():
        if name in ("labels", "concepts"):
            value = ", ".join(value) or "none"
        print(f"{name}: {value}")


def rounded(value: Any) -> Any:
    """Return the same structure with all floats rounded to four decimal places.

    >>> rounded({"fvu": 0.123456, "rows": 3})
    {'fvu': 0.1235, 'rows': 3}
    """
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return value


class ProgressBar:
    """A progress bar on stderr with the remaining time. Use it in a `with` block; call it with (done, total).

    The bar starts at the first call, so that the remaining time of a resumed run is estimated from new work.
    """

    def __init__(self, unit: str, *, shown: bool = True) -> None:
        self._unit, self._shown = unit, shown
        self._bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        if self._bar is None:
            # every call is shown: calls are rare, and a log should end with the last one
            self._bar = tqdm(
                initial=done,
                total=total,
                unit=f" {self._unit}",
                mininterval=0,
                miniters=1,
                disable=not self._shown,
            )
        if metrics:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in metrics.items()}, refresh=False)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
