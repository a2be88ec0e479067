"""Where a concept is, and which features are alike."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis.presence import concept_presence, nearest_features
from comfy_revelio.dictionary import Codes, Concept
from comfy_revelio.trace import Frame

GRID = (2, 3)


def _frame(values: torch.Tensor) -> Frame:
    """Two features with the values [2 items, 6 tokens, 2] at a step."""
    indices = torch.tensor([4, 7]).expand(values.shape)
    return Frame("middle_block.1", 0, 0, 1.0, 9.0, "cond", GRID, Codes(indices, values, 10))


def _concept() -> Concept:
    """Feature 4 on the token 1 (its amount 2), feature 7 taken away everywhere."""
    amount = torch.zeros(2, *GRID)
    amount[0, 0, 1], amount[1] = 2.0, -1.0
    return Concept((4, 7), amount, torch.tensor([1.0, 0.5])[:, None, None].expand(2, *GRID).clone())


def test_the_usual_amount_at_the_usual_place_is_1() -> None:
    values = torch.zeros(2, 6, 2)
    values[1, :, 0] = 2.0  # of the second item alone, and everywhere
    values[1, :, 1] = 5.0  # what a concept takes away shows nothing of it
    frames = [_frame(values * factor) for factor in (1.0, 0.5, -1.0)]
    maps = concept_presence(frames, _concept(), item=1)
    assert maps.shape == (3, *GRID)
    assert maps[:, 0, 1].tolist() == [1.0, 0.5, 0.0]
    maps[:, 0, 1] = 0
    assert not maps.any()
    assert not concept_presence(frames, _concept(), item=0).any()


def test_maps_are_fitted_to_the_grid() -> None:
    small = Concept((4,), torch.ones(1, 4, 6), torch.ones(1, 4, 6))
    values = torch.rand(1, 6, 2)
    assert torch.allclose(concept_presence([_frame(values)], small, 0)[0].flatten(), values[0, :, 0])


def test_nearest_by_direction(make_dictionary) -> None:
    dictionary = make_dictionary(n=40, d=12)
    dictionary.W_dec[31] = dictionary.W_dec[5] * 3  # longer, but of the same direction
    dictionary.W_dec[8] = 0
    found = nearest_features(dictionary, 5, count=4)
    assert found[0] == (31, pytest.approx(1.0))
    cosines = torch.nn.functional.cosine_similarity(dictionary.W_dec, dictionary.W_dec[5][None])
    cosines[5] = -1
    order = cosines.argsort(descending=True)[:4].tolist()
    assert [number for number, _ in found] == order
    assert 8 not in dict(nearest_features(dictionary, 5, count=39))
    with pytest.raises(RevelioError, match="Feature 40 does not exist"):
        nearest_features(dictionary, 40)
