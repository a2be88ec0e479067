"""Maps on a model's coarse grid, brought to the edges of the picture that they belong to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LONGEST = 768
"""Pixels of the longer side at which the filter is solved; of larger pictures a smaller copy serves."""
EPSILON = 1e-4
"""Variance of colours (0..1) below which a window counts as flat."""


@torch.no_grad()
def follow_edges(maps: Tensor, picture: Tensor, radius: float) -> Tensor:
    """Maps whose changes lie where the picture changes: float32 [n, H, W] in 0..1, the peak of each is 1.

    maps: [n, H, W] of at least 0. picture: [H, W, 3] in 0..1. radius: of the windows, in pixels of the
    picture; as wide as the maps are blurred. In each window a map is the linear function of the colours that
    fits it best; a place takes the mean over the windows that hold it. That is the guided filter (He, Sun,
    Tang, ECCV 2010, equations 14 to 16), solved on a smaller copy of large pictures (He, Sun,
    arXiv 1505.00996). A map that is 0 everywhere stays so.
    """
    height, width = picture.shape[:2]
    guide = picture[..., :3].to(maps.device).float().permute(2, 0, 1)
    shrink = min(1.0, LONGEST / max(height, width))
    small = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    slope, offset = _fit(_sized(maps.float(), small), _sized(guide, small), max(1, round(radius * shrink)))
    slope = _sized(slope.flatten(0, 1), (height, width)).unflatten(0, slope.shape[:2])
    found = ((slope * guide).sum(1) + _sized(offset, (height, width))).clamp(min=0.0)
    return found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _fit(maps: Tensor, guide: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Slopes [n, 3, h, w] and offsets [n, h, w] of the function of colours at each place."""

    def mean(planes: Tensor) -> Tensor:
        return _window_mean(planes, radius)

    colour, level = mean(guide), mean(maps)
    spread = mean((guide[:, None] * guide).flatten(0, 1)) - (colour[:, None] * colour).flatten(0, 1)
    spread = spread.unflatten(0, (3, 3)).permute(2, 3, 0, 1) + EPSILON * torch.eye(3, device=maps.device)
    shared = mean((maps[:, None] * guide).flatten(0, 1)) - (level[:, None] * colour).flatten(0, 1)
    shared = shared.unflatten(0, (len(maps), 3)).permute(2, 3, 1, 0)
    slope = torch.linalg.solve(spread, shared).permute(3, 2, 0, 1)
    offset = level - (slope * colour).sum(1)
    return mean(slope.flatten(0, 1)).unflatten(0, (len(maps), 3)), mean(offset)


def _window_mean(planes: Tensor, radius: int) -> Tensor:
    """Mean of [n, H, W] over windows of 2 radius + 1 pixels a side, cut off at the border."""
    side = 2 * radius + 1
    rows = functional.avg_pool2d(planes, (side, 1), 1, (radius, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def _sized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] at another size: the mean of what falls together when smaller, linear when larger."""
    if planes.shape[1:] == size:
        return planes
    if size[0] < planes.shape[1]:
        return functional.interpolate(planes[None], size=size, mode="area")[0]
    return functional.interpolate(planes[None], size=size, mode="bilinear")[0]
