"""Sharpen maps, which have a model's coarse resolution, along the edges of the image.

This is the guided filter (He, Sun and Tang, ECCV 2010, equations 14 to 16). In each window, a map is replaced
by the linear function of the image's colours I that fits the map best. Each pixel then takes the mean over
the windows that contain the pixel:

    a = (cov(I) + eps)^-1 cov(I, map),  b = mean(map) - a . mean(I),  map' = mean(a) . I + mean(b)

For large images, a and b are computed on a smaller copy (He and Sun, arXiv 1505.00996).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..hookpoints.resize_maps import resize_maps

LONGEST = 768
"""The longest side, in pixels, on which a and b are computed; larger images are shrunk to it."""
EPSILON = 1e-4
"""eps: a window counts as flat if the variance of its colours (0..1) is below this."""


@torch.no_grad()
def follow_edges(maps: Tensor, image: Tensor, radius: float) -> Tensor:
    """Return maps that change where the image changes: float32 [n, H, W] in 0..1, each with a peak of 1.

    maps: [n, h, w], at least 0, of any size. image: [H, W, 3] in 0..1. radius: the radius of the windows in
    pixels of the image; use the blur radius of the maps. A map that is 0 everywhere stays 0.
    """
    height, width = image.shape[:2]
    guide = image[..., :3].to(maps.device).float().permute(2, 0, 1)
    shrink = min(1.0, LONGEST / max(height, width))
    small = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    fit = _Fit(_sized(guide, small), max(1, round(radius * shrink)))
    found = maps.new_empty(len(maps), height, width, dtype=torch.float32)
    for number, map_ in enumerate(maps):  # one at a time: twenty maps of a large image would fill gigabytes
        slope, offset = fit(_sized(map_[None].float(), small))
        level = (_sized(slope, (height, width)) * guide).sum(0) + _sized(offset, (height, width))[0]
        found[number] = level.clamp(min=0.0)
    return found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)


class _Fit:
    """Fits linear functions of a guide image's colours [3, h, w] to maps, in a window around every pixel."""

    def __init__(self, guide: Tensor, radius: int) -> None:
        self._guide, self._radius = guide, radius
        self._colour = _window_mean(guide, radius)
        products = _window_mean((guide[:, None] * guide).flatten(0, 1), radius)
        spread = products - (self._colour[:, None] * self._colour).flatten(0, 1)
        spread = spread.unflatten(0, (3, 3)).permute(2, 3, 0, 1) + EPSILON * torch.eye(3, device=guide.device)
        self._inverse = torch.linalg.inv(spread)

    def __call__(self, map_: Tensor) -> tuple[Tensor, Tensor]:
        """Return slopes [3, h, w] and offset [1, h, w] for a map [1, h, w], each averaged over windows."""
        level = _window_mean(map_, self._radius)
        covariance = _window_mean(map_ * self._guide, self._radius) - level * self._colour
        slope = torch.einsum("hwij,jhw->ihw", self._inverse, covariance)
        offset = level - (slope * self._colour).sum(0, keepdim=True)
        return _window_mean(slope, self._radius), _window_mean(offset, self._radius)


def _window_mean(planes: Tensor, radius: int) -> Tensor:
    """Return the mean of [n, H, W] over windows of 2 radius + 1 pixels a side, cut off at the border."""
    for axis in (1, 2):
        size = planes.shape[axis]
        pixel = torch.arange(size, device=planes.device)
        begin, end = (pixel - radius).clamp(min=0), (pixel + radius + 1).clamp(max=size)
        sums = planes.double().cumsum(axis)  # sums in float32 would lose the small variances of flat areas
        sums = torch.cat([torch.zeros_like(sums.narrow(axis, 0, 1)), sums], axis)
        total = sums.index_select(axis, end) - sums.index_select(axis, begin)
        count = (end - begin).view(-1, 1) if axis == 1 else end - begin
        planes = (total / count).to(planes.dtype)
    return planes


def _sized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize planes [n, h, w]: shrink them by averaging, enlarge them bilinearly."""
    return resize_maps(planes, size, mode="area" if size[0] < planes.shape[1] else "bilinear")
