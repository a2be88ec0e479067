"""Resize maps to a model's token grid, or from the token grid to the size of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional

ResizeMode = Literal["bilinear", "bicubic", "area"]


def resize_maps(
    maps: Tensor, size: Sequence[int], *, mode: ResizeMode = "bilinear", antialias: bool = False
) -> Tensor:
    """Resize maps [n, h, w] to `size` = (height, width): float32 [n, height, width].

    Maps that already have this size keep their values. antialias: when maps shrink, "bilinear" and "bicubic"
    average over all cells that merge into one cell, as "area" always does.

    >>> import torch
    >>> resize_maps(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    if tuple(maps.shape[1:]) == tuple(size):
        return maps.float()
    planes = maps[:, None].float()  # one channel per map: many channels may round differently
    return functional.interpolate(planes, size=tuple(size), mode=mode, antialias=antialias)[:, 0]


def maps_on_grid(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize maps [m, h, w] to a grid (height, width) and return one row per token: float32 [T, m].

    >>> import torch
    >>> maps_on_grid(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), (1, 2)).tolist()
    [[2.0], [3.0]]
    """
    return resize_maps(maps, grid, antialias=True).flatten(1).T
