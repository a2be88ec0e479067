"""Word maps as a user wants them: a figure, masks and a table of the words of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
from .canvas import checked_image
from .feature_maps import evenly_spread
from .names import ROLE_NAMES, place_name
from .overlay import resized
from .table import table
from .word_figure import WordRow, word_overlays, word_table_figure

VIEWS = ("whole run", "by step", "by layer")
MOST = 32
"""Words in a figure."""
BLUR = 1.5
"""How far a map on a coarse grid is blurred, in cells."""


class WordMaps(NamedTuple):
    figure: Tensor
    """[height, width, 3] in 0..1."""
    masks: Tensor
    """[words, H, W] in 0..1, each word's own peak is 1."""
    table: str


def word_maps(
    trace: WordTrace,
    show: str = "",
    *,
    view: str = "whole run",
    step: int | None = None,
    layers: str = "",
    columns: int = 8,
    role: str = "cond",
    item: int = 0,
    opacity: float = 0.9,
    threshold: float = 0.0,
    edges: bool = True,
    image: Tensor | None = None,
    size: tuple[int, int],
) -> WordMaps:
    """Where the picture attended to words of the prompt of `role`.

    show: words or phrases separated by commas, empty for all that name something. step, layers (names
    separated by commas): what to take; no layers are the later half. columns: most steps or layers in the
    figure, which has MOST words at most; masks and table have all. threshold: 0 for soft masks, else the
    share of the peak from which on a mask is 1. edges: masks, and the heat of the whole run, follow the edges
    of `image`, [H, W, 3] in 0..1. size: height and width of the masks. Raises RevelioError for what the run
    does not hold and for settings out of range.
    """
    if view not in VIEWS:
        raise RevelioError(f"Unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
    if columns < 1:
        raise RevelioError(f"The figure was asked for {columns} columns; give 1 or more.")
    image = None if image is None else checked_image(image)
    drawn = slice(0, MOST)
    named = [part.strip() for part in layers.split(",") if part.strip()]
    frames = trace.select(role, step=step, layers=named or None)
    said = trace.words[role]
    words = [part.strip() for part in show.split(",") if part.strip()] or list(content_words(said))
    rows = [word_positions(said, word) for word in words]
    chosen = frames if named else late_layer_frames(frames)
    heat = word_heat(chosen, item, rows)
    masks = resized_maps(heat, *size).clamp(max=1.0)
    if edges and image is not None:
        cell = max(side / count for side, count in zip(size, heat.shape[1:], strict=True))
        masks = follow_edges(masks, resized(image, *size), BLUR * cell)
    shares = mean_shares(chosen, item)
    attention = [shares[list(row)].sum(0) for row in rows]
    notes = [f"up to {got.max():.1%}" for got in attention]
    title = f"Word maps · {_whose(trace, role, item)}"
    if len(words) > MOST:
        title += f" · the first {MOST} of {len(words)} words"
    if view == "whole run":
        shown = masks if edges and image is not None else heat
        own = [
            WordRow(w, n, h[None]) for w, n, h in zip(words[drawn], notes[drawn], shown[drawn], strict=True)
        ]
        figure = word_overlays(
            own, image=image, opacity=opacity, title=f"{title} · most attention of any place"
        )
    else:
        parts = _by_step(chosen) if view == "by step" else _by_layer(frames)
        parts = [parts[index] for index in evenly_spread(len(parts), columns)]
        height, width = heat.shape[1:]
        heats = [resized_maps(word_heat(part, item, rows[drawn]), height, width) for _, part in parts]
        maps = torch.stack(heats, 1)
        own = [WordRow(w, n, m) for w, n, m in zip(words[drawn], notes[drawn], maps, strict=True)]
        reading = (
            "Each map is scaled to its own peak: it says where a word was looked up. The percentage is the "
            "highest mean over steps and layers."
        )
        figure = word_table_figure(
            own, [head for head, _ in parts], image=image, opacity=opacity, title=title, notes=[reading]
        )
    told = _table(words, attention, masks)
    return WordMaps(figure, masks_above(masks, threshold) if threshold > 0 else masks, told)


def _whose(trace: WordTrace, role: str, item: int) -> str:
    which = f" · picture {item + 1} of {trace.batch_size}" if trace.batch_size > 1 else ""
    return ROLE_NAMES.get(role, role) + which


def _by_step(frames: Sequence[WordFrame]) -> list[tuple[tuple[str, str], list[WordFrame]]]:
    steps = sorted({frame.step for frame in frames})
    found = []
    for step in steps:
        part = [frame for frame in frames if frame.step == step]
        found.append(((f"step {step + 1}", f"σ {part[0].sigma:.3g}"), part))
    return found


def _by_layer(frames: Sequence[WordFrame]) -> list[tuple[tuple[str, str], list[WordFrame]]]:
    found = []
    for layer in dict.fromkeys(frame.layer for frame in frames):
        part = [frame for frame in frames if frame.layer == layer]
        short = place_name(layer).partition(" (")[0]
        sides = " x ".join(str(side) for side in part[0].grid)
        found.append(((layer, short if short != layer else sides), part))
    return found


def _table(words: Sequence[str], attention: Sequence[Tensor], masks: Tensor) -> str:
    """Each word with the attention it got and how much of the picture its mask covers."""
    lines = []
    for word, got, own in zip(words, attention, masks, strict=True):
        covered = masks_above(own[None], 0.5).mean()
        lines.append((word, f"{got.max():.1%}", f"{got.mean():.1%}", f"{covered:.0%}"))
    head = ("word", "attention at its peak", "on average", "picture above half of the peak")
    return table(head, lines, numbers_from=1)
