"""The colour scale beside a figure: which colour stands for which activation."""

from __future__ import annotations

import math

import torch

from .canvas import Canvas
from .colours import FRAME, QUIET_TEXT, TEXT, heat_colour
from .lettering import font, line_height, number
from .overlay import Colouring, overlay

SCALE_WIDTH = 74  # pixels, with its numbers
_BAR = 16
_BEHIND = 0.34  # grey behind the bar, that of a dimmed light picture, so that the bar fades as the maps do
_APART = 18  # pixels between two numbers


def draw_scale(
    canvas: Canvas,
    at: tuple[int, int],
    height: int,
    top: float,
    opacity: float,
    signed: bool,
    *,
    name: str = "activation",
    colouring: Colouring = heat_colour,
) -> None:
    """A vertical bar from 0 (or -top, for signed values) to `top`, in activation units, with numbers."""
    x, y = at
    bottom = -top if signed else 0.0
    levels = torch.linspace(1.0, -1.0 if signed else 0.0, height)
    bar = overlay(
        torch.full((height, _BAR, 3), _BEHIND), levels[:, None].expand(height, _BAR), opacity, colouring
    )
    canvas.picture(bar, at, framed=True)
    face = font(13)
    canvas.text(name, (x - 1, y - line_height(face) - 4), font(13, bold=True), TEXT)
    for value in spaced(ticks(bottom, top), bottom, top, height):
        level = y if top == bottom else y + round((top - value) / (top - bottom) * (height - 1))
        canvas.tick((x + _BAR + 1, level), 4, FRAME)
        canvas.text(number(value), (x + _BAR + 9, level), face, QUIET_TEXT, anchor="lm")


def ticks(bottom: float, top: float) -> list[float]:
    """Round values between the ends, with both ends first."""
    if top == bottom:
        return [top]
    rough = (top - bottom) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(bottom / step)
    return [top, bottom, *(i * step for i in range(first, math.floor(top / step) + 1))]


def spaced(values: list[float], bottom: float, top: float, height: int) -> list[float]:
    """The values whose numbers do not run into those of earlier ones."""
    kept: list[float] = []
    for value in values:
        if all(abs(value - other) / (top - bottom) * height >= _APART for other in kept):
            kept.append(value)
    return kept
