"""Animate feature maps over the denoising steps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from ..trace import Frame, Reading
from .canvas import GAP, MARGIN, NOTE, Canvas, to_pillow
from .colours import ACCENT, FRAME, QUIET_TEXT, TEXT
from .feature_maps import FeatureRow, read_rows, scale_of
from .heat import SCALE_WIDTH, Scale, backdrop, draw_scale, heat_cells
from .heat_rows import cell_size, check_settings
from .input_images import checked_image
from .lettering import fitted, font, line_height, number, width
from .names import facts, feature_name, hook_point_name

MOST_PANELS = 6
_ACROSS = 3
_LARGEST = (512, 288)  # longest side of a single panel, and of each of several panels
_LOWEST = 72  # least height of a panel: a prompt's map has a single row, too low for the colour scale
_HEAD = font(19, bold=True)
_NAME = font(14, bold=True)


def feature_animation(
    reading: Reading, features: Sequence[int], *, image: Tensor | None = None, opacity: float = 0.9
) -> Tensor:
    """Draw one image for each recorded step: [steps, height, width, 3] float32 in 0..1.

    features: each of the first 6 gets a panel. image: [H, W, 3], the finished image, drawn under the heat.
    All panels and steps share one colour scale. Height and width are even, as video formats require.
    """
    check_settings(features, "feature", opacity)
    rows = read_rows(reading, features[:MOST_PANELS])
    image = None if image is None else checked_image(image)
    cell = cell_size(reading.steps[0].grid, image, _LARGEST[len(rows) > 1])
    scale = scale_of(rows, opacity)
    sheet, corners = _sheet(reading, rows, cell, scale)
    behind = backdrop(image, cell)
    images = []
    for index, frame in enumerate(reading.steps):
        canvas = sheet.copy()
        _draw_step(canvas, frame, reading.trace.total_steps)
        cells = heat_cells(torch.stack([row.maps[index] for row in rows]), behind, scale)
        for pixels, corner in zip(cells, corners, strict=True):
            canvas.image(pixels, corner, framed=True)
        images.append(canvas.pixels())
    return torch.stack(images)


def held(frames: Tensor, fps: float, hold: float) -> Tensor:
    """Return the frames [n, H, W, 3], with the last one repeated so that it stays `hold` seconds longer.

    fps: frames per second.

    >>> held(torch.zeros(3, 4, 4, 3), fps=4, hold=1.5).shape[0]
    9
    """
    _check_times(fps, hold)
    return torch.cat([frames, frames[-1:].expand(round(hold * fps), -1, -1, -1)])


def save_webp(
    frames: Tensor,
    path: str | os.PathLike[str],
    *,
    fps: float,
    hold: float,
    loop: bool,
    notes: dict[int, str],
) -> None:
    """Write frames [n, H, W, 3] in 0..1 as an animated WebP.

    fps: frames per second. hold: extra seconds for which the last frame is shown. loop: whether to play
    endlessly, or once. notes: EXIF tag -> text.
    """
    _check_times(fps, hold)
    images = [to_pillow(frame) for frame in frames]
    durations = [round(1000 / fps)] * len(images)
    durations[-1] += round(1000 * hold)
    exif = images[0].getexif()
    exif.update(notes)
    images[0].save(
        path,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0 if loop else 1,
        quality=90,
        method=4,
        exif=exif,
    )


def _check_times(fps: float, hold: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise RevelioError(f"An animation cannot run at {fps} frames per second; give a number above 0.")
    if not (math.isfinite(hold) and hold >= 0):
        raise RevelioError(f"The last step cannot be held for {hold} seconds; give a number from 0.")


def _sheet(
    reading: Reading, rows: Sequence[FeatureRow], cell: tuple[int, int], scale: Scale
) -> tuple[Canvas, list[tuple[int, int]]]:
    """Draw what all steps share (names, colour scale, footer); return (canvas, panels' top left corners)."""
    across = len(rows) if len(rows) <= _ACROSS else math.ceil(len(rows) / math.ceil(len(rows) / _ACROSS))
    down = math.ceil(len(rows) / across)
    tall = max(cell[0], _LOWEST)
    high, wide = tall + line_height(_NAME) + 6, max(cell[1], 150)
    head = MARGIN + line_height(_HEAD) + 14
    line = " · ".join([hook_point_name(reading.hook_point), *facts(reading)])
    room = max(across * (wide + GAP) + 16 + SCALE_WIDTH, 380)
    size = (2 * MARGIN + room, head + down * (high + GAP) + line_height(NOTE) + MARGIN)
    canvas = Canvas((size[0] + size[0] % 2, size[1] + size[1] % 2))
    corners = []
    for index, row in enumerate(rows):
        x, y = MARGIN + index % across * (wide + GAP), head + index // across * (high + GAP)
        corners.append((x + (wide - cell[1]) // 2, y))
        name = fitted(feature_name(row.feature, row.name), _NAME, wide)
        canvas.text(name, (x + wide // 2, y + cell[0] + 5), _NAME, TEXT, anchor="ma")
    at = (MARGIN + across * (wide + GAP) + 16, head + line_height(NOTE) + 4)
    draw_scale(canvas, at, min(tall - line_height(NOTE) - 8, 300), scale)
    bottom = (MARGIN, size[1] - MARGIN - line_height(NOTE) + 8)
    canvas.text(fitted(line, NOTE, room), bottom, NOTE, QUIET_TEXT)
    return canvas, corners


def _draw_step(canvas: Canvas, frame: Frame, total_steps: int) -> None:
    """Draw the step number, its noise level, and a progress bar."""
    breadth = canvas.width - 2 * MARGIN
    words = f"step {frame.step + 1}/{total_steps}"
    canvas.text(words, (MARGIN, MARGIN - 6), _HEAD, TEXT)
    canvas.text(f"σ {number(frame.sigma)}", (MARGIN + width(words, _HEAD) + 16, MARGIN - 2), NOTE, QUIET_TEXT)
    y = MARGIN + line_height(_HEAD)
    done = (frame.step + 1) / max(1, total_steps)
    canvas.path([(MARGIN, y), (MARGIN + breadth, y)], FRAME, 3)
    canvas.path([(MARGIN, y), (MARGIN + breadth * min(1.0, done), y)], ACCENT, 3)
