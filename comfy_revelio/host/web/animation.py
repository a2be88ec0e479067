"""Save an animated image in ComfyUI's temp folder, so that a node can show it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from torch import Tensor

from ...render.animation import save_webp

_PROMPT, _FIRST_OTHER = 0x0110, 0x010F
"""The EXIF tags of a WebP from which ComfyUI reads a graph: Model, then Make and lower-numbered tags."""


def show_webp(
    frames: Tensor,
    *,
    fps: float,
    hold: float,
    loop: bool,
    prompt: Any = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write frames [n, H, W, 3] to an animated WebP; return its location in the form ComfyUI's page needs.

    prompt, more: the graph, which is saved in the file unless ComfyUI runs with --disable-metadata. Dropping
    the file on ComfyUI's page then opens the graph.
    """
    height, width = frames.shape[1:3]
    prefix = f"Revelio_animation_{secrets.token_hex(4)}"
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_temp_directory(), width, height
    )
    file = f"{name}_{counter:05}_.webp"
    save_webp(frames, Path(folder) / file, fps=fps, hold=hold, loop=loop, notes=_notes(prompt, more or {}))
    return {"filename": file, "subfolder": subfolder, "type": "temp"}


def _notes(prompt: Any, more: Mapping[str, Any]) -> dict[int, str]:
    if args.disable_metadata:
        return {}
    notes = {} if prompt is None else {_PROMPT: f"prompt:{json.dumps(prompt)}"}
    for number, (name, value) in enumerate(more.items()):
        notes[_FIRST_OTHER - number] = f"{name}:{json.dumps(value)}"
    return notes
