"""Read the bundled weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from ...errors import RevelioError


def load_weights(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return all tensors in a safetensors file, with floats as float32, and the file's metadata."""
    with safe_open(str(path), framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, metadata


def load_strictly(module: torch.nn.Module, tensors: dict[str, torch.Tensor], what: str) -> None:
    """Load `tensors` into the module; raise RevelioError (naming `what`) if any is missing or unknown."""
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    if missing or unexpected:
        raise RevelioError(
            f"The bundled {what} does not fit this version of the pack ({len(missing)} tensors missing, "
            f"{len(unexpected)} unknown): install the pack again."
        )
