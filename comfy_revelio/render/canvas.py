"""Between tensors and Pillow, and the few drawing steps that all figures share."""

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
    """A dark sheet of a fixed size that takes images and lines of text."""

    def __init__(self, size: tuple[int, int]):
        self._sheet = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self._sheet)

    @property
    def width(self) -> int:
        return self._sheet.width

    def image(self, pixels: Tensor, at: tuple[int, int], *, framed: bool = False) -> None:
        """Paste [H, W, 3] in 0..1 with its top left corner at a point."""
        self._sheet.paste(to_pillow(pixels), at)
        if framed:
            height, width = pixels.shape[:2]
            box = (at[0] - 1, at[1] - 1, at[0] + width, at[1] + height)
            self._draw.rectangle(box, outline=FRAME)

    def text(self, text: str, at: Point, face: Font, colour: RGB, anchor: str = "la") -> None:
        """One line; `anchor` in Pillow's two letters (la: left ascender, ma: middle, lm: left middle)."""
        self._draw.text(at, text, font=face, fill=colour, anchor=anchor)

    def lines(self, lines: list[str], at: tuple[int, int], face: Font, colour: RGB) -> int:
        """Several lines from a point downwards; returns the y below the last one."""
        for index, line in enumerate(lines):
            self.text(line, (at[0], at[1] + index * line_height(face)), face, colour)
        return at[1] + len(lines) * line_height(face)

    def path(self, points: list[Point], colour: RGB, width: int = 2) -> None:
        """A line through points; nothing for fewer than two."""
        if len(points) > 1:
            self._draw.line(points, fill=colour, width=width, joint="curve")

    @contextmanager
    def smooth(self, at: tuple[int, int], size: tuple[int, int]) -> Iterator[Pen]:
        """A pen for a part of the sheet, which draws without jagged edges over what is there."""
        left, top = at
        box = (left, top, left + size[0], top + size[1])
        large = self._sheet.crop(box).resize(
            (size[0] * Pen.FINE, size[1] * Pen.FINE), Image.Resampling.NEAREST
        )
        yield Pen(ImageDraw.Draw(large))
        self._sheet.paste(large.resize(size, Image.Resampling.BOX), at)

    def copy(self) -> Canvas:
        """A second sheet with the same content."""
        other = Canvas(self._sheet.size)
        other._sheet.paste(self._sheet)
        return other

    def pixels(self) -> Tensor:
        """The finished sheet: [H, W, 3] float32 in 0..1."""
        return torch.from_numpy(np.array(self._sheet, dtype=np.float32)) / 255


class Pen:
    """Lines and marks at fractions of pixels. Points count from the corner of the part it draws in."""

    FINE = 4  # times as fine as the sheet

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
        """A line through points; dash: lengths of stroke and gap in pixels, running on over the corners."""
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
        """A disc or a square around a point; a hollow one shows the sheet's background inside."""
        x, y, r = at[0] * self.FINE, at[1] * self.FINE, radius * self.FINE
        draw = self._draw.rectangle if square else self._draw.ellipse
        draw(
            (x - r, y - r, x + r, y + r),
            fill=BACKGROUND if hollow else colour,
            outline=colour,
            width=round(1.6 * self.FINE),
        )


def titled_canvas(title: str, notes: Sequence[str], width: int, below: int) -> tuple[Canvas, int]:
    """A canvas with a title and notes, broken into lines, and `below` pixels of height under them.

    Returns it with the y at which that part begins.
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
    """The pieces of a line that are drawn when it is dashed."""
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
    """Write [H, W, 3] in 0..1 as a JPEG."""
    to_pillow(pixels).save(path, quality=88)


def to_pillow(pixels: Tensor) -> Image.Image:
    """[H, W, 3] in 0..1 as an image of 8 bits."""
    return Image.fromarray((pixels.clamp(0.0, 1.0) * 255).round().to(torch.uint8).contiguous().numpy())
