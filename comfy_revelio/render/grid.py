"""Draw a grid of images with a caption under each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ..errors import RevelioError
from .canvas import Canvas
from .colours import QUIET_TEXT, TEXT
from .heat import resize_image
from .input_images import checked_image
from .lettering import font, line_height, width, wrapped

_MARGIN = 20
_GAP = 14
_SMALLEST = 160  # images whose longest side is shorter than this (in pixels) are enlarged
_LARGEST = 512  # images whose longest side is longer than this are reduced
_MOST_COLUMNS = 8
_CAPTION_LINES = 3


def grid(
    images: Sequence[Tensor], labels: Sequence[str], *, columns: int | None = None, title: str = ""
) -> Tensor:
    """Draw a labelled grid of images: [H, W, 3] float32 in 0..1.

    images: [H, W, 3 or 4] each, of any sizes; all cells have one size, and every image keeps its aspect.
    labels: one per image. columns: None fills rows of up to 8 images as evenly as possible.
    """
    if not images or len(images) != len(labels):
        raise RevelioError(
            f"The grid got {len(images)} images and {len(labels)} labels; give images and one label for each."
        )
    if columns is not None and columns < 1:
        raise RevelioError(f"The number of columns is {columns}; give 1 or more.")
    tiles = [_sized(checked_image(image)) for image in images]
    cell_w = max(tile.shape[1] for tile in tiles)
    cell_h = max(tile.shape[0] for tile in tiles)
    across = min(columns or _even_columns(len(tiles)), len(tiles))
    rows = math.ceil(len(tiles) / across)

    caption = font(15)
    captions = [_shortened(wrapped(label, caption, cell_w)) for label in labels]
    caption_h = max(len(lines) for lines in captions) * line_height(caption)
    row_h = cell_h + 8 + caption_h

    heading = font(20, bold=True)
    sheet_w = 2 * _MARGIN + across * cell_w + (across - 1) * _GAP
    title_lines = wrapped(title, heading, sheet_w - 2 * _MARGIN)
    top = _MARGIN + (len(title_lines) * line_height(heading) + 10 if title_lines else 0)
    canvas = Canvas((sheet_w, top + rows * row_h + (rows - 1) * _GAP + _MARGIN - 4))
    canvas.lines(title_lines, (_MARGIN, _MARGIN - 2), heading, TEXT)
    for index, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        x = _MARGIN + (index % across) * (cell_w + _GAP)
        y = top + (index // across) * (row_h + _GAP)
        height, breadth = tile.shape[:2]
        canvas.image(tile, (x + (cell_w - breadth) // 2, y + (cell_h - height) // 2), framed=True)
        for number, line in enumerate(lines):
            middle = x + (cell_w - width(line, caption)) // 2
            canvas.text(line, (middle, y + cell_h + 8 + number * line_height(caption)), caption, QUIET_TEXT)
    return canvas.pixels()


def grid_of_batches(
    batches: Sequence[Tensor],
    labels: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str = "",
) -> Tensor:
    """Draw all images of some batches [B, H, W, 3], in order, with `grid`.

    labels: one per image, or one per batch, shared by its images; None numbers the images.
    """
    images = [image for batch in batches for image in batch]
    if labels is None:
        labels = [str(number) for number in range(1, len(images) + 1)]
    elif len(labels) == len(batches) != len(images):
        labels = [label for label, batch in zip(labels, batches, strict=True) for _ in batch]
    return grid(images, labels, columns=columns, title=title)


def _even_columns(count: int) -> int:
    """Return the number of columns, at most 8, that fills the fewest rows evenly: 5 for 10 images."""
    rows = math.ceil(count / _MOST_COLUMNS)
    return math.ceil(count / rows)


def _sized(image: Tensor) -> Tensor:
    longest = max(image.shape[:2])
    # Enlarge by whole factors: other factors would blur the lines of a small image unevenly.
    scale = _LARGEST / longest if longest > _LARGEST else math.ceil(_SMALLEST / longest)
    height, breadth = (max(1, round(side * scale)) for side in image.shape[:2])
    return resize_image(image, height, breadth)


def _shortened(lines: list[str]) -> list[str]:
    kept = lines[:_CAPTION_LINES]
    return kept if kept == lines else [*kept[:-1], kept[-1] + "…"]
