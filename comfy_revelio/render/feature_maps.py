"""Draw where features fire, as heat over the finished image in one of five views, or as masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.resize_maps import resize_maps
from ..trace import Reading
from .canvas import NOTE, Canvas, titled_canvas
from .colours import ACCENT, QUIET_TEXT, RGB, TEXT, difference_colour
from .grid import grid
from .heat import SCALE_WIDTH, Scale, backdrop, draw_scale, heat_cells
from .heat_rows import LONGEST_CELL, Head, HeatFigure, HeatRow, cell_size, check_settings, evenly_spread
from .input_images import checked_image
from .lettering import Font, font, line_height, number, width
from .names import facts, feature_name, hook_point_name

View = Literal["per step", "overlay", "side by side", "mean", "difference"]
VIEWS: tuple[View, ...] = get_args(View)
_FEATURE = font(17, bold=True)
_LABEL = font(14, bold=True)
_LARGE_CELL = 288  # longest side of an image in the side-by-side view
_BARE = 512  # longest side of an overlay without an image
_MOST_ACROSS = 4  # maximum number of maps per row in the mean view
_NARROWEST_PLATE = 256  # nothing is written on images narrower than this
_FINISHED = "finished image"
_HOW = "The brighter a spot, the more strongly the feature fires there, on average over all steps."
_HOW_PER_STEP = (
    "The brighter a spot, the more strongly the feature fires there at that step; where it is silent, {}."
)
_HOW_DIFFERENCE = (
    "Orange: the feature fires more there in the second run. Blue: it fires less. Clear: no difference."
)


@dataclass(frozen=True)
class FeatureRow:
    """One feature in a figure."""

    feature: int
    name: str
    """The dictionary's label, or ""."""
    maps: Tensor
    """[recorded steps, h, w] float32."""

    @property
    def peak(self) -> float:
        """The value farthest from 0 over all recorded steps."""
        values = self.maps.flatten()
        return float(values[values.abs().argmax()])

    @property
    def mean(self) -> Tensor:
        """The mean map over the recorded steps: [h, w]."""
        return self.maps.mean(0)


def read_rows(reading: Reading, features: Sequence[int], second: Reading | None = None) -> list[FeatureRow]:
    """Read the features' maps; if there is a second run, return its maps minus those of the first run."""
    rows = []
    for feature in features:
        maps = reading.maps(feature)
        maps = maps if second is None else second.maps(feature) - maps
        rows.append(FeatureRow(feature, reading.note.label(feature), maps))
    return rows


def scale_of(rows: Sequence[FeatureRow], opacity: float) -> Scale:
    """Return one scale for all rows; it extends to the value farthest from 0 in any row."""
    signed = any(bool((row.maps < 0).any()) for row in rows)
    return Scale(max(abs(row.peak) for row in rows), opacity, signed)


def feature_maps(
    reading: Reading,
    features: Sequence[int],
    view: View = "per step",
    *,
    image: Tensor | None = None,
    second: Reading | None = None,
    second_image: Tensor | None = None,
    columns: int = 8,
    opacity: float = 0.9,
) -> Tensor:
    """Draw where features fire, in one of the VIEWS: images [n, height, width, 3] float32 in 0..1.

    per step: one figure with a row for each feature and a column for each step. overlay: an image for each
    feature, as large as `image`, with the mean map over the steps as heat. side by side: one figure with the
    image next to each mean map. mean: one figure with only the mean maps. difference: one figure that shows
    how much more a feature fires in the `second` run than in the first.

    features: feature numbers, in the order of the rows. image, second_image: [H, W, 3 or 4] in 0..1, the
    finished images of the two runs; None draws the maps alone. Maps have the aspect of the recorded grid.
    columns: maximum number of steps shown, spread evenly from the first to the last recorded step.
    opacity: opacity of the hottest heat, 0..1; where a feature is silent, heat is transparent. All features
    share one colour scale up to the highest value of any; but in overlays, each feature has its own scale.
    """
    if view not in VIEWS:
        raise RevelioError(f"Unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
    check_settings(features, "feature", opacity, columns)
    if view == "difference" and second is None:
        raise RevelioError("A difference needs two runs; connect the trace of the second run.")
    image = None if image is None else checked_image(image)
    rows = read_rows(reading, features, second if view == "difference" else None)
    match view:
        case "overlay":
            return _overlays(reading, rows, image, opacity)
        case "mean":
            return _means(reading, rows, image, opacity)[None]
        case "side by side":
            return _side_by_side(reading, rows, image, opacity)[None]
        case "per step":
            return _per_step(reading, rows, image, columns, opacity)[None]
        case "difference":
            beside = None if second_image is None else checked_image(second_image)
            return _difference(reading, rows, (image, beside), columns, opacity)[None]


def feature_masks(
    reading: Reading,
    features: Sequence[int],
    *,
    size: tuple[int, int] | None = None,
    second: Reading | None = None,
) -> Tensor:
    """Return masks that show where features fire: [features, height, width] float32 in 0..1.

    A mask is the absolute value of the mean map over the steps, resized and divided by its highest value.
    With a second run, the mean maps of the two runs are subtracted first. A silent feature has an empty mask.
    size: height and width in pixels; None takes the size of an overlay without an image.
    """
    means = torch.stack([row.mean for row in read_rows(reading, features, second)]).abs()
    spread = resize_maps(means, size or cell_size(reading.steps[0].grid, None, _BARE))
    return spread / spread.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def _per_step(
    reading: Reading, rows: list[FeatureRow], image: Tensor | None, columns: int, opacity: float
) -> Tensor:
    shown, heads = _columns(reading, columns)
    note = reading.note
    counts = [f"{len(rows)} of {note.n_features:,} features", f"at most {note.k} active per token"]
    silent = "nothing is drawn" if image is None else "the finished image shows"
    notes = [" · ".join([*counts, *facts(reading)]), _HOW_PER_STEP.format(silent)]
    figure = _figure(reading, notes, {_FINISHED: image}, heads, scale_of(rows, opacity))
    return figure.draw([HeatRow(_label(row, "peak ", reading), row.maps[shown]) for row in rows])


def _side_by_side(reading: Reading, rows: list[FeatureRow], image: Tensor | None, opacity: float) -> Tensor:
    means = [replace(row, maps=row.mean[None]) for row in rows]
    notes, scale = _notes_of_means(reading, rows), scale_of(means, opacity)
    figure = _figure(reading, notes, {_FINISHED: image}, [("mean of all steps", "")], scale, _LARGE_CELL)
    return figure.draw([HeatRow(_label(row, "up to "), row.maps) for row in means])


def _difference(
    reading: Reading,
    rows: list[FeatureRow],
    images: tuple[Tensor | None, Tensor | None],
    columns: int,
    opacity: float,
) -> Tensor:
    """Draw the difference view. rows: second run minus first. images: those of the first and second run."""
    shown, heads = _columns(reading, columns)
    counts = f"{len(rows)} of {reading.note.n_features:,} features"
    scale = Scale(scale_of(rows, opacity).top, opacity, True, "difference", difference_colour)
    notes = [" · ".join([counts, *facts(reading)]), _HOW_DIFFERENCE]
    named = dict(zip(("first", "second"), images, strict=True))
    figure = _figure(reading, notes, named, [("all steps", "mean"), *heads], scale)
    figure = replace(figure, title=f"What the second run changes · {hook_point_name(reading.hook_point)}")
    labels = (_label(row, "most +" if row.peak > 0 else "most ", reading, "no change") for row in rows)
    heats = (torch.cat([row.mean[None], row.maps[shown]]) for row in rows)
    return figure.draw([HeatRow(*row) for row in zip(labels, heats, strict=True)])


def _figure(
    reading: Reading,
    notes: list[str],
    images: Mapping[str, Tensor | None],
    heads: Sequence[Head],
    scale: Scale,
    most: int = LONGEST_CELL,
) -> HeatFigure:
    """Return a figure without rows. images: {head: image or None}; maps are drawn over the first image."""
    shown = [(head, image) for head, image in images.items() if image is not None]
    behind = shown[0][1] if shown else None
    cell = cell_size(reading.steps[0].grid, behind, most)
    return HeatFigure(_title(reading), notes, shown, heads, behind, cell, scale)


def _columns(reading: Reading, columns: int) -> tuple[list[int], list[Head]]:
    """Choose which recorded steps to show; return their indices and the heads above their columns."""
    steps, total = reading.steps, reading.trace.total_steps
    shown = evenly_spread(len(steps), columns)
    return shown, [(f"step {steps[i].step + 1}/{total}", f"σ {number(steps[i].sigma)}") for i in shown]


def _overlays(reading: Reading, rows: list[FeatureRow], image: Tensor | None, opacity: float) -> Tensor:
    """Draw an overlay for each feature, with a caption if there is room: [features, H, W, 3]."""
    cell = cell_size(reading.steps[0].grid, None, _BARE)
    behind = backdrop(image, cell if image is None else (image.shape[0], image.shape[1]))
    overlays = []
    for row in rows:
        top = float(row.mean.abs().max())
        (pixels,) = heat_cells(row.mean[None], behind, Scale(top, opacity))
        words = f"mean of {len(row.maps)} steps, brightest {number(top)}" if top else "silent"
        overlays.append(_with_plate(pixels, feature_name(row.feature, row.name), words))
    return torch.stack(overlays)


def _with_plate(pixels: Tensor, name: str, words: str) -> Tensor:
    """Write two pieces of text at the lower edge of an image, unless the image is too small for them."""
    height, breadth = pixels.shape[:2]
    size = max(13, round(breadth / 42))
    bold, plain = font(size, bold=True), font(size)
    line = line_height(plain)
    fits = width(name, bold) + size + width(words, plain) + 2 * size <= breadth
    lines = [(name, words)] if fits else [(name, ""), ("", words)]
    if breadth < _NARROWEST_PLATE or height < 4 * line * len(lines):
        return pixels
    canvas = Canvas((breadth, height))
    canvas.image(pixels, (0, 0))
    top = height - len(lines) * line - size // 2
    canvas.image(pixels[top:] * 0.25, (0, top))
    for index, (left, right) in enumerate(lines):
        y = top + size // 4 + index * line
        canvas.text(left, (size, y), bold, TEXT)
        canvas.text(right, (size + (width(left, bold) + size if left else 0), y), plain, TEXT)
    return canvas.pixels()


def _means(reading: Reading, rows: list[FeatureRow], image: Tensor | None, opacity: float) -> Tensor:
    """Draw a grid of overlays with captions, next to one colour scale."""
    scale = scale_of([replace(row, maps=row.mean[None]) for row in rows], opacity)
    behind = backdrop(image, cell_size(reading.steps[0].grid, image))
    cells = heat_cells(torch.stack([row.mean for row in rows]), behind, scale)
    captions = [
        f"{feature_name(row.feature, row.name)} · up to {number(float(row.mean.abs().max()))}" for row in rows
    ]
    across = math.ceil(len(rows) / math.ceil(len(rows) / _MOST_ACROSS))
    block = grid(list(cells), captions, columns=across)
    height, breadth = block.shape[:2]
    notes = _notes_of_means(reading, rows)
    canvas, top = titled_canvas(_title(reading), notes, max(breadth + SCALE_WIDTH, 420), height)
    canvas.image(block, (0, top))
    draw_scale(canvas, (breadth, top + 40), min(340, height - 80), scale)
    return canvas.pixels()


def _title(reading: Reading) -> str:
    return f"Feature maps · {hook_point_name(reading.hook_point)}"


def _notes_of_means(reading: Reading, rows: list[FeatureRow]) -> list[str]:
    return [" · ".join([f"mean of {len(rows[0].maps)} steps", *facts(reading)]), _HOW]


def _label(
    row: FeatureRow, peak: str, reading: Reading | None = None, silent: str = "silent"
) -> list[tuple[str, Font, RGB]]:
    """Return the lines of a row's label: number, name, peak and, if a reading is given, the peak's step."""
    lines = [silent if row.peak == 0 else peak + number(row.peak)]
    if reading is not None and row.peak != 0:
        hottest = int(row.maps.abs().flatten(1).amax(1).argmax())
        lines.append(f"at step {reading.steps[hottest].step + 1}")
    named = [(row.name, _LABEL, ACCENT)] if row.name else []
    return [(f"#{row.feature}", _FEATURE, TEXT), *named, *((line, NOTE, QUIET_TEXT) for line in lines)]
