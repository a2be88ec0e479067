"""Find a concept in a text encoder by contrast, or by the formula of Concept Steerers (arXiv 2501.19066).

    m+, m- = a feature's maximum over tokens, averaged over prompts with and without the concept
    score  = (m+ - m-) / (m+ + m- + eps)                     contrast, -1 to 1; works far better in practice
    dh     = s ENC(x_concept) W_dec                          Concept Steerers; ENC has no top-k

All functions are pure functions of hidden states [P, T, D]. P prompts, T tokens, D width, N features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError

_EPS = 1e-6


@dataclass(frozen=True)
class ConceptFeatures:
    """Features of a concept, strongest first, and their scores and means in the same order."""

    features: tuple[int, ...]
    scores: tuple[float, ...]
    """The score is 1 for a feature that never fires without the concept."""
    mean_with: tuple[float, ...]
    """m+"""
    mean_without: tuple[float, ...]
    """m-"""

    def first(self, count: int) -> ConceptFeatures:
        """Return only the `count` strongest features."""
        return ConceptFeatures(
            self.features[:count], self.scores[:count], self.mean_with[:count], self.mean_without[:count]
        )


def contrast_features(
    dictionary: Dictionary,
    hidden_with: Tensor,
    keep_with: Tensor,
    hidden_without: Tensor,
    keep_without: Tensor,
    *,
    count: int = 8,
    min_score: float = 0.8,
) -> ConceptFeatures:
    """Return the features that fire in prompts with a concept but not without, ranked by `rank_contrast`.

    hidden_*: hidden states [P, T, D] of prompts with and without the concept; the two sets may differ in
    size. keep_*: bool [P, T], True for the tokens that count.
    """
    mean_with = _mean_peak(dictionary, hidden_with, keep_with, "with")
    mean_without = _mean_peak(dictionary, hidden_without, keep_without, "without")
    return rank_contrast(mean_with, mean_without, count=count, min_score=min_score)


def rank_contrast(
    mean_with: Tensor, mean_without: Tensor, *, count: int, min_score: float
) -> ConceptFeatures:
    """Return the `count` features with the largest m+ - m- among those with score > min_score and m+ > m-.

    >>> with_it, without = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0.0, 3.0, 0.5])
    >>> rank_contrast(with_it, without, count=2, min_score=0.5).features
    (2, 0)
    """
    scores = contrast_score(mean_with, mean_without)
    difference = torch.where((scores > min_score) & (mean_with > mean_without), mean_with - mean_without, 0.0)
    ranked = difference.argsort(descending=True, stable=True)[: max(0, count)]
    chosen = [int(f) for f in ranked if difference[f] > 0]
    return ConceptFeatures(
        tuple(chosen),
        tuple(scores[chosen].tolist()),
        tuple(mean_with[chosen].tolist()),
        tuple(mean_without[chosen].tolist()),
    )


def contrast_score(mean_with: Tensor, mean_without: Tensor) -> Tensor:
    """Return (m+ - m-) / (m+ + m- + eps), from -1 to 1, for means of any shape.

    >>> round(contrast_score(torch.tensor(3.0), torch.tensor(1.0)).item(), 4)
    0.5
    """
    return (mean_with - mean_without) / (mean_with + mean_without + _EPS)


@torch.no_grad()
def paper_delta(dictionary: Dictionary, hidden_concept: Tensor, strength: float) -> Tensor:
    """Return s ENC(x_concept) W_dec for the hidden states [T, D] of a concept phrase: float32 [T, D].

    The caller adds the result to the positive prompt's hidden states and subtracts it from the negative
    prompt's, position by position.
    """
    codes_TN = strength * dictionary.encode_dense(hidden_concept)
    return codes_TN @ dictionary.W_dec.to(codes_TN.device).float()


def _mean_peak(dictionary: Dictionary, hidden: Tensor, keep: Tensor, which: str) -> Tensor:
    """Return each feature's maximum over the tokens that count, averaged over prompts: float32 [N]."""
    if hidden.ndim != 3 or keep.shape != hidden.shape[:2]:
        raise RevelioError(
            f"The prompts {which} the concept need hidden states [prompts, tokens, width] and a mask "
            f"[prompts, tokens], not {list(hidden.shape)} and {list(keep.shape)}."
        )
    if not len(hidden):
        raise RevelioError(f"There are no prompts {which} the concept; give at least one to compare.")
    keep = keep.to(hidden.device, torch.bool)
    total = hidden.new_zeros(dictionary.n_features, dtype=torch.float32)
    for rows, kept in zip(hidden.split(64), keep.split(64), strict=True):  # peaks: [64, N] at most
        total += dictionary.encode(rows).peaks(kept).sum(0)
    return total / len(hidden)
