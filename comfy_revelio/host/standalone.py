"""ComfyUI as a library: for the command line, where no server has set it up."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from ..errors import RevelioError


def use_comfyui() -> None:
    """Make `import comfy` work from the folder that COMFYUI_PATH names; runs on the GPU when there is one.

    Does nothing inside ComfyUI. Raises RevelioError when there is no ComfyUI at that place.
    """
    if "comfy" in sys.modules:
        return
    root = os.environ.get("COMFYUI_PATH", "")
    if not (Path(root) / "comfy" / "sd.py").is_file():
        raise RevelioError(
            "ComfyUI was not found: set COMFYUI_PATH to its folder, or use `python3 dev.py run -- ...`."
        )
    # ComfyUI's own `nodes.py` must win over this pack's `nodes/` when both lie on the path
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.disable_xformers = True


def load_checkpoint(path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a checkpoint, after `use_comfyui`; RevelioError when there is no such
    file, or ComfyUI finds no whole checkpoint in it."""
    import comfy.sd

    if not path.is_file():
        raise RevelioError(f"There is no checkpoint {path}; check the name.")
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    except Exception as problem:  # ComfyUI raises whatever its readers trip over
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        raise RevelioError(f"ComfyUI cannot load {path} as a checkpoint ({reason}).") from None
    if model is None or clip is None or vae is None:
        raise RevelioError(f"{path} is no whole checkpoint: it needs a model, its text encoder and its VAE.")
    return model, clip, vae
