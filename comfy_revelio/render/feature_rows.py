"""Figures with a row of cells for each feature: the labels, the heads, the heat and the scale they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.grids import resize_maps
from ..trace import Reading
from .canvas import Canvas
from .colour_scale import draw_scale
from .colours import ACCENT, QUIET_TEXT, TEXT, difference_colour, heat_colour
from .figure_layout import GAP, HEAD, MARGIN, NOTE, TITLE, FigureLayout, plan
from .lettering import fitted, font, line_height, number, width
from .overlay import Colouring, backdrop, overlay, resized

EMPTY = 0.12  # brightness behind the maps when there is no picture
_FEATURE = font(17, bold=True)
_LABEL = font(14, bold=True)
_LABEL_ROOM = (84, 190)  # narrowest and widest column of row labels, in pixels


@dataclass(frozen=True)
class Row:
    """One feature in a figure."""

    feature: int
    name: str  # what the dictionary calls it, or ""
    maps: Tensor  # [recorded steps, h, w] float32
    peak: float  # value farthest from 0 over all recorded steps
    peak_step: int | None  # the step that holds it, from 0; None for a mean over the steps

    def lines(self, changes: bool = False) -> tuple[str, str]:
        """The quiet lines under the feature's number and name."""
        if self.peak == 0:
            return ("no change" if changes else "silent"), ""
        if self.peak_step is None:
            return f"up to {number(self.peak)}", ""
        word = f"most {'+' * (self.peak > 0)}" if changes else "peak "
        return word + number(self.peak), f"at step {self.peak_step + 1}"


def read_row(reading: Reading, feature: int, second: Reading | None = None) -> Row:
    """A feature's maps; with a second run, how much more it fires there than in the first."""
    maps = reading.maps(feature)
    if second is not None:
        maps = second.maps(feature) - maps
    heights = maps.abs().flatten(1).amax(1)
    hottest = int(heights.argmax())
    values = maps[hottest].flatten()
    peak = float(values[values.abs().argmax()])
    return Row(feature, reading.note.label(feature), maps, peak, reading.steps[hottest].step)


@dataclass(frozen=True)
class Sheet:
    """What stands around the rows.

    plain: pictures [h, w, 3] under their heads, shown untouched in the first columns of every row.
    heads: two lines over each column of heat. behind: the picture under the heat; None for bare maps.
    cell: height and width. changes: the values are differences and have a scale of their own.
    """

    title: str
    notes: list[str]
    plain: Sequence[tuple[str, Tensor]]
    heads: Sequence[tuple[str, str]]
    behind: Tensor | None
    cell: tuple[int, int]
    opacity: float
    changes: bool = False


def draw_rows(rows: Sequence[Row], heats: Sequence[Tensor], sheet: Sheet) -> Tensor:
    """The figure, [height, width, 3] float32 in 0..1.

    heats: for each row the values of its columns, [columns, h, w] at the size of the recorded grid. All rows
    share one scale, up to the value farthest from 0 in any row's maps.
    """
    heads = [*((head, "") for head, _ in sheet.plain), *sheet.heads]
    layout = plan(
        title=sheet.title,
        notes=sheet.notes,
        rows=len(rows),
        columns=len(heads),
        cell=sheet.cell,
        label_width=_label_width(rows, sheet.changes),
        head_width=max(width(head, HEAD) for head, _ in heads),
    )
    canvas = Canvas(layout.size)
    below = canvas.lines(layout.title, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(layout.notes, (MARGIN, below + 2), NOTE, QUIET_TEXT)
    _draw_heads(canvas, layout, heads)
    top = max(abs(row.peak) for row in rows)
    colouring = colouring_of(sheet.changes)
    behind = behind_heat(sheet.behind, sheet.cell)
    plain = [resized(picture, *sheet.cell) for _, picture in sheet.plain]
    for index, (row, heat) in enumerate(zip(rows, heats, strict=True)):
        _draw_label(canvas, layout, index, row, sheet.changes)
        shares = resize_maps(heat, sheet.cell) / (top or 1.0)
        cells = [*plain, *overlay(behind, shares, sheet.opacity, colouring)]
        for column, pixels in enumerate(cells):
            canvas.picture(pixels, layout.corner(index, column), framed=True)
    signed = sheet.changes or any(bool((row.maps < 0).any()) for row in rows)
    name = "difference" if sheet.changes else "activation"
    draw_scale(
        canvas,
        layout.scale_at,
        layout.scale_height,
        top,
        sheet.opacity,
        signed,
        name=name,
        colouring=colouring,
    )
    return canvas.pixels()


def colouring_of(changes: bool) -> Colouring:
    return difference_colour if changes else heat_colour


def behind_heat(picture: Tensor | None, size: tuple[int, int]) -> Tensor:
    """What lies under heat of a size (height, width): the dimmed picture, or nearly black."""
    return torch.full((*size, 3), EMPTY) if picture is None else backdrop(resized(picture, *size))


def check_request(features: Sequence[int], opacity: float, columns: int = 1) -> None:
    """Raise RevelioError for what no figure can be drawn of."""
    if not features:
        raise RevelioError("There is no feature to draw; give at least one feature number.")
    if columns < 1:
        raise RevelioError(f"The figure was asked for {columns} columns; give 1 or more.")
    if not 0.0 <= opacity <= 1.0:
        raise RevelioError(f"The opacity is {opacity}; give a number from 0 to 1.")


def _label_width(rows: Sequence[Row], changes: bool) -> int:
    narrowest, widest = _LABEL_ROOM
    wanted = [width(f"#{row.feature}", _FEATURE) for row in rows]
    wanted += [width(row.name, _LABEL) for row in rows]
    wanted += [width(line, NOTE) for row in rows for line in row.lines(changes)]
    return min(max(narrowest, *wanted), widest)


def _draw_heads(canvas: Canvas, layout: FigureLayout, heads: Sequence[tuple[str, str]]) -> None:
    for column, (head, under) in enumerate(heads):
        x = layout.column_middle(column)
        single = 0 if under else line_height(HEAD)
        canvas.text(head, (x, layout.heads_top + single), HEAD, TEXT, anchor="ma")
        canvas.text(under, (x, layout.heads_top + line_height(HEAD)), NOTE, QUIET_TEXT, anchor="ma")


def _draw_label(canvas: Canvas, layout: FigureLayout, index: int, row: Row, changes: bool) -> None:
    """The row's label, its block of lines centred beside the cells."""
    room = layout.cells_left - MARGIN - GAP
    block = [(f"#{row.feature}", _FEATURE, TEXT)]
    if row.name:
        block.append((row.name, _LABEL, ACCENT))
    block += [(line, NOTE, QUIET_TEXT) for line in row.lines(changes) if line]
    y = layout.row_top(index) + (layout.room[0] - sum(line_height(face) for _, face, _ in block)) // 2
    for text, face, colour in block:
        canvas.text(fitted(text, face, room), (MARGIN, y), face, colour)
        y += line_height(face)
