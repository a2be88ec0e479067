"""Steering a concept in a text encoder: its features by contrast, switched off or added.

Contrast (found far better in practice) and the formula of Concept Steerers (arXiv 2501.19066)
side by side. Pure functions of hidden states [prompts, tokens, d].
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
    """Features of a concept, strongest first; the tuples run in parallel.

    scores: (m+ - m-) / (m+ + m- + eps), 1 for a feature that never fires without the concept.
    mean_with, mean_without: m+ and m-, the mean over prompts of the feature's maximum over tokens.
    """

    features: tuple[int, ...]
    scores: tuple[float, ...]
    mean_with: tuple[float, ...]
    mean_without: tuple[float, ...]

    def first(self, count: int) -> ConceptFeatures:
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
    """The features that fire with a concept and not without it.

    hidden_*: [prompts, T, d] hidden states of prompts with and without the concept; the two sets
    may differ in size. keep_*: bool [prompts, T], the tokens that count.
    Ranked by m+ - m- among those whose score exceeds min_score, at most `count`.
    """
    mean_with = _mean_peak(dictionary, hidden_with, keep_with, "with")
    mean_without = _mean_peak(dictionary, hidden_without, keep_without, "without")
    return rank_contrast(mean_with, mean_without, count=count, min_score=min_score)


def rank_contrast(
    mean_with: Tensor, mean_without: Tensor, *, count: int, min_score: float
) -> ConceptFeatures:
    """Rank all features [n] by m+ - m- where the score exceeds min_score and m+ > m-."""
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
    """(m+ - m-) / (m+ + m- + eps), from -1 to 1, of any shape."""
    return (mean_with - mean_without) / (mean_with + mean_without + _EPS)


@torch.no_grad()
def paper_delta(dictionary: Dictionary, hidden_concept: Tensor, strength: float) -> Tensor:
    """(strength * ENC(x_C)) @ W_dec, float32 [T, d], of the concept phrase's hidden states [T, d].

    ENC has no top-k. Added position by position to the positive prompt's hidden states, and
    subtracted from the negative prompt's.
    """
    codes = strength * dictionary.encode_dense(hidden_concept)
    return codes @ dictionary.W_dec.to(codes.device).float()


def _mean_peak(dictionary: Dictionary, hidden: Tensor, keep: Tensor, which: str) -> Tensor:
    if hidden.ndim != 3 or keep.shape != hidden.shape[:2]:
        raise RevelioError(
            f"The prompts {which} the concept need hidden states [prompts, tokens, width] and a mask "
            f"of their tokens, not {list(hidden.shape)} and {list(keep.shape)}."
        )
    if not len(hidden):
        raise RevelioError(f"There are no prompts {which} the concept to compare; give at least one.")
    keep = keep.to(hidden.device, torch.bool)
    total = hidden.new_zeros(dictionary.n_features, dtype=torch.float32)
    for rows, kept in zip(hidden.split(64), keep.split(64), strict=True):  # bounds [64, n_features]
        total += dictionary.encode(rows).peaks(kept).sum(0)
    return total / len(hidden)
