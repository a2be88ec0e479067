"""Applying an intervention to tokens: h <- h + dz @ W_dec[chosen].

Only the change of the chosen features is added; what the dictionary does not explain, and all
other features, pass through untouched (error-preserving). Where nothing applies the caller gets
the same tensor object back, so that a strength of 0 is bit-identical to no intervention.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Codes, Concept
from ..errors import RevelioError
from .intervention import Intervention, TokenContext

_TINY = 1e-12


def apply(tokens: Tensor, intervention: Intervention, context: TokenContext) -> Tensor:
    """tokens [B, T, d] with the intervention done to them, in their own type.

    Returns the same object when nothing applies: strength 0, no features, outside the step range,
    another role. Raises RevelioError when the dictionary or the grid does not fit.
    """
    change = delta(tokens, intervention, context)
    return tokens if change is None else tokens + change.to(tokens.dtype)


@torch.no_grad()
def delta(tokens: Tensor, intervention: Intervention, context: TokenContext) -> Tensor | None:
    """The change alone, float32 [B or 1, T, d]; None when nothing applies.

    For hook points whose dictionary reads output - input: pass that difference as tokens and add
    the result to the output.
    """
    if not intervention.applies(context.role, context.percent) or 0 in tokens.shape:
        return None
    dictionary = intervention.dictionary
    _check_fit(tokens, dictionary.d_model, context.grid)
    codes = None if intervention.puts_in else dictionary.encode(tokens, timestep=context.timestep)
    mask = None
    if intervention.mask is not None:
        mask = _mask_on_grid(intervention.mask, context, len(tokens)).to(tokens.device)
    total: Tensor | None = None
    for features, change in _changes(intervention, codes, context.grid, tokens.device):
        change = change * intervention.strength if mask is None else change * intervention.strength * mask
        added = dictionary.contribution(change, features, tokens, timestep=context.timestep)
        total = added if total is None else total + added
    return total


def _changes(
    intervention: Intervention, codes: Codes | None, grid: tuple[int, int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """(feature numbers [m], dz at strength 1 [B or 1, T, m]) of the single features, then of each concept.

    codes: those of the tokens, where dz is a share of them.
    """
    selection = intervention.selection
    if selection.features:
        features = intervention.dictionary.feature_index(selection.features)
        weights = torch.tensor(selection.weights, dtype=torch.float32, device=device)
        if codes is None:
            change = _mean_active(intervention, features) * _place(intervention, features, grid)
            yield features, change[None].to(device) * weights
        else:
            yield features, codes.of_many(features) * weights
    for concept, weight in selection.concepts:
        features = intervention.dictionary.feature_index(concept.features)
        amount, share = _concept_on_grid(concept, grid, device)
        if codes is None:
            yield features, amount[None] * weight
        else:
            yield features, _there_for(codes.of_many(features) * share, amount) * weight


def _there_for(due: Tensor, amount: Tensor) -> Tensor:
    """What a concept has changed at each token, which taking it out undoes: [B, T, m].

    due: the part of the codes that is due to the concept; amount [T, m]: its usual change. The codes that it
    raised are what is due; those that it lowered count as far as it is present at the token: as the part
    that is due resembles the usual one.
    """
    raised, lowered = amount.clamp(min=0), amount.clamp(max=0)
    usual = raised.square().sum(dim=-1, keepdim=True).clamp(min=_TINY)
    presence = ((due * raised).sum(dim=-1, keepdim=True) / usual).clamp(0, 1)
    return due + presence * lowered


def _mean_active(intervention: Intervention, features: Tensor) -> Tensor:
    stats = intervention.dictionary.stats
    assert stats is not None  # checked when the intervention was made
    return stats.mean_active[features].float()


def _place(intervention: Intervention, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much of each feature goes to each token: [T, m], or [1, 1] for everywhere."""
    stats = intervention.dictionary.stats
    maps = None if stats is None else stats.mean_map
    spread = intervention.mode == "add" or intervention.place == "everywhere" or intervention.mask is not None
    if spread or maps is None:
        return features.new_ones(grid[0] * grid[1], 1, dtype=torch.float32)
    return _on_grid(maps[features], grid)


@lru_cache(maxsize=32)
def _concept_on_grid(concept: Concept, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Amount and share [T, m] on the device: made once and not at every step, which would wait for a GPU."""
    return _on_grid(concept.amount, grid).to(device), _on_grid(concept.share, grid).to(device)


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [m, h, w] resized to the grid, by token: float32 [T, m]."""
    resized = functional.interpolate(maps.float()[None], size=grid, mode="bilinear", antialias=True)
    return resized[0].flatten(1).T


def _mask_on_grid(mask: Tensor, context: TokenContext, rows: int) -> Tensor:
    """The mask of each row's batch item, averaged over the area of each cell: [B, T, 1]."""
    numbers = [number % len(mask) for number in context.item_numbers(rows)]
    on_grid = functional.interpolate(mask[:, None], size=context.grid, mode="area")
    return on_grid[numbers].flatten(1)[..., None]


def _check_fit(tokens: Tensor, d_model: int, grid: tuple[int, int]) -> None:
    if tokens.ndim != 3 or tokens.shape[1] != grid[0] * grid[1]:
        raise RevelioError(
            f"Tokens of shape {list(tokens.shape)} do not lie on a grid of {grid[0]} by {grid[1]}."
        )
    if tokens.shape[2] != d_model:
        raise RevelioError(
            f"This dictionary is for activations {d_model} wide, but this hook point is "
            f"{tokens.shape[2]} wide; choose the hook point that the dictionary was trained on."
        )
