"""Rank the features of recorded frames by peak, by mean, or by how distinct they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RevelioError
from .frames import Frame

Way = Literal["peak", "mean", "distinct"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class FeatureScore:
    """One feature in a ranking."""

    feature: int
    label: str
    score: float
    """The value by which the ranking sorts."""
    peak: float
    """Largest code on any token."""
    mean: float
    """Mean code over all tokens, including those on which the feature does not fire."""
    share: float
    """Share of tokens on which the feature fires, 0..1."""


def rank(
    frames: Sequence[Frame], count: int, item: int | None, by: Way, label: Callable[[int], str]
) -> list[FeatureScore]:
    """Return the `count` features with the highest scores over all frames, for one batch item or all (None).

    by: the score. "peak": the largest code; "mean": the mean over tokens; "distinct": the mean over frames
    and items of (maximum over tokens - mean over tokens), so that a feature that fires everywhere scores low.
    Features that never fire are omitted; among equal scores, lower feature numbers come first.
    """
    if by not in WAYS:
        raise RevelioError(f"Unknown ranking {by!r}; choose one of {', '.join(WAYS)}.")
    peak, mean, share, excess = _summary(frames, item)
    scores = {"peak": peak, "mean": mean, "distinct": excess}[by]
    order = torch.where(share > 0, scores, -torch.inf).argsort(descending=True, stable=True)[: max(0, count)]
    return [
        FeatureScore(f, label(f), float(scores[f]), float(peak[f]), float(mean[f]), float(share[f]))
        for f in order.tolist()
        if share[f] > 0
    ]


def _summary(frames: Sequence[Frame], item: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return peak, mean, share and excess (the "distinct" score) of each feature, all [n_features]."""
    n = frames[0].codes.n_features
    peak, mean, share, excess = (torch.zeros(n) for _ in range(4))
    rows = 0
    for frame in frames:
        codes = frame.codes if item is None else frame.codes[item : item + 1]
        items, tokens = codes.shape
        flat = codes.indices.flatten(1)
        fired = (codes.values != 0).flatten(1).float()
        sums = torch.zeros(items, n).scatter_add_(1, flat, codes.values.flatten(1))
        tops = codes.peaks()
        peak = torch.maximum(peak, tops.amax(0))
        mean += sums.sum(0) / tokens
        share += torch.zeros(items, n).scatter_add_(1, flat, fired).sum(0) / tokens
        excess += (tops - sums / tokens).sum(0)
        rows += items
    return peak, mean / rows, share / rows, excess / rows
