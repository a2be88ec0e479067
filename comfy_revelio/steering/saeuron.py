"""Unlearn a concept as in SAeUron (arXiv 2501.18052), but without the sign error in the authors' code.

    score = m_concept / sum(m_concept) - m_others / sum(m_others)      at one timestep
    F     = the features whose score exceeds a percentile of all scores
    z_i  <- s m_concept_i z_i                                          for i in F where z_i exceeds its mean

Shapes: B rows, T tokens, D width of the activations, N features, M chosen features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError

_EPS = 1e-8
_AT_ONCE = 2**22
"""Number of values that are sorted at a time, to bound the memory that sorting takes."""


def unlearning_features(mean_concept: Tensor, mean_others: Tensor, percentile: float) -> Tensor:
    """Return F, the features of a concept at one timestep: int64 [M] in ascending order.

    mean_concept, mean_others: [N], the mean code of each feature over images with the concept and over images
    with other concepts. percentile: 0 to 100.

    >>> unlearning_features(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([1.0, 2.0, 1.0]), 50.0).tolist()
    [2]
    """
    if not 0 <= percentile <= 100 or mean_concept.shape != mean_others.shape or mean_concept.ndim != 1:
        raise RevelioError(
            "Unlearning needs two lists of mean codes [N] and a percentile from 0 to 100, not "
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
    """Return the change to the tokens that unlearns the features [M] at this timestep: float32 [B, T, D].

    mean_concept: [N], mean codes at this timestep over images with the concept. threshold: [N], mean codes
    over all images. strength: in the paper, -1 for styles and -1 to -30 for objects. The part of the tokens
    that the dictionary does not explain stays; the authors' code adds this part with the wrong sign.

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
    >>> x, mean, all_means = torch.tensor([[[3.0, 2.0]]]), torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0])
    >>> unlearn(x, sae, torch.tensor([0]), mean, all_means, -1.0).tolist()
    [[[-4.5, 0.0]]]
    """
    features = features.to(dictionary.W_dec.device)
    z_BTM = dictionary.encode(tokens, timestep=timestep).of_many(features)
    factor_M, bound_M = (
        mean_N.to(z_BTM.device).float()[features.to(z_BTM.device)]
        for mean_N in (strength * mean_concept, threshold)
    )
    dz_BTM = torch.where(z_BTM > bound_M, z_BTM * factor_M - z_BTM, 0.0)
    return dictionary.contribution(dz_BTM, features, tokens, timestep=timestep)


def quantile(values: Tensor, share: float) -> Tensor:
    """Return a float32 quantile along dimension 0 by sorting, as torch.quantile refuses over 2**24 values.

    >>> quantile(torch.tensor([4.0, 1.0, 3.0]), 0.25).item()
    2.0
    """
    position = share * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    found = []
    for part in values.reshape(len(values), -1).split(max(1, _AT_ONCE // len(values)), dim=1):
        ordered = part.float().sort(dim=0).values
        found.append(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
    return torch.cat(found).reshape(values.shape[1:])
