"""Small dictionaries with known weights, for all tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import pytest
import torch

from comfy_revelio.dictionary import (
    Activation,
    Concept,
    Dictionary,
    Extras,
    FeatureStats,
    InputTransform,
    Provenance,
)
from comfy_revelio.dictionary.activations import ActivationKind

MakeDictionary = Callable[..., Dictionary]


Group = TypeVar("Group", Activation, InputTransform, Provenance, Extras)


def _group(kind: type[Group], options: dict[str, Any]) -> Group:
    """The options that are fields of this group, taken out of all of them."""
    names = {field.name for field in fields(kind)} & options.keys()
    return kind(**{name: options.pop(name) for name in names})


def _make_dictionary(
    n: int = 40,
    d: int = 12,
    k: int = 5,
    *,
    seed: int = 0,
    maps: tuple[int, int] | None = (3, 5),
    activation: ActivationKind = "topk_relu",
    **options: Any,
) -> Dictionary:
    """Random weights, distinct input and output biases, and (unless given) random statistics.

    options: the fields of Activation, InputTransform, Provenance and Extras.
    """
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
    options |= {"kind": activation, "k": k}
    made = Dictionary(
        torch.randn(n, d, generator=g),
        torch.randn(n, generator=g) * 0.1,
        W_dec,
        torch.randn(d, generator=g),
        torch.randn(d, generator=g),
        _group(Activation, options),
        inputs=_group(InputTransform, options),
        provenance=_group(Provenance, options),
        extras=_group(Extras, options),
    )
    assert not options, f"no group has {', '.join(options)}"
    return made


@pytest.fixture
def make_dictionary() -> MakeDictionary:
    return _make_dictionary


@pytest.fixture
def concept() -> Concept:
    """Three features in two kinds of pictures, on a grid of 3 by 5: signed amounts, shares from 0 to 1."""
    g = torch.Generator().manual_seed(12)
    amount, share = torch.randn(2, 3, 3, 5, generator=g), torch.rand(2, 3, 3, 5, generator=g)
    return Concept((4, 0, 17), amount, share, torch.tensor([[-1.0] * 12 + [0.0], [1.0] * 12 + [0.0]]))
