"""Draw word maps: a figure, masks and a table for the words of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..analysis.edge_filter import follow_edges
from ..analysis.word_maps import (
    content_words,
    late_layer_frames,
    masks_above,
    mean_shares,
    resized_maps,
    word_heat,
    word_positions,
)
from ..errors import RevelioError
from ..trace import WordFrame, WordTrace
from .canvas import NOTE
from .colours import ACCENT, QUIET_TEXT
from .grid import grid
from .heat import Scale, backdrop, heat_cells, resize_image
from .heat_rows import Head, HeatFigure, HeatRow, cell_size, check_settings, evenly_spread
from .input_images import checked_image
from .lettering import font
from .names import ROLE_NAMES, hook_point_name
from .table import table

View = Literal["whole run", "by step", "by layer"]
VIEWS: tuple[View, ...] = get_args(View)
MOST = 32
"""Maximum number of words in a figure."""
BLUR = 1.5
"""Blur radius for the maps, in cells of their grid."""
_WORD = font(17, bold=True)
_LARGEST = 512  # longest side of a map in the view of the whole run, in pixels
_HOW = (
    "Each map is scaled to its own peak: it shows where the model attended to the word. The percentage is "
    "the peak of the mean over steps and layers."
)


@dataclass(frozen=True)
class WordMapOptions:
    """Settings of `word_maps`: which part of a run to show, and how."""

    view: View = "whole run"
    step: int | None = None
    """The step to use, from 0; None uses all steps."""
    layers: str = ""
    """Names of the layers to use, separated by commas; if empty, the later half of the layers."""
    columns: int = 8
    """Maximum number of steps or layers in the figure."""
    role: str = "cond"
    """Role of the prompt: "cond", "uncond"..."""
    item: int = 0
    """Index of the image in the batch, from 0."""
    opacity: float = 0.9
    """Opacity of the hottest heat, 0..1."""
    threshold: float = 0.0
    """0 for soft masks; above 0, a word's mask is 1 where its map reaches this share of its peak, else 0."""
    edges: bool = True
    """Make the masks, and the heat in the view "whole run", follow the edges of the image."""


class WordMaps(NamedTuple):
    """The result of `word_maps`."""

    figure: Tensor
    """[height, width, 3] in 0..1."""
    masks: Tensor
    """[words, H, W] in 0..1; soft masks are relative to the peak of each word."""
    table: str


@dataclass(frozen=True)
class _Word:
    """A word or phrase, with its attention map and positions."""

    text: str
    shares: Tensor
    """The attention that the word received: [h, w], mean over steps and layers."""
    positions: list[int]
    """The positions of its words in the prompt."""

    @property
    def note(self) -> str:
        return f"up to {self.shares.max():.1%}"


def word_maps(
    trace: WordTrace,
    show: str = "",
    options: WordMapOptions = WordMapOptions(),
    *,
    image: Tensor | None = None,
    size: tuple[int, int],
) -> WordMaps:
    """Draw where the image attended to the words of a prompt.

    show: words or phrases, separated by commas; if empty, all content words. The figure shows the first MOST
    of them; masks and table include all. image: [H, W, 3 or 4] in 0..1, the finished image, or None.
    size: height and width of the masks.
    """
    if options.view not in VIEWS:
        raise RevelioError(f"Unknown view {options.view!r}; choose one of {', '.join(VIEWS)}.")
    image = None if image is None else checked_image(image)
    layers = _parts(options.layers)
    frames = trace.select(options.role, step=options.step, layers=layers or None)
    chosen = frames if layers else late_layer_frames(frames)
    prompt = trace.words[options.role]
    shares = mean_shares(chosen, options.item)
    words = []
    for text in _parts(show) or content_words(prompt):
        positions = word_positions(prompt, text)
        words.append(_Word(text, shares[positions].sum(0), positions))
    check_settings(words, "word", options.opacity, options.columns)
    heat = word_heat(chosen, options.item, [word.positions for word in words])
    masks = resized_maps(heat, *size).clamp(max=1.0)
    if follows := options.edges and image is not None:
        cell = max(side / count for side, count in zip(size, heat.shape[1:], strict=True))
        masks = follow_edges(masks, resize_image(image, *size), BLUR * cell)
    title = _title(trace, options, len(words))
    if options.view == "whole run":
        figure = _whole_run(words[:MOST], masks if follows else heat, image, options.opacity, title)
    else:
        parts = _by_step(chosen) if options.view == "by step" else _by_layer(frames)
        grid_size = (heat.shape[1], heat.shape[2])
        figure = _by_part(words[:MOST], parts, grid_size, image, options, title)
    hard = masks_above(masks, options.threshold) if options.threshold > 0 else masks
    return WordMaps(figure, hard, _table(words, masks))


def _parts(names: str) -> list[str]:
    return [part.strip() for part in names.split(",") if part.strip()]


def _title(trace: WordTrace, options: WordMapOptions, count: int) -> str:
    title = f"Word maps · {ROLE_NAMES.get(options.role, options.role)}"
    if trace.batch_size > 1:
        title += f" · image {options.item + 1} of {trace.batch_size}"
    return title if count <= MOST else f"{title} · the first {MOST} of {count} words"


def _whole_run(
    words: Sequence[_Word], maps: Tensor, image: Tensor | None, opacity: float, title: str
) -> Tensor:
    """Draw the image, then each word's map over the image: [height, width, 3]. maps: [words, h, w]."""
    height, breadth = maps.shape[1:] if image is None else image.shape[:2]
    scale = _LARGEST / max(height, breadth)
    if image is None or scale < 1:
        height, breadth = max(1, round(height * scale)), max(1, round(breadth * scale))
    behind = backdrop(image, (height, breadth))
    cells = [] if image is None else [resize_image(image, height, breadth)]
    labels = [] if image is None else ["the image"]
    cells += heat_cells(maps[: len(words)], behind, Scale(1.0, opacity))
    labels += [f"{word.text} · {word.note}" for word in words]
    return grid(cells, labels, title=f"{title} · share of attention at the peak")


def _by_part(
    words: Sequence[_Word],
    parts: list[tuple[Head, list[WordFrame]]],
    size: tuple[int, int],
    image: Tensor | None,
    options: WordMapOptions,
    title: str,
) -> Tensor:
    """Draw a row for each word and a column for each part (step or layer) of the run: [height, width, 3]."""
    parts = [parts[index] for index in evenly_spread(len(parts), options.columns)]
    positions = [word.positions for word in words]
    heats = [resized_maps(word_heat(part, options.item, positions), *size) for _, part in parts]
    figure = HeatFigure(
        title=title,
        notes=[_HOW],
        images=[] if image is None else [("the image", image)],
        heads=[head for head, _ in parts],
        behind=image,
        cell=cell_size(size, image),
        scale=Scale(1.0, options.opacity, name="heat"),
    )
    labels = ([(word.text, _WORD, ACCENT), (word.note, NOTE, QUIET_TEXT)] for word in words)
    return figure.draw([HeatRow(*row) for row in zip(labels, torch.stack(heats, 1), strict=True)])


def _by_step(frames: Sequence[WordFrame]) -> list[tuple[Head, list[WordFrame]]]:
    found: dict[int, list[WordFrame]] = {}
    for frame in sorted(frames, key=lambda frame: frame.step):
        found.setdefault(frame.step, []).append(frame)
    return [((f"step {step + 1}", f"σ {part[0].sigma:.3g}"), part) for step, part in found.items()]


def _by_layer(frames: Sequence[WordFrame]) -> list[tuple[Head, list[WordFrame]]]:
    found: dict[str, list[WordFrame]] = {}
    for frame in frames:
        found.setdefault(frame.layer, []).append(frame)
    heads = []
    for layer, part in found.items():
        short = hook_point_name(layer).partition(" (")[0]
        heads.append((layer, short if short != layer else " x ".join(str(side) for side in part[0].grid)))
    return list(zip(heads, found.values(), strict=True))


def _table(words: Sequence[_Word], masks: Tensor) -> str:
    """List the words with the attention they received and the share of the image that their masks cover."""
    lines = []
    for word, mask in zip(words, masks, strict=True):
        covered = masks_above(mask[None], 0.5).mean()
        shares = word.shares
        lines.append((word.text, f"{shares.max():.1%}", f"{shares.mean():.1%}", f"{covered:.0%}"))
    head = ("word", "attention at its peak", "on average", "image above half of the peak")
    return table(head, lines, numbers_from=1)
