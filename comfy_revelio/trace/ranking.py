"""Ranking the features of recorded frames: strongest, most present, most distinct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError
from .frames import Frame

WAYS = ("peak", "mean", "distinct")


@dataclass(frozen=True)
class FeatureScore:
    """One feature in a ranking.

    score: what it was ranked by. peak: largest value of any token. mean: mean over all tokens,
    silent ones included. share: share of tokens (0..1) on which it fires.
    """

    feature: int
    label: str
    score: float
    peak: float
    mean: float
    share: float


def rank(
    frames: Sequence[Frame], count: int, item: int | None, by: str, label: Callable[[int], str]
) -> list[FeatureScore]:
    """The `count` highest features over all frames, for one batch item or all (None).

    by: "peak" the largest value; "mean" the mean over tokens; "distinct" the mean over frames and
    items of (maximum over tokens - mean over tokens), so that a feature which is everywhere at
    once scores low. Features that never fire are left out; among equals the lower number wins.
    """
    if by not in WAYS:
        raise RevelioError(f"Features cannot be ranked by {by!r}; choose one of {', '.join(WAYS)}.")
    peak, mean, share, excess = _summary(frames, item)
    scores = {"peak": peak, "mean": mean, "distinct": excess}[by]
    order = torch.where(share > 0, scores, -torch.inf).argsort(descending=True, stable=True)[: max(0, count)]
    return [
        FeatureScore(f, label(f), float(scores[f]), float(peak[f]), float(mean[f]), float(share[f]))
        for f in order.tolist()
        if share[f] > 0
    ]


def _summary(frames: Sequence[Frame], item: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """peak, mean, share and excess of each feature over the frames, each [n_features]."""
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
