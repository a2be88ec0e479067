"""Draw images, text and lines on the sheet of a figure, and convert tensors to Pillow images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .colours import BACKGROUND, FRAME, QUIET_TEXT, RGB, TEXT
from .lettering import Font, font, line_height, wrapped

MARGIN = 22
GAP = 6
TITLE = font(21, bold=True)
NOTE = font(13)
BOLD_NOTE = font(13, bold=True)


Point = tuple[float, float]
"""(x, y) in pixels."""


class Canvas:
    """A dark sheet of fixed size on which images, text and lines are drawn."""

    def __init__(self, size: tuple[int, int]):
        self._sheet = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self._sheet)

    @property
    def width(self) -> int:
        return self._sheet.width

    def image(self, pixels: Tensor, at: tuple[int, int], *, framed: bool = False) -> None:
        """Paste an image [H, W, 3] in 0..1 with its top left corner at a point."""
        self._sheet.paste(to_pillow(pixels), at)
        if framed:
            height, width = pixels.shape[:2]
            box = (at[0] - 1, at[1] - 1, at[0] + width, at[1] + height)
            self._draw.rectangle(box, outline=FRAME)

    def text(self, text: str, at: Point, face: Font, colour: RGB, anchor: str = "la") -> None:
        """Draw one line of text. anchor: Pillow's code (la: top left, ma: top centre, lm: middle left...)."""
        self._draw.text(at, text, font=face, fill=colour, anchor=anchor)

    def lines(self, lines: list[str], at: tuple[int, int], face: Font, colour: RGB) -> int:
        """Draw lines of text below each other, the first at a point; return the y below the last line."""
        for index, line in enumerate(lines):
            self.text(line, (at[0], at[1] + index * line_height(face)), face, colour)
        return at[1] + len(lines) * line_height(face)

    def path(self, points: list[Point], colour: RGB, width: int = 2) -> None:
        """Draw a line through points; do nothing if there are fewer than two."""
        if len(points) > 1:
            self._draw.line(points, fill=colour, width=width, joint="curve")

    @contextmanager
    def smooth(self, at: tuple[int, int], size: tuple[int, int]) -> Iterator[Pen]:
        """Yield a pen that draws antialiased lines and marks over one part of the sheet."""
        left, top = at
        box = (left, top, left + size[0], top + size[1])
        large = self._sheet.crop(box).resize(
            (size[0] * Pen.FINE, size[1] * Pen.FINE), Image.Resampling.NEAREST
        )
        yield Pen(ImageDraw.Draw(large))
        self._sheet.paste(large.resize(size, Image.Resampling.BOX), at)

    def copy(self) -> Canvas:
        """Return a new sheet with the same content."""
        other = Canvas(self._sheet.size)
        other._sheet.paste(self._sheet)
        return other

    def pixels(self) -> Tensor:
        """Return the finished sheet: [H, W, 3] float32 in 0..1."""
        return torch.from_numpy(np.array(self._sheet, dtype=np.float32)) / 255


class Pen:
    """Draws lines and marks with subpixel precision on a part of a sheet; points are relative to it."""

    FINE = 4  # resolution of the drawing, relative to the sheet

    def __init__(self, draw: ImageDraw.ImageDraw):
        self._draw = draw

    def line(
        self,
        points: list[Point],
        colour: RGB,
        width: float,
        *,
        dash: tuple[float, float] | None = None,
    ) -> None:
        """Draw a line through points. dash: (length of dashes, length of gaps) in pixels, or None."""
        thick = round(width * self.FINE)
        for part in [points] if dash is None else _dashes(points, *dash):
            if len(part) > 1:
                fine = [(x * self.FINE, y * self.FINE) for x, y in part]
                self._draw.line(fine, fill=colour, width=thick, joint="curve")

    def mark(
        self,
        at: Point,
        radius: float,
        colour: RGB,
        *,
        square: bool = False,
        hollow: bool = False,
    ) -> None:
        """Draw a disc or square around a point; a hollow mark is filled with the background colour."""
        x, y, r = at[0] * self.FINE, at[1] * self.FINE, radius * self.FINE
        draw = self._draw.rectangle if square else self._draw.ellipse
        draw(
            (x - r, y - r, x + r, y + r),
            fill=BACKGROUND if hollow else colour,
            outline=colour,
            width=round(1.6 * self.FINE),
        )


def titled_canvas(title: str, notes: Sequence[str], width: int, below: int) -> tuple[Canvas, int]:
    """Return a canvas with a wrapped title and notes at the top, and the y at which its free part begins.

    below: height in pixels of the free part, which is below the notes.
    """
    room = width - 2 * MARGIN
    titles = wrapped(title, TITLE, room)
    lines = [line for note in notes for line in wrapped(note, NOTE, room)]
    top = MARGIN + len(titles) * line_height(TITLE) + len(lines) * line_height(NOTE)
    canvas = Canvas((width, top + below))
    y = canvas.lines(titles, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(lines, (MARGIN, y + 2), NOTE, QUIET_TEXT)
    return canvas, top


def _dashes(points: list[Point], stroke: float, gap: float) -> list[list[Point]]:
    """Return the dashes of a dashed line through points, each as a list of points."""
    parts: list[list[Point]] = [points[:1]]
    left, drawn = stroke, True
    for (x0, y0), (x1, y1) in pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            point = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if drawn:
                parts[-1].append(point)
            else:
                parts.append([point])
            drawn = not drawn
            left = stroke if drawn else gap
        left -= length - done
        if drawn:
            parts[-1].append((x1, y1))
    return parts


def save_jpeg(pixels: Tensor, path: str | os.PathLike[str]) -> None:
    """Write an image [H, W, 3] in 0..1 as a JPEG."""
    to_pillow(pixels).save(path, quality=88)


def to_pillow(pixels: Tensor) -> Image.Image:
    """Convert an image [H, W, 3] in 0..1 to an 8-bit Pillow image."""
    return Image.fromarray((pixels.clamp(0.0, 1.0) * 255).round().to(torch.uint8).contiguous().numpy())
