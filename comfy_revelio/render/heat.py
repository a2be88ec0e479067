"""Draw heat over an image, and the colour scale next to a figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hookpoints.resize_maps import ResizeMode, resize_maps
from .canvas import BOLD_NOTE, NOTE, Canvas
from .colours import FRAME, QUIET_TEXT, TEXT, heat_colour
from .lettering import line_height, number

SCALE_WIDTH = 74  # width of the colour scale in pixels, including its numbers
_BAR = 16
_BEHIND = 0.34  # grey level behind the bar: like a dimmed light image, so that the bar fades as the maps do
_APART = 18  # least distance between two numbers, in pixels

_EMPTY = 0.12  # brightness behind the maps when there is no image
_LUMA = (0.2126, 0.7152, 0.0722)
_KEPT_COLOUR = 0.15  # share of the image's colour that remains in the backdrop
_DARK, _LIGHT = 0.06, 0.42  # black and white in the backdrop, both darker than heat
_SHADE = 0.35  # how much darker heat is over black than over white, so that outlines stay visible
_ALPHA_CURVE = 0.5  # exponent of the opacity; below 1, so that weak activity is visible


@dataclass(frozen=True)
class Scale:
    """How the values in a figure are turned into heat."""

    top: float
    """The value with the hottest colour; 0 if everything is silent."""
    opacity: float
    """Opacity of the hottest heat, 0..1; heat becomes transparent towards value 0."""
    signed: bool = False
    """Whether the scale begins at -top instead of 0."""
    name: str = "activation"
    """Text above the scale."""
    colouring: Callable[[Tensor], Tensor] = heat_colour
    """Function from values [...] in -1..1 to colours [..., 3]."""


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Enlarge or reduce an image [H, W, C] without aliasing. Returns [height, width, C] in 0..1."""
    if image.shape[:2] == (height, width):
        return image
    grows = height > image.shape[0] or width > image.shape[1]
    mode: ResizeMode = "bicubic" if grows else "bilinear"
    planes = resize_maps(image.permute(2, 0, 1), (height, width), mode=mode, antialias=True)
    return planes.permute(1, 2, 0).clamp(0.0, 1.0)


def backdrop(image: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Return the backdrop for heat, [height, width, 3]: nearly black, or the image dimmed and nearly grey."""
    if image is None:
        return torch.full((*size, 3), _EMPTY)
    image = resize_image(image, *size)
    grey = (image * torch.tensor(_LUMA, device=image.device)).sum(-1, keepdim=True)
    return _DARK + (_LIGHT - _DARK) * torch.lerp(grey.expand_as(image), image, _KEPT_COLOUR)


def heat_cells(maps: Tensor, behind: Tensor, scale: Scale) -> Tensor:
    """Draw feature maps [n, h, w], one value per token, as heat over a backdrop [H, W, 3]: [n, H, W, 3]."""
    return overlay(behind, resize_maps(maps, behind.shape[:2]) / (scale.top or 1.0), scale)


def overlay(behind: Tensor, values: Tensor, scale: Scale) -> Tensor:
    """Draw heat over a backdrop: transparent where a value is 0, with the scale's opacity at values 1 and -1.

    behind: [H, W, 3] or anything that broadcasts; values: [..., H, W] in -1..1. Returns [..., H, W, 3].
    """
    alpha = (scale.opacity * values.abs().clamp(max=1.0) ** _ALPHA_CURVE)[..., None]
    light = ((behind.mean(-1, keepdim=True) - _DARK) / (_LIGHT - _DARK)).clamp(0.0, 1.0)
    shaded = scale.colouring(values) * torch.lerp(torch.ones_like(light), light, _SHADE)
    return torch.lerp(behind.expand_as(shaded), shaded, alpha)


def draw_scale(canvas: Canvas, at: tuple[int, int], height: int, scale: Scale) -> None:
    """Draw the colour scale: a vertical bar from 0 (or -top, for signed values) to top, with numbers."""
    x, y = at
    top, bottom = scale.top, -scale.top if scale.signed else 0.0
    levels = torch.linspace(1.0, -1.0 if scale.signed else 0.0, height)
    behind = torch.full((height, _BAR, 3), _BEHIND)
    canvas.image(overlay(behind, levels[:, None].expand(height, _BAR), scale), at, framed=True)
    canvas.text(scale.name, (x - 1, y - line_height(NOTE) - 4), BOLD_NOTE, TEXT)
    for value in spaced(ticks(bottom, top), bottom, top, height):
        level = y if top == bottom else y + round((top - value) / (top - bottom) * (height - 1))
        canvas.path([(x + _BAR + 1, level), (x + _BAR + 5, level)], FRAME, 1)
        canvas.text(number(value), (x + _BAR + 9, level), NOTE, QUIET_TEXT, anchor="lm")


def ticks(bottom: float, top: float) -> list[float]:
    """Return the upper end of a scale, the lower end, and then the round values between them.

    >>> ticks(0.0, 7.0)
    [7.0, 0.0, 0, 2, 4, 6]
    """
    if top == bottom:
        return [top]
    rough = (top - bottom) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(bottom / step)
    return [top, bottom, *(i * step for i in range(first, math.floor(top / step) + 1))]


def spaced(values: list[float], bottom: float, top: float, height: int) -> list[float]:
    """Return the values that can be written on a scale without overlapping the values before them."""
    kept: list[float] = []
    for value in values:
        if all(abs(value - other) / (top - bottom) * height >= _APART for other in kept):
            kept.append(value)
    return kept
