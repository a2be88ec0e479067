"""Draw curves: features over the denoising steps of one or two runs, and metrics over training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..errors import RevelioError
from ..trace import Reading
from ..trace.timeline import Measure, Timeline
from .canvas import MARGIN, NOTE, Canvas, Point, titled_canvas
from .colours import ACCENT, CURVES, FRAME, QUIET_TEXT, RGB, TEXT
from .heat import spaced, ticks
from .heat_rows import evenly_spread
from .lettering import fitted, font, line_height, number, width
from .names import facts, feature_name, hook_point_name

MOST_CURVES = 12
_PLOT_W, _PLOT_H = 680, 380  # pixels
_LEFT = 78  # room for the numbers of the value axis
_LABELS = (90, 230)  # least and greatest width of the names on the right
_NAME = font(14, bold=True)
_MOST_MARKS = 9
_MEANING = {
    "mean": "mean activation over the image",
    "peak": "highest activation anywhere in the image",
    "share": "share of the image in which the feature fires",
}

_PANEL_MARGIN = 20
_PANEL_W, _PANEL_H = 460, 150
_PANEL_LEFT = 58
_MOST_POINTS = 400


class _Curve(NamedTuple):
    feature: int  # index among the drawn features
    second: bool  # whether the curve belongs to the second run
    points: list[Point]  # in pixels, from the panel's top left corner


def feature_timeline(reading: Reading, runs: Sequence[Timeline], measure: Measure = "mean") -> Tensor:
    """Draw a panel with a curve per feature, and below it steps and noise levels: [H, W, 3] float32 in 0..1.

    runs: the timeline of `reading`, and optionally that of a second run, which is drawn dashed in the same
    colours. Only the first 12 features are drawn. The curves have 8 colours; from the ninth curve on, the
    colours repeat, with square marks instead of round ones. Each feature's name is at the end of its curve.
    """
    if not 1 <= len(runs) <= 2:
        raise RevelioError(f"A timeline shows one run or two, not {len(runs)}; connect one or two traces.")
    first = runs[0]
    values = [run.of(measure)[:MOST_CURVES] for run in runs]
    bottom = min(0.0, *(float(part.min()) for part in values))
    top = max(0.0, *(float(part.max()) for part in values))
    top = top if top > bottom else bottom + 1.0
    last = max(1, *(run.total_steps - 1 for run in runs), *(run.steps[-1] for run in runs))
    names = [feature_name(*pair) for pair in zip(first.features, first.labels, strict=True)][:MOST_CURVES]
    names_w = min(max(_LABELS[0], *(width(name, _NAME) for name in names)), _LABELS[1])
    canvas, y0 = titled_canvas(
        f"Timeline · {hook_point_name(reading.hook_point)}",
        _notes(reading, runs, measure),
        MARGIN + _LEFT + _PLOT_W + 16 + names_w + MARGIN,
        22 + _PLOT_H + 3 * line_height(NOTE) + MARGIN,
    )
    at = (MARGIN + _LEFT, y0 + 22)
    _draw_values(canvas, at, bottom, top, percent=measure == "share")
    _draw_steps(canvas, at, first, last)
    curves = [
        _Curve(index, run is not first, _points(run.steps, row, last, bottom, top))
        for run, part in reversed(list(zip(runs, values, strict=True)))
        for index, row in enumerate(part.tolist())
    ]
    ends = _draw_curves(canvas, at, curves, zero=top / (top - bottom) * _PLOT_H)
    _draw_names(canvas, (at[0] + _PLOT_W, at[1]), names, ends, names_w)
    return canvas.pixels()


def _points(steps: Sequence[int], values: list[float], last: int, bottom: float, top: float) -> list[Point]:
    return [
        (step / last * _PLOT_W, (top - value) / (top - bottom) * _PLOT_H)
        for step, value in zip(steps, values, strict=True)
    ]


def _notes(reading: Reading, runs: Sequence[Timeline], measure: Measure) -> list[str]:
    parts = [_MEANING[measure], *facts(reading)]
    if (count := len(runs[0].features)) > MOST_CURVES:
        parts.append(f"the first {MOST_CURVES} of {count} features")
    notes = [" · ".join(parts)]
    if len(runs) == 2:
        notes.append("Solid: the first run. Dashed, in the same colour: the second run.")
        if runs[0].sigmas != runs[1].sigmas:
            notes.append("σ is from the first run; the second run has other noise levels.")
    return notes


def _draw_values(canvas: Canvas, at: tuple[int, int], bottom: float, top: float, *, percent: bool) -> None:
    """Draw horizontal lines at round values, with the values on the left."""
    x0, y0 = at
    _, _, *round_values = ticks(bottom, top)
    for value in spaced(round_values, bottom, top, _PLOT_H):
        y = y0 + (top - value) / (top - bottom) * _PLOT_H
        canvas.path([(x0, y), (x0 + _PLOT_W, y)], FRAME, 1)
        text = f"{number(100 * value)} %" if percent else number(value)
        canvas.text(text, (x0 - 10, y), NOTE, QUIET_TEXT, anchor="rm")


def _draw_steps(canvas: Canvas, at: tuple[int, int], run: Timeline, last: int) -> None:
    """Write the numbers and noise levels of some recorded steps below the panel."""
    x0, bottom = at[0], at[1] + _PLOT_H
    above, below = bottom + 8, bottom + 8 + line_height(NOTE)
    for index in evenly_spread(len(run.steps), 9):
        x = x0 + run.steps[index] / last * _PLOT_W
        canvas.path([(x, bottom), (x, bottom + 5)], FRAME, 1)
        canvas.text(str(run.steps[index] + 1), (x, above), NOTE, TEXT, anchor="ma")
        canvas.text(number(run.sigmas[index]), (x, below), NOTE, QUIET_TEXT, anchor="ma")
    canvas.text("step", (MARGIN, above), NOTE, TEXT)
    canvas.text("noise σ", (MARGIN, below), NOTE, QUIET_TEXT)


def _draw_curves(canvas: Canvas, at: tuple[int, int], curves: list[_Curve], zero: float) -> dict[int, float]:
    """Draw the curves in order. Return {feature: y of its curve's end}, of two the one farther from zero."""
    pad = 8
    ends: dict[int, float] = {}
    with canvas.smooth((at[0] - pad, at[1] - pad), (_PLOT_W + 2 * pad, _PLOT_H + 2 * pad)) as pen:
        for index, second, points in curves:
            moved = [(x + pad, y + pad) for x, y in points]
            colour = colour_of(index)
            pen.line(moved, colour, 2.4, dash=(7.0, 5.0) if second else None)
            for mark in evenly_spread(len(moved), _MOST_MARKS):
                # From the ninth curve on, colours repeat; square marks distinguish these curves.
                pen.mark(moved[mark], 3.4, colour, square=index >= len(CURVES), hollow=second)
            ends[index] = max(ends.get(index, zero), points[-1][1], key=lambda y: abs(y - zero))
    return ends


def colour_of(index: int) -> RGB:
    """Return the colour of the curve with this index, from 0."""
    return CURVES[index % len(CURVES)]


def _draw_names(
    canvas: Canvas, at: tuple[int, int], names: list[str], ends: dict[int, float], room: int
) -> None:
    """Write each name next to the end of its curve, joined by a line; move names that would overlap."""
    order = sorted(ends, key=lambda index: ends[index])
    x0, y0 = at
    for index, y in zip(order, _apart([ends[i] for i in order], line_height(_NAME), _PLOT_H), strict=True):
        canvas.path([(x0 + 5, y0 + ends[index]), (x0 + 14, y0 + y)], colour_of(index), 1)
        text = fitted(names[index], _NAME, room)
        canvas.text(text, (x0 + 17, y0 + y), _NAME, colour_of(index), anchor="lm")


def _apart(wanted: list[float], distance: float, height: float) -> list[float]:
    """Return ascending y values near the wanted ones, at least `distance` apart, in 0..height if they fit."""
    placed: list[float] = []
    for y in wanted:
        placed.append(max(y, placed[-1] + distance) if placed else y)
    placed[-1] -= max(0.0, placed[-1] - height)
    for index in reversed(range(len(placed) - 1)):
        placed[index] = min(placed[index], placed[index + 1] - distance)
    return placed


def training_curves(series: Mapping[str, Sequence[Point]], *, title: str = "", last: float = 0.0) -> Tensor:
    """Draw a panel per metric, each with the latest value, below each other: [H, W, 3] float32 in 0..1.

    series: name -> points (step, value) in order of steps; values that are not finite are omitted. last: the
    last step of the training; the axis extends at least to this step.
    """
    if not series:
        raise RevelioError("There are no curves to draw.")
    heading, face = font(18, bold=True), font(14)
    top = _PANEL_MARGIN + (line_height(heading) + 8 if title else 0)
    above = line_height(face) + 6
    row = above + _PANEL_H + 26
    canvas = Canvas(
        (2 * _PANEL_MARGIN + _PANEL_LEFT + _PANEL_W, top + len(series) * row + _PANEL_MARGIN - 12)
    )
    canvas.text(title, (_PANEL_MARGIN, _PANEL_MARGIN - 2), heading, TEXT)
    for index, (name, points) in enumerate(series.items()):
        finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        y = top + index * row
        value = number(finite[-1][1]) if finite else "nothing yet"
        canvas.text(f"{name}: {value}", (_PANEL_MARGIN, y), face, TEXT)
        _draw_panel(canvas, (_PANEL_MARGIN + _PANEL_LEFT, y + above), finite, last)
    return canvas.pixels()


def _draw_panel(canvas: Canvas, at: tuple[int, int], points: list[Point], last: float) -> None:
    x0, y0 = at
    face = font(12)
    canvas.path([(x0, y0), (x0, y0 + _PANEL_H), (x0 + _PANEL_W, y0 + _PANEL_H)], FRAME, 1)
    values = [y for _, y in points] or [0.0, 1.0]
    bottom, top = min(0.0, *values), max(values)
    top = top if top > bottom else bottom + 1.0
    end = max([last, *(x for x, _ in points), 1.0])
    for value, y in ((top, y0), (bottom, y0 + _PANEL_H)):
        canvas.text(number(value), (x0 - 8, y), face, QUIET_TEXT, anchor="rm")
    canvas.text(number(end), (x0 + _PANEL_W, y0 + _PANEL_H + 4), face, QUIET_TEXT, anchor="ra")
    canvas.text("step", (x0, y0 + _PANEL_H + 4), face, QUIET_TEXT)
    shown = points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]
    canvas.path(
        [(x0 + x / end * _PANEL_W, y0 + (top - y) / (top - bottom) * _PANEL_H) for x, y in shown], ACCENT
    )
