"""Cut small square crops out of an image, each around one token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHARE = 3 / 8
"""Side of a crop as a share of the image's shorter side, so that it shows a token with its surroundings."""
_FEWEST_TOKENS = 3


def crop_around(image: Tensor, tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return a square crop of the image around each token: uint8 [m, side, side, 3].

    image: [H, W, 3] in 0..1. tokens: int64 [m], row * width + column on the grid (height, width). A crop
    that would cross the image's edge is moved inwards.
    """
    height, width = image.shape[:2]
    token_h, token_w = height / grid[0], width / grid[1]
    window = max(_SHARE * min(height, width), _FEWEST_TOKENS * max(token_h, token_w))
    window = max(1, min(round(window), height, width))
    planes = image.permute(2, 0, 1).float().clamp(0, 1)
    crops = []
    for token in tokens.tolist():
        middle = (token // grid[1] + 0.5) * token_h, (token % grid[1] + 0.5) * token_w
        y, x = (
            min(max(0, round(at - window / 2)), size - window)
            for at, size in zip(middle, (height, width), strict=True)
        )
        crops.append(planes[:, y : y + window, x : x + window])
    if not crops:
        return torch.zeros(0, side, side, 3, dtype=torch.uint8)
    scaled = functional.interpolate(torch.stack(crops), size=(side, side), mode="bilinear", antialias=True)
    return (scaled.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
