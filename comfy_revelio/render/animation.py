"""The maps of features over the denoising steps as moving pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.grids import resize_maps
from ..trace import Frame, Reading
from .canvas import Canvas, checked_image, to_pillow
from .colour_scale import SCALE_WIDTH, draw_scale
from .colours import ACCENT, FRAME, QUIET_TEXT, TEXT
from .feature_rows import Row, behind_heat, check_request, read_row
from .figure_layout import GAP, MARGIN, NOTE, cell_size
from .lettering import fitted, font, line_height, number, width
from .names import facts, feature_name, place_name
from .overlay import overlay

MOST_PANELS = 6
_ACROSS = 3
_LARGEST = (512, 288)  # longest side of a panel: alone, and beside others
_LOWEST = 72  # the words of a prompt lie in one row, beside which the scale still needs room
_HEAD = font(19, bold=True)
_NAME = font(14, bold=True)


def feature_animation(
    reading: Reading, features: Sequence[int], *, image: Tensor | None = None, opacity: float = 0.9
) -> Tensor:
    """One picture for each recorded step, [steps, height, width, 3] float32 in 0..1.

    features: a panel each, up to 6, the first ones. image: [H, W, 3], the finished picture under the heat.
    All panels and steps share one colour scale. Heights and widths are even, as video formats ask.
    Raises RevelioError as `feature_maps` does.
    """
    check_request(features, opacity)
    rows = [read_row(reading, feature) for feature in features[:MOST_PANELS]]
    frames = reading.steps
    picture = None if image is None else checked_image(image)
    size = None if picture is None else (picture.shape[0], picture.shape[1])
    cell = cell_size(frames[0].grid, size, _LARGEST[len(rows) > 1])
    top = max(abs(row.peak) for row in rows)
    sheet, corners = _sheet(reading, rows, cell, top, opacity)
    behind = behind_heat(picture, cell)
    out = []
    for index, taken in enumerate(frames):
        canvas = sheet.copy()
        _draw_step(canvas, taken, reading.trace.total_steps)
        heats = resize_maps(torch.stack([row.maps[index] for row in rows]), cell) / (top or 1.0)
        for pixels, corner in zip(overlay(behind, heats, opacity), corners, strict=True):
            canvas.picture(pixels, corner, framed=True)
        out.append(canvas.pixels())
    return torch.stack(out)


def held(frames: Tensor, fps: float, hold: float) -> Tensor:
    """The frames [n, H, W, 3] with the last one repeated, so that it stays for `hold` seconds more.

    Raises RevelioError as `save_webp` does.
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

    fps: frames a second. hold: seconds that the last one stays longer. loop: endless, else once.
    notes: EXIF tag -> text. Raises RevelioError for a rate that is not above 0 and for a time to hold below
    0, OSError when writing fails.
    """
    _check_times(fps, hold)
    pictures = [to_pillow(frame) for frame in frames]
    durations = [round(1000 / fps)] * len(pictures)
    durations[-1] += round(1000 * hold)
    exif = pictures[0].getexif()
    exif.update(notes)
    pictures[0].save(
        path,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0 if loop else 1,
        quality=90,
        method=4,
        exif=exif,
    )


def _check_times(fps: float, hold: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise RevelioError(f"An animation of {fps} frames a second cannot be shown; give a number above 0.")
    if not (math.isfinite(hold) and hold >= 0):
        raise RevelioError(f"The last step cannot be held for {hold} seconds; give a number from 0.")


def _sheet(
    reading: Reading, rows: Sequence[Row], cell: tuple[int, int], top: float, opacity: float
) -> tuple[Canvas, list[tuple[int, int]]]:
    """What all pictures share: names, scale, what was read; and the panels' top left corners."""
    across = len(rows) if len(rows) <= _ACROSS else math.ceil(len(rows) / math.ceil(len(rows) / _ACROSS))
    down = math.ceil(len(rows) / across)
    tall = max(cell[0], _LOWEST)
    high, wide = tall + line_height(_NAME) + 6, max(cell[1], 150)
    head = MARGIN + line_height(_HEAD) + 14
    line = " · ".join([place_name(reading.hook_point), *facts(reading)])
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
    signed = any(bool((row.maps < 0).any()) for row in rows)
    draw_scale(canvas, at, min(tall - line_height(NOTE) - 8, 300), top, opacity, signed)
    bottom = (MARGIN, size[1] - MARGIN - line_height(NOTE) + 8)
    canvas.text(fitted(line, NOTE, room), bottom, NOTE, QUIET_TEXT)
    return canvas, corners


def _draw_step(canvas: Canvas, taken: Frame, total_steps: int) -> None:
    """The step, its noise level, and a bar that fills from the first step to the last."""
    breadth = canvas.width - 2 * MARGIN
    words = f"step {taken.step + 1}/{total_steps}"
    canvas.text(words, (MARGIN, MARGIN - 6), _HEAD, TEXT)
    canvas.text(f"σ {number(taken.sigma)}", (MARGIN + width(words, _HEAD) + 16, MARGIN - 2), NOTE, QUIET_TEXT)
    y = MARGIN + line_height(_HEAD)
    done = (taken.step + 1) / max(1, total_steps)
    canvas.path([(MARGIN, y), (MARGIN + breadth, y)], FRAME, 3)
    canvas.path([(MARGIN, y), (MARGIN + breadth * min(1.0, done), y)], ACCENT, 3)
