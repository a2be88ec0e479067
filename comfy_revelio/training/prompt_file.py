"""prompts.json: the prompts of all items of a harvest, next to the folders of the hook points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import RevelioError
from ..files import tensor_file

PROMPTS = "prompts.json"


def read_prompts(out: Path) -> dict[int, str]:
    """Read the prompts: {item number: prompt}; {} if the harvest saved none."""
    file = out / PROMPTS
    if not file.is_file():
        return {}
    table = tensor_file.parse_json(file, file.read_bytes(), "content")
    if not isinstance(table, dict) or not all(k.isdigit() and isinstance(v, str) for k, v in table.items()):
        raise RevelioError(f"{file} is broken: it must map item numbers to prompts; remove it.")
    return {int(number): prompt for number, prompt in table.items()}


def add_prompts(out: Path, prompts: Mapping[int, str]) -> None:
    """Add prompts, given as {item number: prompt}, to the file; the file is replaced atomically."""
    table = {**read_prompts(out), **prompts}
    text = json.dumps({str(number): prompt for number, prompt in sorted(table.items())}, indent=0)
    part = out / f"{PROMPTS}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(out / PROMPTS)
    except OSError as error:
        raise RevelioError(f"{out} cannot be written ({error.strerror}); choose another folder.") from None
