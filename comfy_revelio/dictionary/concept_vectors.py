"""Concept vectors by difference of means: the baseline that every dictionary must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import RevelioError
from .dictionary import Dictionary
from .feature_stats import FeatureStats


def concept_vectors(
    contrasts: Mapping[str, tuple[Tensor, Tensor]], *, hook_point: str = "", captured: str = "output"
) -> Dictionary:
    """One feature for each concept, from activations with it and without it.

    contrasts: label -> (rows with the concept [a, d], rows without it [b, d]), of any float type.
    Feature i points along v = mean with - mean without, and its code is where a row lies between the two
    means: 1 at the mean with the concept, 0 at the mean without it, negative beyond. So adding a code of 1
    moves a row by v, and -1 takes that away. Raises RevelioError for empty or equal sides.
    """
    if not contrasts:
        raise RevelioError("There are no concepts to make vectors of; give at least one.")
    directions, without_means = [], []
    for label, (with_it, without) in contrasts.items():
        if with_it.ndim != 2 or without.ndim != 2 or not len(with_it) or not len(without):
            raise RevelioError(f"{label!r} needs rows with it and rows without it, at least one of each.")
        if with_it.shape[1] != without.shape[1]:
            raise RevelioError(f"The rows with and without {label!r} differ in width.")
        with_mean, without_mean = with_it.double().mean(dim=0), without.double().mean(dim=0)
        direction = with_mean - without_mean
        if not bool(direction.isfinite().all()) or not bool(direction.any()):
            raise RevelioError(
                f"The activations with and without {label!r} are the same on average, or not finite, so that "
                "there is no direction between them; give other examples of both."
            )
        directions.append(direction)
        without_means.append(without_mean)
    W_dec, lowest = torch.stack(directions), torch.stack(without_means)
    W_enc = W_dec / W_dec.square().sum(dim=1, keepdim=True)
    n, d = W_dec.shape
    return Dictionary(
        W_enc.float(),
        -(W_enc * lowest).sum(dim=1).float(),
        W_dec.float(),
        torch.zeros(d),
        lowest.mean(dim=0).float(),
        k=n,
        activation="topk_signed",
        hook_point=hook_point,
        captured=captured,
        source_format="concept-vectors",
        labels={label: [number] for number, label in enumerate(contrasts)},
        stats=FeatureStats(torch.ones(n)),
    )
