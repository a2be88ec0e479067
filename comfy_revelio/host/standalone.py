"""Use ComfyUI as a library on the command line, where no ComfyUI server is running."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from ..errors import RevelioError
from .comfy_types import Clip, Model, Vae


def use_comfyui() -> None:
    """Make `import comfy` load ComfyUI from the folder in COMFYUI_PATH; models run on a GPU if there is one.

    Does nothing inside ComfyUI. Raises RevelioError when COMFYUI_PATH is not a ComfyUI folder.
    """
    if "comfy" in sys.modules:
        return
    root = os.environ.get("COMFYUI_PATH", "")
    if not (Path(root) / "comfy" / "sd.py").is_file():
        raise RevelioError(
            "ComfyUI was not found: set COMFYUI_PATH to its folder, or use `python3 dev.py run -- ...`."
        )
    # first on the path, so that `import nodes` finds ComfyUI's nodes.py instead of this pack's nodes/
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.disable_xformers = True


def load_checkpoint(path: Path) -> tuple[Model, Clip, Vae]:
    """Load MODEL, CLIP and VAE from a checkpoint. Call `use_comfyui` first.

    Raises RevelioError when the file is missing, or does not contain all three.
    """
    import comfy.sd

    if not path.is_file():
        raise RevelioError(f"There is no checkpoint {path}; check the path.")
    try:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    except Exception as problem:  # ComfyUI does not wrap the errors of its file readers
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        raise RevelioError(f"ComfyUI cannot load {path} as a checkpoint ({reason}).") from None
    if model is None or clip is None or vae is None:
        raise RevelioError(
            f"{path} is not a full checkpoint: it needs a model, its text encoder and its VAE."
        )
    return model, clip, vae
