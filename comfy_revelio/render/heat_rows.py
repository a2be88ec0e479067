"""Figures with rows of heat: labels on the left, heads above the columns, one colour scale on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..errors import RevelioError
from .canvas import BOLD_NOTE, GAP, MARGIN, NOTE, Canvas, titled_canvas
from .colours import QUIET_TEXT, RGB, TEXT
from .heat import SCALE_WIDTH, Scale, backdrop, draw_scale, heat_cells, resize_image
from .lettering import Font, fitted, line_height, width

_LABEL_ROOM = (84, 190)  # least and greatest width of the row labels, in pixels
_LABEL_GAP = 14  # between the row labels and the cells
_SCALE_GAP = 22  # between the cells and the colour scale
_NARROWEST = 560  # least width of a figure, so that the text above the cells has enough room
_TALLEST_SCALE = 340
LONGEST_CELL = 160
"""Default for the longest side of a cell, in pixels."""
_NATURAL = 128  # images whose longest side is from this to LONGEST_CELL are shown pixel by pixel
_SMALLEST = 96  # least height and width reserved for a cell; smaller maps are centred in this space

Head = tuple[str, str]
"""The two lines of text above a column."""


class HeatRow(NamedTuple):
    """One row of a figure."""

    label: list[tuple[str, Font, RGB]]
    """Lines of text to the left of the cells, with their font and colour."""
    maps: Tensor
    """The values of the cells: [columns, h, w] at the size of the recorded grid."""


@dataclass(frozen=True)
class HeatFigure:
    """A figure with rows of heat: everything except the rows themselves."""

    title: str
    notes: Sequence[str]
    """Sentences under the title."""
    images: Sequence[tuple[str, Tensor]]
    """(head, image [h, w, 3]) for each image that every row shows without heat, in its first columns."""
    heads: Sequence[Head]
    """The heads of the columns of heat."""
    behind: Tensor | None
    """The image under the heat, [h, w, 3]; None draws the maps alone."""
    cell: tuple[int, int]
    """Height and width of a cell in pixels."""
    scale: Scale

    def draw(self, rows: Sequence[HeatRow]) -> Tensor:
        """Draw the figure with these rows: [height, width, 3] float32 in 0..1."""
        heads = [*((head, "") for head, _ in self.images), *self.heads]
        room_h = max(_SMALLEST, self.cell[0])
        room_w = max(
            _SMALLEST, self.cell[1], max(width(line, BOLD_NOTE) for head in heads for line in head) + 4
        )
        texts = (width(text, face) for row in rows for text, face, _ in row.label)
        label_w = min(max(_LABEL_ROOM[0], *texts), _LABEL_ROOM[1])
        left = MARGIN + label_w + _LABEL_GAP
        right = left + len(heads) * (room_w + GAP) - GAP + _SCALE_GAP
        rows_h, heads_h = len(rows) * (room_h + GAP) - GAP, 18 + 2 * line_height(BOLD_NOTE) + 4
        sheet_w = max(right + SCALE_WIDTH + MARGIN, _NARROWEST)
        canvas, heads_top = titled_canvas(self.title, self.notes, sheet_w, heads_h + rows_h + MARGIN)
        middles = [left + column * (room_w + GAP) + room_w // 2 for column in range(len(heads))]
        for head, x in zip(heads, middles, strict=True):
            _draw_head(canvas, head, (x, heads_top + 18))
        behind = backdrop(self.behind, self.cell)
        images = [resize_image(image, *self.cell) for _, image in self.images]
        for index, row in enumerate(rows):
            top = heads_top + heads_h + index * (room_h + GAP)
            _draw_label(canvas, row, top, room_h, label_w + _LABEL_GAP - GAP)
            for x, pixels in zip(middles, [*images, *heat_cells(row.maps, behind, self.scale)], strict=True):
                at = (x - self.cell[1] // 2, top + (room_h - self.cell[0]) // 2)
                canvas.image(pixels, at, framed=True)
        draw_scale(canvas, (right, heads_top + heads_h), min(rows_h, _TALLEST_SCALE), self.scale)
        return canvas.pixels()


def _draw_head(canvas: Canvas, head: Head, at: tuple[int, int]) -> None:
    """Draw the two lines of a head, centred at a point; a single line is drawn directly above the cells."""
    (x, y), line = at, line_height(BOLD_NOTE)
    canvas.text(head[0], (x, y if head[1] else y + line), BOLD_NOTE, TEXT, anchor="ma")
    canvas.text(head[1], (x, y + line), NOTE, QUIET_TEXT, anchor="ma")


def _draw_label(canvas: Canvas, row: HeatRow, top: int, height: int, room: int) -> None:
    y = top + (height - sum(line_height(face) for _, face, _ in row.label)) // 2
    for text, face, colour in row.label:
        canvas.text(fitted(text, face, room), (MARGIN, y), face, colour)
        y += line_height(face)


def cell_size(grid: Sequence[int], image: Tensor | None, most: int = LONGEST_CELL) -> tuple[int, int]:
    """Return height and width of a cell in pixels, in the aspect of the recorded grid (..., height, width).

    The cell's longest side is `most`. But if the longest side of the image [H, W, 3] is from 128 to `most`,
    the cell's longest side is the largest multiple of the image's that is not above `most`.

    >>> cell_size((8, 4), None)
    (160, 80)
    """
    height, width = grid[-2:]
    natural = 0 if image is None else max(image.shape[:2])
    longest = natural * (most // natural) if _NATURAL <= natural <= most else most
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` indices of 0..count-1, spread evenly from first to last; if only one, the last.

    >>> evenly_spread(20, 4)
    [0, 6, 13, 19]
    """
    wanted = min(wanted, count)
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def check_settings(rows: Sequence[object], what: str, opacity: float, columns: int = 1) -> None:
    """Raise RevelioError if the settings do not allow a figure. what: a row's name, "feature" or "word"."""
    if not rows:
        raise RevelioError(f"There is no {what} to draw; give at least one {what}.")
    if columns < 1:
        raise RevelioError(f"The number of columns is {columns}; give 1 or more.")
    if not 0.0 <= opacity <= 1.0:
        raise RevelioError(f"The opacity is {opacity}; give a number from 0 to 1.")
