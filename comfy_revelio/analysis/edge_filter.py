"""Maps on a model's coarse grid, brought to the edges of the picture that they belong to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..hookpoints.grids import resize_maps

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
    fit = _Fit(_sized(guide, small), max(1, round(radius * shrink)))
    found = maps.new_empty(len(maps), height, width, dtype=torch.float32)
    for place, one in enumerate(maps):  # one by one: twenty words of a large picture would fill gigabytes
        slope, offset = fit(_sized(one[None].float(), small))
        level = (_sized(slope, (height, width)) * guide).sum(0) + _sized(offset, (height, width))[0]
        found[place] = level.clamp(min=0.0)
    return found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)


class _Fit:
    """Fits maps by linear functions of the colours of one guide [3, h, w], around every place."""

    def __init__(self, guide: Tensor, radius: int) -> None:
        self._guide, self._radius = guide, radius
        self._colour = _window_mean(guide, radius)
        products = _window_mean((guide[:, None] * guide).flatten(0, 1), radius)
        spread = products - (self._colour[:, None] * self._colour).flatten(0, 1)
        spread = spread.unflatten(0, (3, 3)).permute(2, 3, 0, 1) + EPSILON * torch.eye(3, device=guide.device)
        self._inverse = torch.linalg.inv(spread)

    def __call__(self, one: Tensor) -> tuple[Tensor, Tensor]:
        """For a map [1, h, w] slopes [3, h, w] and an offset [1, h, w], means over the windows of a place."""
        level = _window_mean(one, self._radius)
        shared = _window_mean(one * self._guide, self._radius) - level * self._colour
        slope = torch.einsum("hwij,jhw->ihw", self._inverse, shared)
        offset = level - (slope * self._colour).sum(0, keepdim=True)
        return _window_mean(slope, self._radius), _window_mean(offset, self._radius)


def _window_mean(planes: Tensor, radius: int) -> Tensor:
    """Mean of [n, H, W] over windows of 2 radius + 1 pixels a side, cut off at the border."""
    for axis in (1, 2):
        size = planes.shape[axis]
        place = torch.arange(size, device=planes.device)
        begin, end = (place - radius).clamp(min=0), (place + radius + 1).clamp(max=size)
        sums = planes.double().cumsum(axis)  # sums in float32 would lose the small variances of flat places
        sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], axis)
        total = sums.index_select(axis, end) - sums.index_select(axis, begin)
        count = (end - begin).view(-1, 1) if axis == 1 else end - begin
        planes = (total / count).to(planes.dtype)
    return planes


def _sized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] at another size: the mean of what falls together when smaller, linear when larger."""
    return resize_maps(planes, size, mode="area" if size[0] < planes.shape[1] else "bilinear")
