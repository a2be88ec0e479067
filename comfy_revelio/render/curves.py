"""Curves over steps, each on a panel of its own with its last value written out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import RevelioError
from .canvas import Canvas
from .colours import ACCENT, FRAME, QUIET_TEXT, TEXT
from .lettering import font, line_height, number

_MARGIN = 20
_PANEL = (460, 150)
_AXIS = 58
_MOST_POINTS = 400


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], *, title: str = "", last: float = 0.0
) -> Tensor:
    """Panels one below the other, [H, W, 3] float32 in 0..1.

    series: name -> (step, value) in order of steps; values that are not finite are left out. last: the step
    at which the axis ends, when more is still to come. Raises RevelioError when there is nothing to draw.
    """
    if not series:
        raise RevelioError("There are no curves to draw.")
    width, height = _PANEL
    heading, face = font(18, bold=True), font(14)
    top = _MARGIN + (line_height(heading) + 8 if title else 0)
    row = line_height(face) + 6 + height + 26
    canvas = Canvas((2 * _MARGIN + _AXIS + width, top + len(series) * row + _MARGIN - 12))
    if title:
        canvas.text(title, (_MARGIN, _MARGIN - 2), heading, TEXT)
    for index, (name, points) in enumerate(series.items()):
        finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        y = top + index * row
        value = number(finite[-1][1]) if finite else "nothing yet"
        canvas.text(f"{name}: {value}", (_MARGIN, y), face, TEXT)
        _panel(canvas, (_MARGIN + _AXIS, y + line_height(face) + 6), finite, last)
    return canvas.pixels()


def _panel(canvas: Canvas, at: tuple[int, int], points: list[tuple[float, float]], last: float) -> None:
    width, height = _PANEL
    x0, y0 = at
    face = font(12)
    corners = [(x0, y0), (x0, y0 + height), (x0 + width, y0 + height)]
    canvas.path([(float(x), float(y)) for x, y in corners], FRAME, 1)
    values = [y for _, y in points] or [0.0, 1.0]
    bottom, top = min(0.0, *values), max(values)
    top = top if top > bottom else bottom + 1.0
    end = max([last, *(x for x, _ in points), 1.0])
    for value, y in ((top, y0), (bottom, y0 + height)):
        canvas.text(number(value), (x0 - 8, y), face, QUIET_TEXT, anchor="rm")
    canvas.text(number(end), (x0 + width, y0 + height + 4), face, QUIET_TEXT, anchor="ra")
    canvas.text("step", (x0, y0 + height + 4), face, QUIET_TEXT)
    shown = points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]
    line = [(x0 + x / end * width, y0 + (top - y) / (top - bottom) * height) for x, y in shown]
    canvas.path(line, ACCENT)
