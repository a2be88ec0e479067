"""Curves of features over the denoising steps, of one run or of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import RevelioError
from ..trace import Reading
from ..trace.timeline import Timeline
from .canvas import Canvas, Pen
from .colour_scale import spaced, ticks
from .colours import CURVES, FRAME, QUIET_TEXT, RGB, TEXT
from .feature_maps import evenly_spread
from .figure_layout import MARGIN, NOTE, TITLE
from .lettering import fitted, font, line_height, number, width, wrapped
from .names import facts, feature_name, place_name

MOST_CURVES = 12
_PLOT = (680, 380)  # width, height in pixels
_LEFT = 78  # room for the numbers of the value axis
_LABELS = (90, 230)  # narrowest and widest room for the names at the right
_FACE = font(13)
_NAME = font(14, bold=True)
_MEANING = {
    "mean": "mean activation over all places of the picture",
    "peak": "highest activation at any place of the picture",
    "share": "share of places of the picture at which the feature fires",
}


def feature_timeline(reading: Reading, runs: Sequence[Timeline], measure: str = "mean") -> Tensor:
    """One panel with a curve for each feature, steps and noise levels below it: [H, W, 3] float32 in 0..1.

    runs: the timeline of `reading`, and maybe that of a second run, which is drawn dashed in the same
    colours. At most 12 features are drawn, the first ones. Every curve has its own colour, its own kind of
    mark from the ninth on, and its name at its end.
    Raises RevelioError for an unknown measure, for no run and for more than two.
    """
    if not 1 <= len(runs) <= 2:
        raise RevelioError(f"A timeline shows one run or two, not {len(runs)}; connect one or two traces.")
    plot = _Plot.of(runs, measure)
    names = [feature_name(*pair) for pair in zip(runs[0].features, runs[0].labels, strict=True)][:MOST_CURVES]
    labels = min(max(_LABELS[0], *(width(name, _NAME) for name in names)), _LABELS[1])
    breadth = MARGIN + _LEFT + _PLOT[0] + 16 + labels + MARGIN
    room = breadth - 2 * MARGIN
    heading = wrapped(f"Timeline · {place_name(reading.hook_point)}", TITLE, room)
    notes = [line for note in _notes(reading, runs, measure) for line in wrapped(note, NOTE, room)]
    top = MARGIN + len(heading) * line_height(TITLE) + len(notes) * line_height(NOTE) + 22
    canvas = Canvas((breadth, top + _PLOT[1] + 3 * line_height(_FACE) + MARGIN))
    below = canvas.lines(heading, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(notes, (MARGIN, below + 2), NOTE, QUIET_TEXT)
    at = (MARGIN + _LEFT, top)
    _draw_axes(canvas, at, plot, runs[0], percent=measure == "share")
    ends = _draw_curves(canvas, at, plot)
    _draw_names(canvas, at, names, ends, labels)
    return canvas.pixels()


@dataclass(frozen=True)
class _Plot:
    """Curves in the panel's own coordinates, and the values at its edges."""

    bottom: float
    top: float
    last: int  # number of the last step, from 0
    curves: list[tuple[int, bool, list[tuple[float, float]]]]  # feature's place, dashed?, points (x, y)

    @classmethod
    def of(cls, runs: Sequence[Timeline], measure: str) -> _Plot:
        values = [run.of(measure)[:MOST_CURVES] for run in runs]
        bottom = min(0.0, *(float(part.min()) for part in values))
        top = max(0.0, *(float(part.max()) for part in values))
        top = top if top > bottom else bottom + 1.0
        last = max(1, *(run.total_steps - 1 for run in runs), *(run.steps[-1] for run in runs))
        curves = []
        for number_of_run, (run, part) in reversed(list(enumerate(zip(runs, values, strict=True)))):
            for place, row in enumerate(part.tolist()):
                points = [
                    (step / last * _PLOT[0], (top - value) / (top - bottom) * _PLOT[1])
                    for step, value in zip(run.steps, row, strict=True)
                ]
                curves.append((place, number_of_run == 1, points))
        return cls(bottom, top, last, curves)


def _notes(reading: Reading, runs: Sequence[Timeline], measure: str) -> list[str]:
    said = [_MEANING[measure], *facts(reading)]
    if (count := len(runs[0].features)) > MOST_CURVES:
        said.append(f"the first {MOST_CURVES} of {count} features")
    notes = [" · ".join(said)]
    if len(runs) == 2:
        notes.append("Solid: the first run. Dashed, in the same colour: the second run.")
        if runs[0].sigmas != runs[1].sigmas:
            notes.append("σ is that of the first run; the second has other noise levels.")
    return notes


def _draw_axes(canvas: Canvas, at: tuple[int, int], plot: _Plot, run: Timeline, *, percent: bool) -> None:
    x0, y0 = at
    breadth, height = _PLOT
    _, _, *round_values = ticks(plot.bottom, plot.top)
    for value in spaced(round_values, plot.bottom, plot.top, height):
        y = y0 + (plot.top - value) / (plot.top - plot.bottom) * height
        canvas.path([(x0, y), (x0 + breadth, y)], FRAME, 1)
        text = f"{number(100 * value)} %" if percent else number(value)
        canvas.text(text, (x0 - 10, y), _FACE, QUIET_TEXT, anchor="rm")
    under = y0 + height + 8
    for index in evenly_spread(len(run.steps), 9):
        x = x0 + run.steps[index] / plot.last * breadth
        canvas.path([(x, y0 + height), (x, y0 + height + 5)], FRAME, 1)
        canvas.text(str(run.steps[index] + 1), (x, under), _FACE, TEXT, anchor="ma")
        sigma = number(run.sigmas[index])
        canvas.text(sigma, (x, under + line_height(_FACE)), _FACE, QUIET_TEXT, anchor="ma")
    canvas.text("step", (MARGIN, under), _FACE, TEXT)
    canvas.text("noise σ", (MARGIN, under + line_height(_FACE)), _FACE, QUIET_TEXT)


def _draw_curves(canvas: Canvas, at: tuple[int, int], plot: _Plot) -> dict[int, float]:
    """The curves of the second run below those of the first; returns at which height a feature's name stands:
    at the end, farther from 0, of its curves."""
    pad = 8
    zero = plot.top / (plot.top - plot.bottom) * _PLOT[1]
    ends: dict[int, float] = {}
    with canvas.smooth((at[0] - pad, at[1] - pad), (_PLOT[0] + 2 * pad, _PLOT[1] + 2 * pad)) as pen:
        for place, dashed, points in plot.curves:
            moved = [(x + pad, y + pad) for x, y in points]
            colour = colour_of(place)
            pen.line(moved, colour, 2.4, dash=(7.0, 5.0) if dashed else None)
            for x, y in _marked(moved):
                _mark(pen, place, (x, y), colour, hollow=dashed)
            ends[place] = max(ends.get(place, zero), points[-1][1], key=lambda y: abs(y - zero))
    return ends


def colour_of(place: int) -> RGB:
    """The colour of the nth curve."""
    return CURVES[place % len(CURVES)]


def _marked(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [points[index] for index in evenly_spread(len(points), 9)]


def _mark(pen: Pen, place: int, at: tuple[float, float], colour: RGB, *, hollow: bool) -> None:
    """A disc on the first eight curves, a square on the others, whose colours are taken already."""
    radius = 3.4
    if place < len(CURVES):
        pen.disc(at, radius, colour, hollow=hollow)
    else:
        pen.square(at, radius, colour, hollow=hollow)


def _draw_names(
    canvas: Canvas, at: tuple[int, int], names: list[str], ends: dict[int, float], room: int
) -> None:
    """Each name at the end of its curve, moved apart where they would overlap, with a line to the end."""
    order = sorted(ends, key=lambda place: ends[place])
    wanted = torch.tensor([ends[place] for place in order])
    apart = line_height(_NAME)
    placed = _apart(wanted.tolist(), apart, _PLOT[1])
    x0 = at[0] + _PLOT[0]
    for place, y in zip(order, placed, strict=True):
        start, end = (x0 + 5, at[1] + ends[place]), (x0 + 14, at[1] + y)
        canvas.path([start, end], colour_of(place), 1)
        canvas.text(
            fitted(names[place], _NAME, room), (x0 + 17, at[1] + y), _NAME, colour_of(place), anchor="lm"
        )


def _apart(wanted: list[float], distance: float, height: float) -> list[float]:
    """Rising heights near the wanted ones, at least `distance` apart, inside 0..height where they fit."""
    placed: list[float] = []
    for y in wanted:
        placed.append(max(y, placed[-1] + distance) if placed else y)
    over = max(0.0, placed[-1] - height)
    placed[-1] -= over
    for index in reversed(range(len(placed) - 1)):
        placed[index] = min(placed[index], placed[index + 1] - distance)
    assert all(upper - lower >= distance - 1e-6 for lower, upper in pairwise(placed))
    return placed
