"""The views of feature maps: per step, overlay, side by side, mean, and the difference of two runs; masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.grids import resize_maps
from ..trace import Reading
from .canvas import Canvas, checked_image
from .colour_scale import SCALE_WIDTH, draw_scale
from .colours import QUIET_TEXT, TEXT
from .feature_maps import evenly_spread, feature_maps, step_heads
from .feature_rows import Row, Sheet, behind_heat, check_request, draw_rows, read_row
from .figure_layout import MARGIN, NOTE, TITLE, cell_size
from .grid import grid
from .lettering import font, line_height, number, width, wrapped
from .names import facts, feature_name, place_name
from .overlay import overlay

VIEWS = ("per step", "overlay", "side by side", "mean", "difference")
_LARGE_CELL = 288  # longest side of a picture that stands beside its map
_BARE = 512  # longest side of an overlay without a picture
_MOST_ACROSS = 4  # maps in a row of the mean view
_NARROWEST_PLATE = 256  # width of a picture below which nothing can be written on it
_HOW = "The brighter a place, the stronger the feature fires there on average over all steps."


def feature_pictures(
    reading: Reading,
    features: Sequence[int],
    view: str = "per step",
    *,
    image: Tensor | None = None,
    second: Reading | None = None,
    second_image: Tensor | None = None,
    columns: int = 8,
    opacity: float = 0.9,
) -> Tensor:
    """Feature maps in one of the VIEWS, as pictures [n, height, width, 3] float32 in 0..1.

    per step: one figure, see `feature_maps`. overlay: one picture per feature, as large as `image`, with the
    mean over the steps as heat, each on a scale of its own. side by side: one figure, the picture beside that
    mean. mean: one figure of the means alone, on one scale. difference: one figure, by how much more a
    feature fires in the `second` run than in this one; only this view looks at `second` and `second_image`.
    columns: steps shown per step and for differences.

    Raises RevelioError for an unknown view, for differences without a second run, and as `feature_maps` does.
    """
    if view not in VIEWS:
        raise RevelioError(f"There is no view {view!r}; choose one of {', '.join(VIEWS)}.")
    check_request(features, opacity, columns)
    picture = None if image is None else checked_image(image)
    if view == "per step":
        return feature_maps(
            reading.trace, features, hook_point=reading.hook_point, image=picture, columns=columns,
            role=reading.role, item=reading.item, opacity=opacity, frame=reading.frame,
        )[None]  # fmt: skip
    if view == "difference":
        if second is None:
            raise RevelioError("A difference needs two runs; connect the trace of the second one.")
        beside = None if second_image is None else checked_image(second_image)
        return _difference(reading, second, features, picture, beside, columns, opacity)[None]
    rows = [read_row(reading, feature) for feature in features]
    if view == "overlay":
        return _overlays(reading, rows, picture, opacity)
    figure = _side_by_side if view == "side by side" else _means
    return figure(reading, rows, picture, opacity)[None]


def feature_masks(
    reading: Reading,
    features: Sequence[int],
    *,
    size: tuple[int, int] | None = None,
    second: Reading | None = None,
) -> Tensor:
    """Where features fire, as masks [features, height, width] float32 in 0..1.

    Each is the mean over the steps, without its sign, spread over `size` pixels (height, width) and divided
    by its highest value; None takes the size of an overlay without a picture. With a second run: where the
    means of the two differ. A feature that is silent has an empty mask.
    """
    means = torch.stack([read_row(reading, feature, second).maps.mean(0) for feature in features]).abs()
    spread = resize_maps(means, size or _bare_size(reading))
    return spread / spread.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def _overlays(reading: Reading, rows: list[Row], picture: Tensor | None, opacity: float) -> Tensor:
    """[features, H, W, 3]: a picture each, with a line that tells what it shows where that has room."""
    size = _bare_size(reading) if picture is None else (picture.shape[0], picture.shape[1])
    behind = behind_heat(picture, size)
    out = []
    for row in rows:
        mean = row.maps.mean(0)
        highest = float(mean.abs().max())
        heat = resize_maps(mean[None], size) / (highest or 1.0)
        words = f"mean of {len(row.maps)} steps, brightest {number(highest)}" if highest else "silent"
        out.append(_with_plate(overlay(behind, heat, opacity)[0], feature_name(row.feature, row.name), words))
    return torch.stack(out)


def _with_plate(pixels: Tensor, name: str, words: str) -> Tensor:
    """A picture with two pieces of text at its lower edge; untouched where it is too small for them."""
    height, breadth = pixels.shape[:2]
    size = max(13, round(breadth / 42))
    bold, plain = font(size, bold=True), font(size)
    line = line_height(plain)
    fits = width(name, bold) + size + width(words, plain) + 2 * size <= breadth
    lines = [(name, words)] if fits else [(name, ""), ("", words)]
    if breadth < _NARROWEST_PLATE or height < 4 * line * len(lines):
        return pixels
    canvas = Canvas((breadth, height))
    canvas.picture(pixels, (0, 0))
    top = height - len(lines) * line - size // 2
    canvas.picture(pixels[top:] * 0.25, (0, top))
    for index, (left, right) in enumerate(lines):
        y = top + size // 4 + index * line
        canvas.text(left, (size, y), bold, TEXT)
        canvas.text(right, (size + (width(left, bold) + size if left else 0), y), plain, TEXT)
    return canvas.pixels()


def _side_by_side(reading: Reading, rows: list[Row], picture: Tensor | None, opacity: float) -> Tensor:
    size = None if picture is None else (picture.shape[0], picture.shape[1])
    sheet = Sheet(
        title=f"Feature maps · {place_name(reading.hook_point)}",
        notes=[" · ".join([f"mean of {len(rows[0].maps)} steps", *facts(reading)]), _HOW],
        plain=[] if picture is None else [("finished image", picture)],
        heads=[("mean of all steps", "")],
        behind=picture,
        cell=cell_size(reading.steps[0].grid, size, _LARGE_CELL),
        opacity=opacity,
    )
    means = [row.maps.mean(0) for row in rows]
    return draw_rows(_of_means(rows, means), [mean[None] for mean in means], sheet)


def _means(reading: Reading, rows: list[Row], picture: Tensor | None, opacity: float) -> Tensor:
    """A block of overlays with captions, and one scale beside it."""
    size = None if picture is None else (picture.shape[0], picture.shape[1])
    cell = cell_size(reading.steps[0].grid, size)
    means = torch.stack([row.maps.mean(0) for row in rows])
    top = float(means.abs().max())
    cells = overlay(behind_heat(picture, cell), resize_maps(means, cell) / (top or 1.0), opacity)
    captions = [
        f"{feature_name(row.feature, row.name)} · up to {number(float(mean.abs().max()))}"
        for row, mean in zip(rows, means, strict=True)
    ]
    across = math.ceil(len(rows) / math.ceil(len(rows) / _MOST_ACROSS))
    block = grid(list(cells), captions, columns=across)
    notes = [" · ".join([f"mean of {len(rows[0].maps)} steps", *facts(reading)]), _HOW]
    room = max(block.shape[1] + SCALE_WIDTH, 420)
    title = wrapped(f"Feature maps · {place_name(reading.hook_point)}", TITLE, room - 2 * MARGIN)
    lines = [line for note in notes for line in wrapped(note, NOTE, room - 2 * MARGIN)]
    above = MARGIN + len(title) * line_height(TITLE) + len(lines) * line_height(NOTE)
    canvas = Canvas((room, above + block.shape[0]))
    below = canvas.lines(title, (MARGIN, MARGIN - 3), TITLE, TEXT)
    canvas.lines(lines, (MARGIN, below + 2), NOTE, QUIET_TEXT)
    canvas.picture(block, (0, above))
    at, high = (block.shape[1], above + 40), min(340, block.shape[0] - 80)
    draw_scale(canvas, at, high, top, opacity, bool((means < 0).any()))
    return canvas.pixels()


def _difference(
    reading: Reading,
    second: Reading,
    features: Sequence[int],
    picture: Tensor | None,
    beside: Tensor | None,
    columns: int,
    opacity: float,
) -> Tensor:
    rows = [read_row(reading, feature, second) for feature in features]
    frames = reading.steps
    shown = evenly_spread(len(frames), columns)
    sheet = Sheet(
        title=f"What the second run changes · {place_name(reading.hook_point)}",
        notes=[
            " · ".join([f"{len(rows)} of {reading.note.n_features:,} features", *facts(reading)]),
            "Orange: the feature fires more there in the second run. Blue: it fires less. Clear: as much.",
        ],
        plain=[(head, one) for head, one in (("first", picture), ("second", beside)) if one is not None],
        heads=[("all steps", "mean"), *step_heads([frames[i] for i in shown], reading.trace.total_steps)],
        behind=picture if picture is not None else beside,
        cell=cell_size(frames[0].grid, None if picture is None else (picture.shape[0], picture.shape[1])),
        opacity=opacity,
        changes=True,
    )
    heats = [torch.cat([row.maps.mean(0, keepdim=True), row.maps[shown]]) for row in rows]
    return draw_rows(rows, heats, sheet)


def _of_means(rows: list[Row], means: list[Tensor]) -> list[Row]:
    """The rows with the mean as their only map, so that labels and scale are those of the means."""
    return [
        Row(row.feature, row.name, mean[None], float(mean.flatten()[mean.abs().argmax()]), None)
        for row, mean in zip(rows, means, strict=True)
    ]


def _bare_size(reading: Reading) -> tuple[int, int]:
    return cell_size(reading.steps[0].grid, None, _BARE)
