"""Convert an image mask to a model's token grid: compute which share of each token the mask covers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .resize_maps import resize_maps


def mask_on_grid(mask: Tensor, grid: Sequence[int], items: Sequence[int]) -> Tensor:
    """Return the share (0..1) of each token's area that a mask covers: float32 [len(items), T].

    mask: [b, h, w] of any size. grid: (height, width) or (frames, height, width); frames share the mask.
    items: the batch item to which each row of the result belongs; masks of fewer items are repeated.

    >>> import torch
    >>> mask_on_grid(torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]), (1, 2), [0, 1]).tolist()
    [[1.0, 0.5], [1.0, 0.5]]
    """
    shares = resize_maps(mask, grid[-2:], mode="area").flatten(1)
    rows = shares[[item % len(mask) for item in items]]
    return rows.repeat(1, math.prod(grid[:-2]))
