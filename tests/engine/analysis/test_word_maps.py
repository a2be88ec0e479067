"""Word maps from notes made to measure: which words, which layers, which scale."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis.word_maps import (
    content_words,
    late_layer_frames,
    masks_above,
    mean_shares,
    resized_maps,
    word_heat,
    word_positions,
)
from comfy_revelio.trace import WordFrame
from comfy_revelio.trace.words import SCALE

WORDS = ("a", "red", "hat", "and", "a", "green", "hat")


def frame(layer: str, shares: torch.Tensor, grid: tuple[int, int] = (2, 3), step: int = 0) -> WordFrame:
    return WordFrame(layer, step, 0, 1.0, "cond", grid, (SCALE * shares).half())


def test_words() -> None:
    assert content_words(WORDS) == ("red", "hat", "green")
    assert word_positions(WORDS, "hat") == [2, 6]
    assert word_positions(WORDS, " Green  Hat ") == [5, 6]
    taken_apart = ("1", "girl", "in", "a", "t", "shirt", "blue", "hair")
    assert word_positions(taken_apart, "1girl") == [0, 1]
    assert word_positions(taken_apart, "T-shirt") == [4, 5]
    assert word_positions(taken_apart, "blue_hair") == word_positions(taken_apart, "blue hair") == [6, 7]
    for wanted in ("glasses", "hat red", "re", "-", ""):
        with pytest.raises(RevelioError, match="its words: red, hat, green"):
            word_positions(WORDS, wanted)


def test_frames_of_one_grid_are_averaged_and_coarser_ones_spread() -> None:
    ramp = torch.arange(6.0).repeat(2, 2, 1) / 8
    frames = [frame("a", ramp), frame("b", 3 * ramp), frame("c", torch.full((2, 2, 1), 0.5), (1, 1))]
    found = mean_shares(frames, 1)
    assert found.shape == (2, 2, 3)
    assert torch.allclose(found, (4 * ramp[0] + 0.5).unflatten(1, (2, 3)) / 3, atol=1e-3)
    with pytest.raises(RevelioError, match="no image 2 in this run; choose from 0 to 1"):
        mean_shares(frames, 2)


def test_the_later_half_of_the_layers_shows() -> None:
    frames = [frame(layer, torch.zeros(1, 1, 6), step=step) for step in (0, 1) for layer in "abcde"]
    assert [(one.layer, one.step) for one in late_layer_frames(frames)] == [
        (n, s) for s in (0, 1) for n in "cde"
    ]
    alone = [frame("a", torch.zeros(1, 1, 6))]
    assert late_layer_frames(alone) == alone


def test_heat_goes_from_0_to_1() -> None:
    shares = torch.tensor([[[0.125, 0.25], [0.125, 0.5], [0.25, 0.25]]])
    heat = word_heat([frame("a", shares, (1, 2))], 0, [[0], [0, 1], [2]])
    assert torch.allclose(heat, torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]]))


def test_a_layer_counts_by_its_contrast() -> None:
    """0.25 and 0.75 by 1/2, deviation over mean; one that is the same everywhere not at all."""
    sharp, flat = torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[0.5]]])
    blurred = torch.tensor([[[0.5, 0.25]]])  # contrast 0.125 / 0.375
    frames = [frame("a", sharp, (1, 2)), frame("b", flat, (1, 1)), frame("c", blurred, (1, 2))]
    both = 0.5 * sharp[0] + 1 / 3 * blurred[0]
    assert torch.allclose(
        word_heat(frames, 0, [[0]]), ((both - both.min()) / (both.max() - both.min()))[None]
    )


def test_masks() -> None:
    maps = torch.tensor([[[0.2, 0.5, 1.0]], [[0.2, 0.11, 0.09]]])
    assert masks_above(maps, 0.5).tolist() == [[[0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0]]]


def test_spreading_never_goes_below_0() -> None:
    dot = torch.zeros(1, 8, 6)
    dot[0, 3, 2] = 1.0
    spread_out = resized_maps(dot, 64, 48)
    assert spread_out.shape == (1, 64, 48) and spread_out.min() == 0
    peak = spread_out[0].flatten().argmax()
    assert 24 <= peak // 48 < 32 and 16 <= peak % 48 < 24
