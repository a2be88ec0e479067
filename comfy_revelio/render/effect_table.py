"""Where and when a concept is in a model: a table of effect sizes, hook points by steps, the best named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .canvas import Canvas
from .colours import ACCENT, BACKGROUND, QUIET_TEXT, TEXT, heat_colour
from .feature_maps import evenly_spread
from .lettering import Font, fitted, font, line_height, number, width, wrapped
from .names import place_name
from .table import table

if TYPE_CHECKING:
    from ..analysis.contrast import Findings, FoundFeature

_MARGIN = 22
_CELL = (48, 46)  # height, width in pixels
_NARROW = 16  # narrowest column, for runs of many steps
_ROOM = 960  # for all columns together
_MOST_COLUMNS = _ROOM // _NARROW
_LABELS = 250  # for the names of the hook points
_NAMES = 250  # for the best features
_SHOWN_PER_PLACE = 2
_DARK_ABOVE = 0.5
"""Heat from which numbers on it are dark."""


def effect_table(findings: Findings, *, title: str = "", compared: str = "") -> Tensor:
    """Heat of the best effect size of any feature at each hook point (rows) and step (columns).

    Beside each row stand the features that tell the two sides apart best there; the best cell of all has a
    bright frame. compared: what was compared, in a few words. Of more than 60 steps some are shown, spread
    evenly, always with the best. Returns [H, W, 3] float32 in 0..1.
    """
    best = next(iter(findings.best(1)), None)
    columns = _columns(findings, best)
    cell_w = max(_NARROW, min(_CELL[1], _ROOM // len(columns)))
    heading, note, face = font(21, bold=True), font(13), font(13, bold=True)
    left = _MARGIN + _LABELS
    sheet_w = left + len(columns) * cell_w + 18 + _NAMES + _MARGIN
    lines = wrapped(title or "Where and when the two sides differ", heading, sheet_w - 2 * _MARGIN)
    notes = wrapped(_summary(best, findings.total_steps, compared), note, sheet_w - 2 * _MARGIN)
    heads_top = _MARGIN + len(lines) * line_height(heading) + len(notes) * line_height(note) + 16
    top = heads_top + line_height(face) + 6
    canvas = Canvas((sheet_w, top + len(findings.effects) * (_CELL[0] + 2) + _MARGIN))
    below = canvas.lines(lines, (_MARGIN, _MARGIN - 3), heading, TEXT)
    canvas.lines(notes, (_MARGIN, below + 2), note, QUIET_TEXT)
    canvas.text("step", (left - 10, heads_top), note, QUIET_TEXT, anchor="ra")
    _draw_heads(canvas, columns, (left, heads_top), cell_w, note)
    highest = max(float(here.effect.amax()) for here in findings.effects.values())
    for row, name in enumerate(findings.effects):
        y = top + row * (_CELL[0] + 2)
        words, _, own = place_name(name).partition(" (")
        canvas.text(fitted(words, face, _LABELS - 14), (_MARGIN, y + 5), face, TEXT)
        canvas.text(fitted(own.rstrip(")"), note, _LABELS - 14), (_MARGIN, y + 25), note, QUIET_TEXT)
        _draw_row(canvas, findings, name, columns, (left, y), cell_w, max(highest, 1e-6))
        for line, found in enumerate(findings.best(_SHOWN_PER_PLACE, name)):
            text = fitted(f"{_name(found)}  {number(found.effect)}", face, _NAMES)
            at = (left + len(columns) * cell_w + 18, y + 5 + 20 * line)
            canvas.text(text, at, (face, note)[line > 0], (TEXT, QUIET_TEXT)[line > 0])
    if best is not None:
        row, column = list(findings.effects).index(best.hook_point), columns.index(best.step)
        _draw_frame(canvas, (left + column * cell_w, top + row * (_CELL[0] + 2)), cell_w)
    return canvas.pixels()


def found_table(found: list[FoundFeature], total_steps: int) -> str:
    """The features that tell the two sides apart, best first, as aligned text that is also Markdown."""
    if not found:
        return "No feature is higher on the first side."
    rows = [
        (
            f"#{one.feature}",
            one.label or "-",
            one.hook_point,
            f"{one.step + 1}/{total_steps}",
            f"{one.effect:.2f}",
            f"{one.mean_with:.3g}",
            f"{one.mean_without:.3g}",
        )
        for one in found
    ]
    header = ("feature", "label", "place", "best at step", "effect size", "with", "without")
    return table(header, rows, numbers_from=3)


def _columns(findings: Findings, best: FoundFeature | None) -> list[int]:
    """The steps that get a column."""
    steps = sorted({step for here in findings.effects.values() for step in here.steps})
    shown = {steps[place] for place in evenly_spread(len(steps), _MOST_COLUMNS)}
    return sorted(shown | ({best.step} if best else set()))


def _summary(best: FoundFeature | None, total_steps: int, compared: str) -> str:
    start = f"{compared}. " if compared else ""
    if best is None:
        return f"{start}No feature is higher on the first side than on the second."
    return (
        f"{start}Clearest in {place_name(best.hook_point)} at step {best.step + 1} of {total_steps}: feature "
        f"{_name(best)}, effect size {number(best.effect)}. Each cell: the highest effect size of any "
        "feature."
    )


def _name(found: FoundFeature) -> str:
    return f"#{found.feature} {found.label}".strip()


def _draw_heads(canvas: Canvas, columns: list[int], at: tuple[int, int], cell_w: int, face: Font) -> None:
    """Step numbers from 1, as many as there is room for."""
    room = width(str(columns[-1] + 1), face) + 6
    every = max(1, -(-room // cell_w))
    for column, step in enumerate(columns):
        if column % every == 0:
            canvas.text(str(step + 1), (at[0] + (column + 0.5) * cell_w, at[1]), face, QUIET_TEXT, "ma")


def _draw_row(
    canvas: Canvas,
    findings: Findings,
    name: str,
    columns: list[int],
    at: tuple[int, int],
    cell_w: int,
    highest: float,
) -> None:
    here = findings.effects[name]
    peaks = dict(zip(here.steps, here.effect.amax(1).clamp(min=0).tolist(), strict=True))
    face = font(12, bold=True)
    for column, step in enumerate(columns):
        if step not in peaks:
            continue
        share = peaks[step] / highest
        colour = heat_colour(torch.tensor(share))
        x = at[0] + column * cell_w
        canvas.picture(colour.expand(_CELL[0], cell_w - 2, 3), (x + 1, at[1]))
        text = number(round(peaks[step], 1))
        if width(text, face) <= cell_w - 6:
            ink = BACKGROUND if share > _DARK_ABOVE else TEXT
            canvas.text(text, (x + cell_w / 2, at[1] + _CELL[0] / 2), face, ink, "mm")


def _draw_frame(canvas: Canvas, at: tuple[int, int], cell_w: int) -> None:
    x, y, right, bottom = at[0], at[1] - 1, at[0] + cell_w - 1, at[1] + _CELL[0]
    corners = [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)]
    canvas.path([(float(a), float(b)) for a, b in corners], ACCENT, 2)
