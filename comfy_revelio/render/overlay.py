"""Laying a feature's map over the picture it was recorded from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..hookpoints.grids import ResizeMode, resize_maps
from .colours import heat_colour

Colouring = Callable[[Tensor], Tensor]
"""Values [...] in -1..1 to colours [..., 3]."""

_LUMA = (0.2126, 0.7152, 0.0722)
_KEPT_COLOUR = 0.15  # share of the picture's own colour left in the backdrop
_DARK, _LIGHT = 0.06, 0.42  # black and white of the backdrop: heat stays lighter than white behind it
_SHADE = 0.35  # how much darker heat is over black than over white, so that lines show through it
_ALPHA_CURVE = 0.5  # below 1, so that weak activity is still seen


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Image [H, W, C] at another size, clean in both directions. Returns [height, width, C] in 0..1."""
    if image.shape[:2] == (height, width):
        return image
    grows = height > image.shape[0] or width > image.shape[1]
    mode: ResizeMode = "bicubic" if grows else "bilinear"
    planes = resize_maps(image.permute(2, 0, 1), (height, width), mode=mode, antialias=True)
    return planes.permute(1, 2, 0).clamp(0.0, 1.0)


def backdrop(image: Tensor) -> Tensor:
    """The picture [H, W, 3] dimmed and nearly grey, so that heat on top of it is readable."""
    grey = (image * torch.tensor(_LUMA, device=image.device)).sum(-1, keepdim=True)
    return _DARK + (_LIGHT - _DARK) * torch.lerp(grey.expand_as(image), image, _KEPT_COLOUR)


def overlay(behind: Tensor, values: Tensor, opacity: float, colouring: Colouring = heat_colour) -> Tensor:
    """Heat over a backdrop: clear where the value is 0, `opacity` where it is 1 or -1.

    behind: [H, W, 3] or anything that broadcasts; values: [..., H, W] in -1..1. Returns [..., H, W, 3].
    """
    alpha = (opacity * values.abs().clamp(max=1.0) ** _ALPHA_CURVE)[..., None]
    light = ((behind.mean(-1, keepdim=True) - _DARK) / (_LIGHT - _DARK)).clamp(0.0, 1.0)
    shaded = colouring(values) * torch.lerp(torch.ones_like(light), light, _SHADE)
    return torch.lerp(behind.expand_as(shaded), shaded, alpha)
