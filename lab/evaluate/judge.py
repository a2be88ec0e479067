"""The judge: a small classifier that reads every attribute of an avatar from its pixels.

It is trained only on rendered avatars (`lab/train/judge.py`), with seeds that the model never saw, so its
verdict on a generated image is independent of the model that made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from comfy_revelio.host.mini import config
from comfy_revelio.host.mini.weights import load_weights

from ..data.attributes import ATTRIBUTES

JUDGE_FILE = config.WEIGHTS_DIR / "judge.safetensors"


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.SiLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.skip = nn.Conv2d(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.body(x) + self.skip(x))


class Judge(nn.Module):
    """Map images [B, 3, 128, 128] in 0..1 to one tensor of logits [B, values] per attribute."""

    def __init__(self, width: int = 24, values: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.values = dict(values or {name: len(v) for name, v in ATTRIBUTES.items()})
        self.width = w = width
        self.features = nn.Sequential(
            nn.Conv2d(3, w, 5, 2, 2),
            _Block(w, w, 1),
            _Block(w, 2 * w, 2),
            _Block(2 * w, 4 * w, 2),
            _Block(4 * w, 6 * w, 2),
            _Block(6 * w, 6 * w, 2),
        )
        # some parts differ mainly in position (beard, fringe): keep the 4x4 grid instead of pooling it
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(6 * w * 16, 160), nn.SiLU(), nn.Dropout(0.1))
        self.heads = nn.ModuleDict({name: nn.Linear(160, n) for name, n in self.values.items()})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.neck(self.features(images * 2 - 1))
        return {name: head(hidden) for name, head in self.heads.items()}

    @torch.no_grad()
    def label(self, images: torch.Tensor, *, batch: int = 256) -> torch.Tensor:
        """Return each attribute's most likely value, int64 [N, attributes], for images [N, H, W, 3] in 0..1.

        Images that are not 128 x 128 pixels are resized by area.
        """
        device = next(self.parameters()).device
        found = []
        for part in images.split(batch):
            x = part.to(device=device, dtype=torch.float32).permute(0, 3, 1, 2)
            size = (config.IMAGE_SIZE, config.IMAGE_SIZE)
            if x.shape[-2:] != size:
                x = nn.functional.interpolate(x, size=size, mode="area")
            logits = self(x)
            found.append(torch.stack([logits[name].argmax(-1) for name in self.values], dim=1).cpu())
        return torch.cat(found)


def load_judge(path: Path = JUDGE_FILE, device: torch.device | str = "cpu") -> Judge:
    """Load the trained judge in evaluation mode."""
    tensors, metadata = load_weights(path, device)
    settings = json.loads(metadata["config"])
    judge = Judge(width=settings["width"], values=settings["values"]).to(device)
    judge.load_state_dict(tensors)
    return judge.eval().requires_grad_(False)


def accuracy_by_attribute(found: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return the share of correct values per attribute; labels: [N, attributes], -1 if unknown."""
    result = {}
    for column, name in enumerate(ATTRIBUTES):
        known = labels[:, column] >= 0
        if known.any():
            result[name] = (found[known, column] == labels[known, column]).float().mean().item()
    return result
