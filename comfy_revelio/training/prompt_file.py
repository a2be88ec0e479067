"""Read and write prompts.json, which lists the prompts of a harvest, next to the hook points' folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import RevelioError
from ..files import tensor_file

PROMPTS = "prompts.json"


def read_prompts(out: Path) -> dict[int, str]:
    """Return the prompts in the folder `out` as {item number: prompt}; {} if it has no prompts.json."""
    file = out / PROMPTS
    if not file.is_file():
        return {}
    table = tensor_file.parse_json(file, file.read_bytes(), "content")
    if not isinstance(table, dict) or not all(k.isdigit() and isinstance(v, str) for k, v in table.items()):
        raise RevelioError(f"{file} is broken: it must map item numbers to prompts; remove it.")
    return {int(number): prompt for number, prompt in table.items()}


def add_prompts(out: Path, prompts: Mapping[int, str]) -> None:
    """Add prompts, given as {item number: prompt}, to prompts.json, replacing the file atomically."""
    table = {**read_prompts(out), **prompts}
    text = json.dumps({str(number): prompt for number, prompt in sorted(table.items())}, indent=0)
    part = out / f"{PROMPTS}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(out / PROMPTS)
    except OSError as error:
        raise RevelioError(f"{out} cannot be written ({error.strerror}); choose another folder.") from None
