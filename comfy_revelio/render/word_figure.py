"""The figures of word maps: heat for each word over the picture, as a whole or by steps or layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.grids import resize_maps
from .canvas import Canvas, checked_image
from .colour_scale import draw_scale
from .colours import ACCENT, QUIET_TEXT, TEXT
from .figure_layout import GAP, HEAD, MARGIN, NOTE, TITLE, cell_size, plan
from .grid import grid
from .lettering import fitted, font, line_height, width
from .overlay import backdrop, overlay, resized

_EMPTY = 0.12  # brightness behind the maps when there is no picture
_WORD = font(17, bold=True)
_LABEL_ROOM = (84, 190)  # narrowest and widest column of words, in pixels
_TALLEST = 512  # pixels of the longest side of an overlay


@dataclass(frozen=True)
class WordRow:
    """One word: what to write above its heat and quietly under it, and its maps [columns, h, w] in 0..1."""

    word: str
    note: str
    maps: Tensor


def word_overlays(rows: Sequence[WordRow], *, image: Tensor | None, opacity: float, title: str) -> Tensor:
    """The picture, then each word's first map over it: [height, width, 3] float32 in 0..1.

    image: [H, W, 3] in 0..1 or None. Raises RevelioError for no word and an opacity outside 0..1.
    """
    _check(rows, opacity)
    picture = None if image is None else checked_image(image)
    height, breadth = _overlay_size(rows[0].maps, picture)
    behind = torch.full((height, breadth, 3), _EMPTY)
    cells, labels = [], []
    if picture is not None:
        picture = resized(picture, height, breadth)
        behind = backdrop(picture)
        cells.append(picture)
        labels.append("the picture")
    for row in rows:
        cells.append(overlay(behind, resize_maps(row.maps[:1], (height, breadth))[0], opacity))
        labels.append(f"{row.word} · {row.note}" if row.note else row.word)
    return grid(cells, labels, title=title)


def word_table_figure(
    rows: Sequence[WordRow],
    heads: Sequence[tuple[str, str]],
    *,
    image: Tensor | None,
    opacity: float,
    title: str,
    notes: list[str],
) -> Tensor:
    """A row for each word and a column for each head (two lines): [height, width, 3] float32 in 0..1.

    image: as in `word_overlays`; it stands in a column of its own. Raises RevelioError as that does.
    """
    _check(rows, opacity)
    picture = None if image is None else checked_image(image)
    cell = cell_size(
        tuple(rows[0].maps.shape[1:]), None if picture is None else (picture.shape[0], picture.shape[1])
    )
    shown = [("the picture", ""), *heads] if picture is not None else list(heads)
    names = [width(row.word, _WORD) for row in rows] + [width(row.note, NOTE) for row in rows]
    layout = plan(
        title=title,
        notes=notes,
        rows=len(rows),
        columns=len(shown),
        cell=cell,
        label_width=min(max(_LABEL_ROOM[0], *names), _LABEL_ROOM[1]),
        head_width=max(width(line, HEAD) for head in shown for line in head),
    )
    canvas = Canvas(layout.size)
    below = canvas.lines(layout.title, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(layout.notes, (MARGIN, below + 2), NOTE, QUIET_TEXT)
    for column, (head, under) in enumerate(shown):
        x, single = layout.column_middle(column), 0 if under else line_height(HEAD)
        canvas.text(head, (x, layout.heads_top + single), HEAD, TEXT, anchor="ma")
        canvas.text(under, (x, layout.heads_top + line_height(HEAD)), NOTE, QUIET_TEXT, anchor="ma")
    behind = torch.full((*cell, 3), _EMPTY)
    if picture is not None:
        picture = resized(picture, *cell)
        behind = backdrop(picture)
    room = layout.cells_left - MARGIN - GAP
    for index, row in enumerate(rows):
        middle = layout.row_top(index) + layout.room[0] // 2
        canvas.text(fitted(row.word, _WORD, room), (MARGIN, middle), _WORD, ACCENT, anchor="ld")
        canvas.text(fitted(row.note, NOTE, room), (MARGIN, middle + 3), NOTE, QUIET_TEXT)
        if picture is not None:
            canvas.picture(picture, layout.corner(index, 0), framed=True)
        heat = resize_maps(row.maps, cell)
        for column, pixels in enumerate(overlay(behind, heat, opacity), start=len(shown) - len(heads)):
            canvas.picture(pixels, layout.corner(index, column), framed=True)
    draw_scale(canvas, layout.scale_at, layout.scale_height, 1.0, opacity, False, name="heat")
    return canvas.pixels()


def _check(rows: Sequence[WordRow], opacity: float) -> None:
    if not rows:
        raise RevelioError("There is no word to draw; name at least one word of the prompt.")
    if not 0.0 <= opacity <= 1.0:
        raise RevelioError(f"The opacity is {opacity}; give a number from 0 to 1.")


def _overlay_size(maps: Tensor, picture: Tensor | None) -> tuple[int, int]:
    """The picture's own size, or the grid's aspect at the tallest."""
    height, breadth = maps.shape[1:] if picture is None else picture.shape[:2]
    scale = _TALLEST / max(height, breadth)
    if picture is not None and scale >= 1:
        return height, breadth
    return max(1, round(height * scale)), max(1, round(breadth * scale))
