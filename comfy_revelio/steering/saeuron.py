"""Unlearning a concept as SAeUron does it (arXiv 2501.18052), without the error of sign in its code."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError

_EPS = 1e-8
_AT_ONCE = 2**22
"""Values that are sorted together, which bounds the memory that sorting takes."""


def unlearning_features(mean_concept: Tensor, mean_others: Tensor, percentile: float) -> Tensor:
    """The features of a concept at one timestep: int64 numbers in their order.

    mean_concept, mean_others: [n], mean code of each feature over pictures with the concept and over those
    with other concepts. Chosen is what exceeds the `percentile` (0 to 100) of
    mean_concept / (sum + 1e-8) - mean_others / (sum + 1e-8).
    """
    if not 0 <= percentile <= 100 or mean_concept.shape != mean_others.shape or mean_concept.ndim != 1:
        raise RevelioError(
            "Unlearning needs two lists of mean codes [n] and a percentile from 0 to 100, not "
            f"{list(mean_concept.shape)}, {list(mean_others.shape)} and {percentile}."
        )
    scores = mean_concept / (mean_concept.sum() + _EPS) - mean_others / (mean_others.sum() + _EPS)
    return (scores > quantile(scores, percentile / 100)).nonzero().flatten()


@torch.no_grad()
def unlearn(
    tokens: Tensor,
    dictionary: Dictionary,
    features: Tensor,
    mean_concept: Tensor,
    threshold: Tensor,
    strength: float,
    *,
    timestep: float = 0.0,
) -> Tensor:
    """The change of tokens [B, T, d] that unlearns the features [m] at this timestep: float32 [B, T, d].

    z <- z * strength * mean_concept where z > threshold; both [n], means at this timestep over pictures with
    the concept and over all. strength -1 is the paper's for styles, -1 to -30 for objects. What the
    dictionary does not explain stays: the authors' code adds it with the wrong sign.
    """
    features = features.to(dictionary.W_dec.device)
    z = dictionary.encode(tokens, timestep=timestep).of_many(features)
    factor, bound = (
        m.to(z.device).float()[features.to(z.device)] for m in (strength * mean_concept, threshold)
    )
    change = torch.where(z > bound, z * factor - z, 0.0)
    return dictionary.contribution(change, features, tokens, timestep=timestep)


def quantile(values: Tensor, share: float) -> Tensor:
    """torch.quantile along the first dimension, which refuses more than 2**24 values, by sorting: float32."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    found = []
    for part in values.reshape(len(values), -1).split(max(1, _AT_ONCE // len(values)), dim=1):
        ordered = part.float().sort(dim=0).values
        found.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    return torch.cat(found).reshape(values.shape[1:])
