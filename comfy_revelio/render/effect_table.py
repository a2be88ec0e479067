"""Draw where and when a model represents a concept: a heat table of effect sizes by hook point and step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .canvas import BOLD_NOTE, MARGIN, NOTE, Canvas, titled_canvas
from .colours import ACCENT, BACKGROUND, QUIET_TEXT, TEXT, heat_colour
from .heat_rows import evenly_spread
from .lettering import fitted, font, line_height, number, width
from .names import feature_name, hook_point_name
from .table import table

if TYPE_CHECKING:
    from ..analysis.contrast import Findings, FoundFeature

_CELL_H, _CELL_W = 48, 46  # pixels
_NARROW = 16  # least width of a column, for runs with many steps
_ROOM = 960  # greatest width of all columns together
_MOST_COLUMNS = _ROOM // _NARROW
_LABELS = 250  # width of the names of the hook points
_NAMES = 250  # width of the names of the best features
_SHOWN_PER_HOOK_POINT = 2
_DARK_ABOVE = 0.5
"""Cells with more heat than this (0..1) have dark numbers."""


def effect_table(findings: Findings, *, title: str = "", compared: str = "") -> Tensor:
    """Draw a heat table: the highest effect size of any feature at each hook point (row) and step (column).

    Next to each row are the features that distinguish the two sides best at that hook point; the best cell
    has a bright frame. compared: what was compared, in a few words. If there are more than 60 steps, only
    evenly spread ones and the best one are shown. Returns [H, W, 3] float32 in 0..1.
    """
    best = next(iter(findings.best(1)), None)
    columns = _columns(findings, best)
    cell_w = max(_NARROW, min(_CELL_W, _ROOM // len(columns)))
    left = MARGIN + _LABELS
    right = left + len(columns) * cell_w + 18
    names = list(findings.effects)
    heads_h, row_h = 16 + line_height(BOLD_NOTE) + 6, _CELL_H + 2
    canvas, heads_top = titled_canvas(
        title or "Where and when the two sides differ",
        [_summary(best, findings.total_steps, compared)],
        right + _NAMES + MARGIN,
        heads_h + len(names) * row_h + MARGIN,
    )
    top = heads_top + heads_h
    canvas.text("step", (left - 10, heads_top + 16), NOTE, QUIET_TEXT, anchor="ra")
    _draw_heads(canvas, columns, (left, heads_top + 16), cell_w)
    highest = max(1e-6, *(float(here.effect.amax()) for here in findings.effects.values()))
    for row, name in enumerate(names):
        y = top + row * row_h
        words, _, own = hook_point_name(name).partition(" (")
        canvas.text(fitted(words, BOLD_NOTE, _LABELS - 14), (MARGIN, y + 5), BOLD_NOTE, TEXT)
        canvas.text(fitted(own.rstrip(")"), NOTE, _LABELS - 14), (MARGIN, y + 25), NOTE, QUIET_TEXT)
        here = findings.effects[name]
        for step, effect in zip(here.steps, here.effect.amax(1).clamp(min=0).tolist(), strict=True):
            if step in columns:
                _draw_cell(canvas, (left + columns.index(step) * cell_w, y), cell_w, effect, highest)
        for line, found in enumerate(findings.best(_SHOWN_PER_HOOK_POINT, name)):
            text = fitted(
                f"{feature_name(found.feature, found.label)}  {number(found.effect)}", BOLD_NOTE, _NAMES
            )
            face, colour = (NOTE, QUIET_TEXT) if line else (BOLD_NOTE, TEXT)
            canvas.text(text, (right, y + 5 + 20 * line), face, colour)
    if best is not None:
        at = (left + columns.index(best.step) * cell_w, top + names.index(best.hook_point) * row_h)
        _draw_frame(canvas, at, cell_w)
    return canvas.pixels()


def found_table(found: list[FoundFeature], total_steps: int) -> str:
    """List the features that distinguish the two sides, best first, as aligned text that is also Markdown."""
    if not found:
        return "No feature is higher on the first side."
    rows = [
        (
            f"#{feature.feature}",
            feature.label or "-",
            feature.hook_point,
            f"{feature.step + 1}/{total_steps}",
            f"{feature.effect:.2f}",
            f"{feature.mean_with:.3g}",
            f"{feature.mean_without:.3g}",
        )
        for feature in found
    ]
    header = ("feature", "label", "hook point", "best at step", "effect size", "with", "without")
    return table(header, rows, numbers_from=3)


def _columns(findings: Findings, best: FoundFeature | None) -> list[int]:
    """Return the steps that get a column."""
    steps = sorted({step for here in findings.effects.values() for step in here.steps})
    shown = {steps[index] for index in evenly_spread(len(steps), _MOST_COLUMNS)}
    return sorted(shown | ({best.step} if best else set()))


def _summary(best: FoundFeature | None, total_steps: int, compared: str) -> str:
    start = f"{compared}. " if compared else ""
    if best is None:
        return f"{start}No feature is higher on the first side than on the second."
    return (
        f"{start}Clearest in {hook_point_name(best.hook_point)} at step {best.step + 1} of {total_steps}: "
        f"feature {feature_name(best.feature, best.label)}, effect size {number(best.effect)}. Each cell: "
        "the highest effect size of any feature."
    )


def _draw_heads(canvas: Canvas, columns: list[int], at: tuple[int, int], cell_w: int) -> None:
    """Write the step numbers, counted from 1, above as many columns as there is room for."""
    room = width(str(columns[-1] + 1), NOTE) + 6
    every = max(1, -(-room // cell_w))
    for column, step in enumerate(columns):
        if column % every == 0:
            canvas.text(str(step + 1), (at[0] + (column + 0.5) * cell_w, at[1]), NOTE, QUIET_TEXT, "ma")


def _draw_cell(canvas: Canvas, at: tuple[int, int], cell_w: int, effect: float, highest: float) -> None:
    """Draw an effect size as a cell of heat, with the number if there is room for it."""
    colour = heat_colour(torch.tensor(effect / highest))
    canvas.image(colour.expand(_CELL_H, cell_w - 2, 3), (at[0] + 1, at[1]))
    text, face = number(round(effect, 1)), font(12, bold=True)
    if width(text, face) <= cell_w - 6:
        ink = BACKGROUND if effect / highest > _DARK_ABOVE else TEXT
        canvas.text(text, (at[0] + cell_w / 2, at[1] + _CELL_H / 2), face, ink, "mm")


def _draw_frame(canvas: Canvas, at: tuple[int, int], cell_w: int) -> None:
    x, y, right, bottom = at[0], at[1] - 1, at[0] + cell_w - 1, at[1] + _CELL_H
    canvas.path([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], ACCENT)
