"""Small dictionaries with known weights, for all tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from comfy_revelio.dictionary import Concept, Dictionary, FeatureStats

MakeDictionary = Callable[..., Dictionary]


def _make_dictionary(
    n: int = 40,
    d: int = 12,
    k: int = 5,
    *,
    seed: int = 0,
    maps: tuple[int, int] | None = (3, 5),
    **options: Any,
) -> Dictionary:
    """Random weights, distinct input and output biases, and (unless given) random statistics."""
    g = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(n, d, generator=g)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    if "stats" not in options:
        mean_map = None
        if maps is not None:
            mean_map = torch.rand(n, *maps, generator=g)
            mean_map /= mean_map.amax((1, 2), keepdim=True)
        mean_active, rate = torch.rand(n, generator=g) + 0.5, torch.rand(n, generator=g)
        options["stats"] = FeatureStats(mean_active, rate, mean_map)
    return Dictionary(
        torch.randn(n, d, generator=g),
        torch.randn(n, generator=g) * 0.1,
        W_dec,
        torch.randn(d, generator=g),
        torch.randn(d, generator=g),
        k=k,
        **options,
    )


@pytest.fixture
def make_dictionary() -> MakeDictionary:
    return _make_dictionary


@pytest.fixture
def concept() -> Concept:
    """Three features in two kinds of pictures, on a grid of 3 by 5: signed amounts, shares from 0 to 1."""
    g = torch.Generator().manual_seed(12)
    amount, share = torch.randn(2, 3, 3, 5, generator=g), torch.rand(2, 3, 3, 5, generator=g)
    return Concept((4, 0, 17), amount, share, torch.tensor([[-1.0] * 12 + [0.0], [1.0] * 12 + [0.0]]))
