"""Word maps (DAAM, arXiv 2210.04885): where in the image the model attended to each word of the prompt.

share is a layer's attention to all words of a phrase (attention_shares.py), resized to the finest grid and
averaged over the layer's calls; sd and mean are taken over the image:

    map  = sum over layers of (sd(share) / mean(share)) share
    heat = (map - min(map)) / (max(map) - min(map))

DAAM weights all layers equally. Here layers are weighted by their contrast, because a layer whose attention
to a word is equal everywhere shows nothing. With these weights, the maps found the parts of the bundled
model's images better (docs/word-maps.md).

Shapes: V words of the prompt, R words or phrases to draw, H height and W width of the finest grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.resize_maps import resize_maps
from ..trace import WordFrame
from .prompt_labels import FUNCTION_WORDS


def content_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words that can name something visible, in order and without repetitions.

    >>> content_words(["a", "red", "hat", "and", "a", "red", "scarf"])
    ('red', 'hat', 'scarf')
    """
    return tuple(dict.fromkeys(word for word in words if word not in FUNCTION_WORDS))


def word_positions(words: Sequence[str], wanted: str) -> list[int]:
    """Return the positions of all occurrences of a word or phrase among the words of a prompt.

    Only letters and digits are compared, so that words such as t-shirt, blue_hair and 1girl are found even if
    the tokenizer splits them.

    >>> word_positions(["blue", "hair", "a", "t", "-", "shirt"], "t-shirt")
    [3, 4, 5]
    """
    spelled = _spelled(wanted)
    found: list[int] = []
    for start in range(len(words)):
        end, joined = start, ""
        while end < len(words) and len(joined) < len(spelled):
            joined += _spelled(words[end])
            end += 1
        if spelled and joined == spelled and _spelled(words[start]):
            found += range(start, end)
    if not found:
        named = ", ".join(content_words(words)) or "none"
        raise RevelioError(f"{wanted!r} is not in the prompt; choose from its words: {named}.")
    return found


def _spelled(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


@torch.no_grad()
def mean_shares(frames: Sequence[WordFrame], item: int) -> Tensor:
    """Return the attention to each word, averaged over frames: float32 [V, H, W] on the frames' finest grid.

    Coarser grids are resized bicubically, as in DAAM.

    >>> calls = torch.tensor([[[[0.25, 0.5]]], [[[0.75, 0.5]]]])
    >>> frames = [WordFrame("up", 0, 0, 1.0, "cond", (1, 2), 256 * shares) for shares in calls]
    >>> mean_shares(frames, item=0).tolist()
    [[[0.5, 0.5]]]
    """
    count = max(frame.batch_size for frame in frames)
    if not 0 <= item < count:
        raise RevelioError(f"There is no image {item} in this run; choose from 0 to {count - 1}.")
    finest = max((frame.grid for frame in frames), key=lambda grid: grid[0] * grid[1])
    by_grid: dict[tuple[int, ...], list[Tensor]] = {}
    for frame in frames:
        by_grid.setdefault(frame.grid, []).append(frame.maps(item))
    total = torch.zeros(())
    for maps in by_grid.values():
        total = total + resized_maps(torch.stack(maps).sum(0), *finest)
    return total / len(frames)


def resized_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize maps [n, h, w] bicubically and set negative values to 0: float32 [n, height, width].

    >>> resized_maps(torch.tensor([[[0.0, 128.0]]]), 1, 4).tolist()
    [[[0.0, 29.0, 99.0, 141.5]]]
    """
    return resize_maps(maps, (height, width), mode="bicubic").clamp(min=0.0)


def late_layer_frames(frames: Sequence[WordFrame]) -> list[WordFrame]:
    """Return the frames of the later half of the layers, in the order in which the model computes them.

    The attention in the first half of a UNet hardly shows where things are. The second half alone found the
    parts of the bundled model's images better than all layers or any single layer did (docs/word-maps.md).

    >>> share = torch.ones(1, 1, 1)
    >>> frames = [WordFrame(layer, 0, 0, 1.0, "cond", (1, 1), share) for layer in ("down", "up")]
    >>> [frame.layer for frame in late_layer_frames(frames)]
    ['up']
    """
    layers = list(dict.fromkeys(frame.layer for frame in frames))
    late = set(layers[len(layers) // 2 :])
    return [frame for frame in frames if frame.layer in late]


@torch.no_grad()
def word_heat(frames: Sequence[WordFrame], item: int, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the heat of words or phrases: float32 [R, H, W] in 0..1, on the finest grid among the frames.

    rows: for each word or phrase, the positions of its words. A map that is the same everywhere becomes 0.

    >>> shares = torch.tensor([[[0.125, 0.25], [0.375, 0.25]]])
    >>> frame = WordFrame("up", 0, 0, 1.0, "cond", (1, 2), 256 * shares)
    >>> word_heat([frame], 0, [[0], [1], [0, 1]]).tolist()  # both words together are the same everywhere
    [[[0.0, 1.0]], [[1.0, 0.0]], [[0.0, 0.0]]]
    """
    finest = max((frame.grid for frame in frames), key=lambda grid: grid[0] * grid[1])
    total_RHW = torch.zeros(())
    for layer in dict.fromkeys(frame.layer for frame in frames):
        shares_VHW = mean_shares([frame for frame in frames if frame.layer == layer], item)
        # The attention to a phrase is the sum of the attention to its words.
        maps_RHW = resized_maps(torch.stack([shares_VHW[list(row)].sum(0) for row in rows]), *finest)
        contrast_R = maps_RHW.std((1, 2), correction=0) / maps_RHW.mean((1, 2)).clamp(min=1e-12)
        total_RHW = total_RHW + maps_RHW * contrast_R[:, None, None]
    return scaled(total_RHW)


def scaled(maps: Tensor) -> Tensor:
    """Scale each of the maps [n, h, w] so that its lowest value is 0 and its highest 1.

    >>> scaled(torch.tensor([[[1.0, 2.0, 5.0]]])).tolist()
    [[[0.0, 0.25, 1.0]]]
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def masks_above(maps: Tensor, threshold: float) -> Tensor:
    """Return masks of 0 and 1 for maps [n, h, w]: 1 where a map reaches `threshold` times its peak.

    >>> masks_above(torch.tensor([[[1.0, 2.0, 5.0]]]), 0.4).tolist()
    [[[0.0, 1.0, 1.0]]]
    """
    return (maps >= threshold * maps.amax((1, 2), keepdim=True)).float()
