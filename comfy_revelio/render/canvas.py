"""Between tensors and Pillow, and the few drawing steps that all figures share."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import RevelioError
from .colours import BACKGROUND, FRAME, RGB
from .lettering import Font, line_height


class Canvas:
    """A dark sheet of a fixed size that takes pictures and lines of text. Points are (x, y) in pixels."""

    def __init__(self, size: tuple[int, int]):
        self._sheet = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self._sheet)

    def picture(self, pixels: Tensor, at: tuple[int, int], *, framed: bool = False) -> None:
        """Paste [H, W, 3] in 0..1 with its top left corner at a point."""
        self._sheet.paste(_to_pillow(pixels), at)
        if framed:
            height, width = pixels.shape[:2]
            box = (at[0] - 1, at[1] - 1, at[0] + width, at[1] + height)
            self._draw.rectangle(box, outline=FRAME)

    def text(self, text: str, at: tuple[float, float], face: Font, colour: RGB, anchor: str = "la") -> None:
        """One line; `anchor` in Pillow's two letters (la: left ascender, ma: middle, lm: left middle)."""
        self._draw.text(at, text, font=face, fill=colour, anchor=anchor)

    def lines(self, lines: list[str], at: tuple[int, int], face: Font, colour: RGB) -> int:
        """Several lines from a point downwards; returns the y below the last one."""
        for index, line in enumerate(lines):
            self.text(line, (at[0], at[1] + index * line_height(face)), face, colour)
        return at[1] + len(lines) * line_height(face)

    def tick(self, start: tuple[int, int], length: int, colour: RGB) -> None:
        """A short horizontal stroke."""
        self._draw.line((*start, start[0] + length, start[1]), fill=colour)

    def path(self, points: list[tuple[float, float]], colour: RGB, width: int = 2) -> None:
        """A line through points; nothing for fewer than two."""
        if len(points) > 1:
            self._draw.line(points, fill=colour, width=width, joint="curve")

    def pixels(self) -> Tensor:
        """The finished sheet: [H, W, 3] float32 in 0..1."""
        return torch.from_numpy(np.array(self._sheet, dtype=np.float32)) / 255


def save_jpeg(pixels: Tensor, path: str | os.PathLike[str]) -> None:
    """Write [H, W, 3] in 0..1 as a JPEG; OSError when that fails."""
    _to_pillow(pixels).save(path, quality=88)


def checked_image(image: Tensor, what: str = "image") -> Tensor:
    """An image as float32 [H, W, 3] on the CPU in 0..1; an alpha channel and a batch of one are dropped."""
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise RevelioError(
            f"The {what} has the shape {list(image.shape)}; give one of the shape [height, width, 3]."
        )
    return torch.nan_to_num(image[..., :3].detach().float().cpu()).clamp(0.0, 1.0)


def _to_pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.clamp(0.0, 1.0) * 255).round().to(torch.uint8).contiguous().numpy())
