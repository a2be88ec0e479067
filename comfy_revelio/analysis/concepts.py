"""Finding how a dictionary carries a concept, from pictures with it and pictures without it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..dictionary import Concept, Dictionary
from ..errors import RevelioError

FINEST = 16
"""Cells a side of a concept's maps, at most."""
_EPS = 1e-3


@torch.no_grad()
def concept_between(
    dictionary: Dictionary, with_it: Iterable[Tensor], without: Iterable[Tensor], *, count: int = 64
) -> Concept:
    """The `count` features that carry most of what a concept changes, and their maps.

    with_it, without: activations [n, height, width, d_model] of pictures with the concept and without it, as
    many such as there are (one for each step, say), all on one grid. Best are the same prompts and seeds on
    both sides; else many pictures that differ in everything else by chance. With dz the difference of the
    mean codes [height, width, features], a feature carries sum(dz_f * (dz @ W_dec) . W_dec_f): its part of
    the squared length of the change in the activations. So features count that fire as well without the
    concept, but elsewhere; their maps tell the two apart. Raises RevelioError when a side is empty.
    """
    high, low = _mean_codes(dictionary, with_it), _mean_codes(dictionary, without)
    if high.shape != low.shape:
        raise RevelioError(
            f"Both sides of a concept must be of one size, not {list(high.shape[:2])} and "
            f"{list(low.shape[:2])}; use pictures of one size."
        )
    return concept_of_means(dictionary, high, low, count=count)


@torch.no_grad()
def concept_of_means(dictionary: Dictionary, high: Tensor, low: Tensor, *, count: int = 64) -> Concept:
    """`concept_between` from mean codes [height, width, n_features] with and without the concept."""
    W_dec = dictionary.directions(range(dictionary.n_features))
    change = (high - low).flatten(0, 1)
    carried = (change * ((change @ W_dec) @ W_dec.T)).sum(dim=0)
    features = carried.argsort(descending=True, stable=True)[:count]
    high, low = (side[..., features].permute(2, 0, 1) for side in (high, low))
    share = ((high - low) / (high + _EPS)).clamp(0, 1)
    return Concept(tuple(features.tolist()), (high - low).cpu(), share.cpu())


def codes_on_grid(dictionary: Dictionary, maps: Tensor) -> Tensor:
    """The codes of maps [n, height, width, d_model] as a full table, float32 [n, h, w, n_features].

    Averaged to at most FINEST cells a side: a concept's place needs no more, and the table stays small.
    """
    height, width = (min(FINEST, side) for side in maps.shape[1:3])
    device = dictionary.W_enc.device
    parts = [dictionary.encode(one.to(device)).dense() for one in maps.split(1)]
    small = [adaptive_avg_pool2d(part.permute(0, 3, 1, 2), (height, width)) for part in parts]
    return torch.cat(small).permute(0, 2, 3, 1)


def _mean_codes(dictionary: Dictionary, parts: Iterable[Tensor]) -> Tensor:
    """The mean code in every cell: float32 [height, width, n_features]."""
    total: Tensor | None = None
    number = 0
    for maps in parts:
        for one in maps.split(1):
            here = codes_on_grid(dictionary, one)[0]
            total = here if total is None else total + here
        number += len(maps)
    if total is None or not number:
        raise RevelioError(
            "There are no pictures with, or none without the concept; give at least one of each."
        )
    return total / number
