"""Write weights and checkpoints. A kill never leaves half a file: a new file is written, then renamed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def save_weights(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    half: bool = True,
) -> None:
    """Write `tensors` to one safetensors file, floats in half precision unless `half` is False."""
    ready = {
        name: (t.half() if half and t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(ready, str(part), metadata=dict(metadata or {}))
    os.replace(part, path)


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a training checkpoint (tensors, numbers, optimizer state) atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(dict(state), part)
    os.replace(part, path)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Load the checkpoint at `path`; None if there is none yet."""
    return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None
