"""Where the parts of the feature map figure lie. Pure geometry, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

from .colour_scale import SCALE_WIDTH
from .lettering import font, line_height, wrapped

MARGIN = 22
GAP = 6
_LABEL_GAP = 14  # between the row labels and the cells
_SCALE_GAP = 22  # between the cells and the colour scale
_NARROWEST = 560  # width below which the text above the cells gets too little room
_TALLEST_SCALE = 340
_LONGEST = 160  # longest side of a cell
_NATURAL = 128  # pictures whose longest side lies between this and _LONGEST are shown pixel by pixel
_SMALLEST = 96  # smallest room for a cell; a very narrow map stands in the middle of it

TITLE = font(21, bold=True)
NOTE = font(13)
HEAD = font(13, bold=True)


@dataclass(frozen=True)
class FigureLayout:
    """Everything the figure needs to know to draw its parts; see `plan`."""

    size: tuple[int, int]  # width, height of the sheet
    title: list[str]  # lines that fit
    notes: list[str]  # lines that fit
    cell: tuple[int, int]  # height, width of the picture in each cell
    room: tuple[int, int]  # height, width kept for a cell
    cells_left: int
    heads_top: int
    rows_top: int
    scale_at: tuple[int, int]
    scale_height: int

    def row_top(self, row: int) -> int:
        return self.rows_top + row * (self.room[0] + GAP)

    def column_middle(self, column: int) -> int:
        return self.cells_left + column * (self.room[1] + GAP) + self.room[1] // 2

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Top left corner (x, y) of a cell's picture, centred in its room."""
        height, width = self.cell
        return self.column_middle(column) - width // 2, self.row_top(row) + (self.room[0] - height) // 2


def plan(
    *,
    title: str,
    notes: list[str],
    rows: int,
    columns: int,
    cell: tuple[int, int],
    label_width: int,
    head_width: int,
) -> FigureLayout:
    """Places rows x columns of cells (height, width), the labels left, the heads above, the scale right."""
    room = (max(_SMALLEST, cell[0]), max(_SMALLEST, cell[1], head_width + 4))
    cells_left = MARGIN + label_width + _LABEL_GAP
    scale_left = cells_left + columns * (room[1] + GAP) - GAP + _SCALE_GAP
    sheet_width = max(scale_left + SCALE_WIDTH + MARGIN, _NARROWEST)
    text_width = sheet_width - 2 * MARGIN
    title_lines = wrapped(title, TITLE, text_width)
    note_lines = [line for note in notes for line in wrapped(note, NOTE, text_width)]

    heads_top = MARGIN + len(title_lines) * line_height(TITLE) + len(note_lines) * line_height(NOTE) + 18
    rows_top = heads_top + 2 * line_height(HEAD) + 4
    rows_height = rows * (room[0] + GAP) - GAP
    return FigureLayout(
        size=(sheet_width, rows_top + rows_height + MARGIN),
        title=title_lines,
        notes=note_lines,
        cell=cell,
        room=room,
        cells_left=cells_left,
        heads_top=heads_top,
        rows_top=rows_top,
        scale_at=(scale_left, rows_top),
        scale_height=min(rows_height, _TALLEST_SCALE),
    )


def cell_size(
    grid: tuple[int, ...], picture: tuple[int, int] | None, most: int = _LONGEST
) -> tuple[int, int]:
    """Height and width of a cell: the recorded grid's aspect, at a whole multiple of the picture's own size
    where that fits into `most` pixels and is no less than 128."""
    height, width = grid[-2:]
    natural = max(picture) if picture else 0
    longest = natural * (most // natural) if _NATURAL <= natural <= most else most
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
