"""Make concept vectors from differences of means: the baseline that every dictionary must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import RevelioError
from ..hookpoints.point import Captured
from .activations import Activation
from .dictionary import Dictionary
from .feature_stats import FeatureStats
from .metadata import Extras, Provenance


def concept_vectors(
    contrasts: Mapping[str, tuple[Tensor, Tensor]], *, hook_point: str = "", captured: Captured = "output"
) -> Dictionary:
    """Make a dictionary with one feature per concept, from activations with and without that concept.

        v = mean with - mean without,    z = (x - mean without) . v / |v|^2,    x <- x + dz v

    The code z is 0 at the mean without the concept and 1 at the mean with the concept. Changing z by dz = 1
    therefore moves a row by v, and dz = -1 moves the row back.
    contrasts: label -> (rows with the concept [a, d], rows without the concept [b, d]), of any float type.

    >>> with_it, without = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> vectors = concept_vectors({"hat": (with_it, without)})
    >>> vectors.directions([0]).tolist(), vectors.encode(torch.tensor([2.0, 5.0])).values.tolist()
    ([[2.0, 0.0]], [0.5])
    """
    if not contrasts:
        raise RevelioError("No concepts given; give at least one.")
    directions, without_means = [], []
    for label, (with_it, without) in contrasts.items():
        if with_it.ndim != 2 or without.ndim != 2 or not len(with_it) or not len(without):
            raise RevelioError(f"{label!r} needs at least one row with the concept and one without.")
        if with_it.shape[1] != without.shape[1]:
            raise RevelioError(f"The rows with and without {label!r} differ in width.")
        with_mean, without_mean = with_it.double().mean(dim=0), without.double().mean(dim=0)
        direction = with_mean - without_mean
        if not bool(direction.isfinite().all()) or not bool(direction.any()):
            raise RevelioError(
                f"The activations with and without {label!r} have the same mean or are not finite, so there "
                "is no direction between them; give other examples."
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
        Activation("topk_signed", n),
        provenance=Provenance(hook_point, captured, source_format="concept-vectors"),
        extras=Extras(
            labels={label: [number] for number, label in enumerate(contrasts)},
            stats=FeatureStats(torch.ones(n)),
        ),
    )
