"""Reading the bundled weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open


def load_weights(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a safetensors file, floats as float32, with the file's metadata."""
    with safe_open(str(path), framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, metadata
