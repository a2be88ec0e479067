"""Word maps (DAAM, arXiv 2210.04885): where in the picture each word of the prompt was looked up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.grids import resize_maps
from ..trace import WordFrame
from .prompt_labels import FUNCTION_WORDS


def content_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words that can name something, each once, in their order."""
    return tuple(dict.fromkeys(word for word in words if word not in FUNCTION_WORDS))


def word_positions(words: Sequence[str], wanted: str) -> list[int]:
    """Where a word, or some words in a row, stand among the words of a prompt, all occurrences.

    Only letters and digits are compared, so that t-shirt, blue_hair and 1girl are found, whose words a
    tokenizer takes apart. Raises RevelioError that names the prompt's words when it does not say this.
    """
    spelled = _spelled(wanted)
    found: list[int] = []
    for start in range(len(words)):
        end, said = start, ""
        while end < len(words) and len(said) < len(spelled):
            said += _spelled(words[end])
            end += 1
        if spelled and said == spelled and _spelled(words[start]):
            found += range(start, end)
    if not found:
        named = ", ".join(content_words(words)) or "no words"
        raise RevelioError(f"The prompt does not say {wanted!r}; it says {named}.")
    return found


def _spelled(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


@torch.no_grad()
def mean_shares(frames: Sequence[WordFrame], item: int) -> Tensor:
    """The attention to each word, mean over frames: float32 [words, H, W] on the finest grid among them.

    Coarser grids are spread bicubically, as in DAAM. RevelioError when there is no such item.
    """
    count = max(frame.batch_size for frame in frames)
    if not 0 <= item < count:
        raise RevelioError(f"There is no picture {item} in this run; choose 0 to {count - 1}.")
    finest = max((frame.grid for frame in frames), key=lambda grid: grid[0] * grid[1])
    by_grid: dict[tuple[int, ...], list[Tensor]] = {}
    for frame in frames:
        by_grid.setdefault(frame.grid, []).append(frame.maps(item))
    total = torch.zeros(())
    for maps in by_grid.values():
        total = total + resized_maps(torch.stack(maps).sum(0), *finest)
    return total / len(frames)


def resized_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps [n, h, w] of at least 0 at another size, bicubic, never below 0: [n, height, width]."""
    return resize_maps(maps, (height, width), mode="bicubic").clamp(min=0.0)


def frames_showing(frames: Sequence[WordFrame]) -> list[WordFrame]:
    """The frames of the later half of the layers, in the order in which the model computes them.

    The way down of a UNet looks words up without much regard to place; leaving it out found the parts of the
    bundled model's pictures better than all layers, and than any single one (docs/word-maps.md).
    """
    layers = list(dict.fromkeys(frame.layer for frame in frames))
    late = set(layers[len(layers) // 2 :])
    return [frame for frame in frames if frame.layer in late]


@torch.no_grad()
def word_heat(frames: Sequence[WordFrame], item: int, rows: Sequence[Sequence[int]]) -> Tensor:
    """Heat in 0..1 of some words or phrases: float32 [len(rows), H, W] on the finest grid among the frames.

    rows: the words that belong to each. For each of them a layer counts by its contrast, the standard
    deviation of its mean map over its mean: a layer that looks a word up everywhere alike says nothing about
    its place. This found the parts of the bundled model's pictures better than the plain mean
    (docs/word-maps.md). The least attended place is 0, the most attended one 1; a map that is the same
    everywhere is 0.
    """
    finest = max((frame.grid for frame in frames), key=lambda grid: grid[0] * grid[1])
    total = torch.zeros(())
    for layer in dict.fromkeys(frame.layer for frame in frames):
        shares = mean_shares([frame for frame in frames if frame.layer == layer], item)
        maps = resized_maps(torch.stack([shares[list(row)].sum(0) for row in rows]), *finest)
        contrast = maps.std((1, 2), correction=0) / maps.mean((1, 2)).clamp(min=1e-12)
        total = total + maps * contrast[:, None, None]
    return scaled(total)


def scaled(maps: Tensor) -> Tensor:
    """Maps [n, H, W], each brought to 0..1 from its least to its highest value."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def masks_above(maps: Tensor, threshold: float) -> Tensor:
    """Masks of 0 and 1 of maps [n, H, W]: where each reaches this share of its peak."""
    return (maps >= threshold * maps.amax((1, 2), keepdim=True)).float()
