"""Changes of a prompt's hidden states: which tokens, several concepts, other lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.steering import ConceptFeatures
from comfy_revelio.steering.prompt_states import (
    TextChange,
    contrast_change,
    fitted,
    paper_change,
    weighted_phrases,
)


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(3))


KEEP = torch.tensor([[False, True, True, False, False, False, False], [False] + [True] * 5 + [False]])


def concept(*features: int) -> ConceptFeatures:
    return ConceptFeatures(
        features, (1.0,) * len(features), tuple(f / 10 for f in features), (0.0,) * len(features)
    )


def test_out_where_it_fires_and_in_at_the_words(make_dictionary: Any, hidden: Tensor) -> None:
    sae = make_dictionary(k=20)
    z = sae.encode(hidden).dense()
    change = contrast_change([(concept(4, 9), -2.0), (concept(6), 0.5)])
    expected = hidden - 2.0 * z[..., [4, 9]] @ sae.W_dec[[4, 9]]
    expected = expected + KEEP[..., None] * (0.5 * 0.6 * sae.W_dec[6])
    assert torch.allclose(change.apply(hidden, KEEP, sae), expected, atol=1e-5)


@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_the_token_filter(make_dictionary: Any, hidden: Tensor, strength: float) -> None:
    sae = make_dictionary(k=40)
    sae.b_enc += 20.0  # everything fires everywhere
    for tokens, where in (("content", KEEP), ("all", torch.ones_like(KEEP))):
        result = contrast_change([(concept(4), strength)], tokens).apply(hidden, KEEP, sae)
        assert torch.equal((result != hidden).any(-1), where)
    shift = torch.ones(7, 12)
    for tokens, where in (("content", KEEP), ("all", torch.ones_like(KEEP)), ("auto", torch.ones_like(KEEP))):
        result = paper_change(shift, tokens).apply(hidden, KEEP, sae)
        assert torch.equal((result != hidden).any(-1), where)


def test_a_feature_of_two_concepts_counts_once(make_dictionary: Any, hidden: Tensor) -> None:
    sae = make_dictionary(k=20)
    both = contrast_change([(concept(4, 5), -1.0), (concept(4), -3.0)])
    assert dict(both.scaled) == {4: -3.0, 5: -1.0}
    assert dict(contrast_change([(concept(4), 1.0), (concept(4, 5), 2.0)]).added) == {4: 0.8, 5: 1.0}
    assert torch.allclose(
        both.apply(hidden, KEEP, sae),
        TextChange(scaled={5: -1.0, 4: -3.0}).apply(hidden, KEEP, sae),
        atol=1e-6,
    )


def test_nothing_to_do_is_the_same_object(make_dictionary: Any, hidden: Tensor) -> None:
    for change in (TextChange(), contrast_change([]), contrast_change([(concept(4), 0.0)])):
        assert change.apply(hidden, KEEP, make_dictionary()) is hidden


def test_half_precision_stays(make_dictionary: Any, hidden: Tensor) -> None:
    result = contrast_change([(concept(4), 1.0)]).apply(hidden.half(), KEEP, make_dictionary())
    assert result.dtype == torch.float16


def test_shifts_follow_the_length_of_the_prompt(make_dictionary: Any, hidden: Tensor) -> None:
    shift = torch.ones(5, 12)
    result = paper_change(shift).apply(hidden, KEEP, make_dictionary())
    assert torch.allclose(result[:, :5], hidden[:, :5] + 1)
    assert torch.equal(result[:, 5:], hidden[:, 5:])
    assert fitted(shift, 3).shape == (3, 12)


@pytest.mark.parametrize(
    ("text", "commas", "found"),
    [
        ("a beard, wearing glasses", True, [("beard", 1.0), ("glasses", 1.0)]),
        ("glasses; blue hair:-0.5", True, [("glasses", 1.0), ("blue hair", -0.5)]),
        ("violence, blood", False, [("violence, blood", 1.0)]),
        ("violence, blood:2;\n nudity : .5 ", False, [("violence, blood", 2.0), ("nudity", 0.5)]),
        (" ; ,", True, []),
        ("", False, []),
    ],
)
def test_concepts_as_people_write_them(text: str, commas: bool, found: list[tuple[str, float]]) -> None:
    assert weighted_phrases(text, commas=commas) == found


def test_a_weight_that_is_none() -> None:
    for text in ("glasses:big", "glasses:1:2:"):
        with pytest.raises(RevelioError, match=r"must be a number"):
            weighted_phrases(text, commas=True)
