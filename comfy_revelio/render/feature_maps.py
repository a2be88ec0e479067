"""The feature map figure: rows of features, columns of denoising steps, heat over the finished picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RevelioError
from ..steering import Selection
from .canvas import Canvas, checked_image
from .colours import ACCENT, QUIET_TEXT, TEXT
from .layout import GAP, HEAD, MARGIN, NOTE, TITLE, Layout, cell_size, plan
from .lettering import fitted, font, line_height, number, width
from .overlay import backdrop, overlay, resized, stretched
from .scale import draw_scale

if TYPE_CHECKING:
    from ..trace import Trace

_EMPTY = 0.12  # brightness behind the maps when there is no picture
_FEATURE = font(17, bold=True)
_LABEL = font(14, bold=True)
_LABEL_ROOM = (84, 190)  # narrowest and widest column of row labels, in pixels
_PICTURE_HEAD = "finished image"
_PLACES = (
    (r"middle_block\.\d+", "middle block"),
    (r"input_blocks\.(\d+)\.\d+", "down block {}"),
    (r"output_blocks\.(\d+)\.\d+", "up block {}"),
    (r"(?:joint|double|double_stream)_(?:blocks|layers)\.(\d+)", "double block {}, image"),
    (r"(?:joint|double|double_stream)_(?:blocks|layers)\.(\d+)\.txt", "double block {}, text"),
    (r"single_(?:stream_)?(?:blocks|layers)\.(\d+)", "single block {}, image"),
    (r"single_(?:stream_)?(?:blocks|layers)\.(\d+)\.txt", "single block {}, text"),
    (r"(?:transformer_blocks|blocks|layers)\.(\d+)", "block {}"),
)
_ROLES = {"cond": "positive prompt", "uncond": "negative prompt"}


def feature_maps(
    trace: Trace,
    features: Sequence[int] | Selection,
    *,
    hook_point: str,
    image: Tensor | None = None,
    columns: int = 8,
    role: str = "cond",
    item: int = 0,
    opacity: float = 0.9,
    frame: int | None = None,
) -> Tensor:
    """Where features fire at each denoising step, laid over the finished picture.

    features: one row each, in this order. image: [H, W, 3] in 0..1, the picture of this batch item, drawn in
    the aspect of the recorded grid; None draws the bare maps. columns: number of steps shown, spread evenly
    over the recorded ones, always with the first and the last. opacity: of the hottest heat, 0..1; heat
    fades to clear where a feature is silent. frame: of a video; None shows each place at its strongest
    frame. All rows share one colour scale, which is drawn beside them and goes from 0 to their highest value
    at any recorded step.

    Returns [height, width, 3] float32 in 0..1. Raises RevelioError for no features, no columns, an opacity
    outside 0..1, and for what the trace does not hold (hook point, role, item, feature).
    """
    numbers = list(features.features if isinstance(features, Selection) else features)
    _check(numbers, columns, opacity)
    rows = [_read_row(trace, hook_point, feature, item, role, frame) for feature in numbers]
    frames = trace.steps(hook_point, role)
    shown = evenly_spread(len(frames), columns)
    picture = None if image is None else checked_image(image)
    cell = cell_size(frames[0].grid, None if picture is None else (picture.shape[0], picture.shape[1]))
    first = 0 if picture is None else 1  # column of the first step
    steps = [frames[i] for i in shown]
    heads = [(f"step {taken.step + 1}/{trace.total_steps}", f"σ {number(taken.sigma)}") for taken in steps]
    layout = plan(
        title=f"Feature maps · {place_name(hook_point)}",
        notes=_notes(trace, hook_point, role, item, frame, len(rows), picture is not None),
        rows=len(rows),
        columns=first + len(shown),
        cell=cell,
        label_width=_label_width(rows),
        head_width=max(width(head, HEAD) for head in [*(h for h, _ in heads), _PICTURE_HEAD * first]),
    )

    canvas = Canvas(layout.size)
    below = canvas.lines(layout.title, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(layout.notes, (MARGIN, below + 2), NOTE, QUIET_TEXT)
    _draw_heads(canvas, layout, [(_PICTURE_HEAD, "")] * first + heads)
    top = max(abs(row.peak) for row in rows)
    behind = torch.full((*cell, 3), _EMPTY)
    if picture is not None:
        picture = resized(picture, *cell)
        behind = backdrop(picture)
    for index, row in enumerate(rows):
        _draw_label(canvas, layout, index, row)
        if picture is not None:
            canvas.picture(picture, layout.corner(index, 0), framed=True)
        heat = stretched(row.maps[shown], *cell) / (top or 1.0)
        for column, pixels in enumerate(overlay(behind, heat, opacity), start=first):
            canvas.picture(pixels, layout.corner(index, column), framed=True)
    signed = any(bool((row.maps < 0).any()) for row in rows)
    draw_scale(canvas, layout.scale_at, layout.scale_height, top, opacity, signed)
    return canvas.pixels()


def place_name(hook_point: str) -> str:
    """A hook point for people, with its own name behind: "middle block (middle_block.1)"."""
    for pattern, words in _PLACES:
        if match := re.fullmatch(pattern, hook_point):
            return f"{words.format(*match.groups())} ({hook_point})"
    return hook_point


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices of 0..count-1, evenly spread from first to last; one alone is the last."""
    wanted = min(wanted, count)
    if wanted == 1:
        return [count - 1]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


@dataclass(frozen=True)
class _Row:
    feature: int
    name: str  # what the dictionary calls it, or ""
    maps: Tensor  # [recorded steps, h, w] float32
    peak: float  # value farthest from 0 over all recorded steps
    peak_step: int  # the step that holds it, from 0

    @property
    def lines(self) -> tuple[str, str]:
        """The quiet lines under the feature's number and name."""
        if self.peak == 0:
            return "silent", ""
        return f"peak {number(self.peak)}", f"at step {self.peak_step + 1}"


def _read_row(trace: Trace, hook_point: str, feature: int, item: int, role: str, frame: int | None) -> _Row:
    maps = trace.feature_map(hook_point, feature, item=item, role=role, frame=frame).float().cpu()
    heights = maps.abs().flatten(1).amax(1)
    hottest = int(heights.argmax())
    values = maps[hottest].flatten()
    peak = float(values[values.abs().argmax()])
    name = trace.dictionaries[hook_point].label(feature)
    return _Row(feature, name, maps, peak, trace.steps(hook_point, role)[hottest].step)


def _check(features: list[int], columns: int, opacity: float) -> None:
    if not features:
        raise RevelioError("There is no feature to draw; give at least one feature number.")
    if columns < 1:
        raise RevelioError(f"The figure was asked for {columns} columns; give 1 or more.")
    if not 0.0 <= opacity <= 1.0:
        raise RevelioError(f"The opacity is {opacity}; give a number from 0 to 1.")


def _notes(
    trace: Trace, hook_point: str, role: str, item: int, frame: int | None, shown: int, over_picture: bool
) -> list[str]:
    """Two sentences under the title: what was recorded, and how to read the picture."""
    note = trace.dictionaries[hook_point]
    facts = [f"{shown} of {note.n_features:,} features", f"at most {note.k} active per token"]
    kind = _ROLES.get(role.rstrip("0123456789"), "")
    facts.append(f"{kind} ({role})" if kind else role)
    if trace.batch_size > 1:
        facts.append(f"image {item + 1} of {trace.batch_size}")
    if (count := trace.video_frames(hook_point)) > 1:
        facts.append(f"strongest of {count} frames" if frame is None else f"frame {frame + 1} of {count}")
    reading = "The brighter a place, the stronger the feature fires there at that step; where it is silent, "
    reading += "the finished image shows." if over_picture else "nothing is drawn."
    return [" · ".join(facts), reading]


def _label_width(rows: Sequence[_Row]) -> int:
    narrowest, widest = _LABEL_ROOM
    wanted = [width(f"#{row.feature}", _FEATURE) for row in rows]
    wanted += [width(row.name, _LABEL) for row in rows]
    wanted += [width(line, NOTE) for row in rows for line in row.lines]
    return min(max(narrowest, *wanted), widest)


def _draw_heads(canvas: Canvas, layout: Layout, heads: Sequence[tuple[str, str]]) -> None:
    for column, (head, under) in enumerate(heads):
        x = layout.column_middle(column)
        single = 0 if under else line_height(HEAD)
        canvas.text(head, (x, layout.heads_top + single), HEAD, TEXT, anchor="ma")
        canvas.text(under, (x, layout.heads_top + line_height(HEAD)), NOTE, QUIET_TEXT, anchor="ma")


def _draw_label(canvas: Canvas, layout: Layout, index: int, row: _Row) -> None:
    """The row's label, its block of lines centred beside the cells."""
    room = layout.cells_left - MARGIN - GAP
    block = [(f"#{row.feature}", _FEATURE, TEXT)]
    if row.name:
        block.append((row.name, _LABEL, ACCENT))
    block += [(line, NOTE, QUIET_TEXT) for line in row.lines if line]
    y = layout.row_top(index) + (layout.room[0] - sum(line_height(face) for _, face, _ in block)) // 2
    for text, face, colour in block:
        canvas.text(fitted(text, face, room), (MARGIN, y), face, colour)
        y += line_height(face)
