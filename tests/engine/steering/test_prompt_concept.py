"""Concept steering in a text encoder: contrast against plain loops, and the paper's formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Dictionary
from comfy_revelio.steering import ConceptFeatures, contrast_features, paper_delta


def _mean_of_maxima(sae: Dictionary, hidden: Tensor, keep: Tensor) -> Tensor:
    total = torch.zeros(sae.n_features, dtype=torch.float64)
    for prompt, kept in zip(hidden, keep, strict=True):
        total += sae.encode(prompt[kept]).dense().double().amax(0)
    return total / len(hidden)


def _hidden(prompts: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    keep = torch.rand(prompts, 9, generator=g) < 0.6
    keep[:, 4] = True
    return torch.randn(prompts, 9, 12, generator=g), keep


@pytest.mark.parametrize("min_score", [0.0, 0.2])
def test_contrast_follows_its_formula(make_dictionary, min_score: float) -> None:
    sae = make_dictionary()
    (with_, keep_with), (without, keep_without) = _hidden(130, 1), _hidden(70, 2)
    with_[:, 4] += 3 * sae.W_enc[11]
    m_with, m_without = _mean_of_maxima(sae, with_, keep_with), _mean_of_maxima(sae, without, keep_without)
    scores = (m_with - m_without) / (m_with + m_without + 1e-6)
    expected = sorted(range(40), key=lambda f: -float(m_with[f] - m_without[f]))
    expected = [f for f in expected if scores[f] > min_score and m_with[f] > m_without[f]][:6]

    found = contrast_features(sae, with_, keep_with, without, keep_without, count=6, min_score=min_score)
    assert list(found.features) == expected and found.features[0] == 11
    for values, reference in (
        (found.scores, scores),
        (found.mean_with, m_with),
        (found.mean_without, m_without),
    ):
        assert torch.allclose(torch.tensor(values).double(), reference[expected], atol=1e-5)
    assert found.first(1).features == (11,)


def test_tokens_left_out_do_not_count(make_dictionary) -> None:
    sae = make_dictionary()
    (with_, keep), (without, keep_without) = _hidden(8, 1), _hidden(8, 2)
    keep[:, 0] = False
    spoiled = with_.clone()
    spoiled[:, 0] = 1e4
    one, two = (
        contrast_features(sae, h, keep, without, keep_without, min_score=0.0) for h in (with_, spoiled)
    )
    assert one == two


def test_nothing_to_find_is_no_error(make_dictionary) -> None:
    hidden, keep = _hidden(4, 1)
    found = contrast_features(make_dictionary(), hidden, keep, hidden, keep)
    assert found == ConceptFeatures((), (), (), ())


def test_wrong_shapes_and_empty_sides_are_named(make_dictionary) -> None:
    hidden, keep = _hidden(4, 1)
    with pytest.raises(RevelioError, match="with the concept"):
        contrast_features(make_dictionary(), hidden, keep[:, :5], hidden, keep)
    with pytest.raises(RevelioError, match="no prompts without"):
        contrast_features(make_dictionary(), hidden, keep, hidden[:0], keep[:0])


def test_the_papers_formula_exactly(make_dictionary) -> None:
    """x + W_dec(lambda * relu((x_C - b_in) @ W_enc.T + b_enc)), position by position, no top-k."""
    sae = make_dictionary()
    x_c = _hidden(1, 6)[0][0]
    expected = torch.zeros(9, 12, dtype=torch.float64)
    for t in range(9):
        for f in range(40):
            z = float((x_c[t] - sae.b_in).double() @ sae.W_enc[f].double() + sae.b_enc[f].double())
            expected[t] += -0.5 * max(z, 0.0) * sae.W_dec[f].double()
    assert torch.allclose(paper_delta(sae, x_c, -0.5).double(), expected, atol=1e-4)
    assert paper_delta(sae, x_c.half(), -0.5).dtype == torch.float32
