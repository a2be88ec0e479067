"""Applying an intervention to tokens: h <- h + dz @ W_dec[chosen].

Only the change of the chosen features is added; what the dictionary does not explain, and all
other features, pass through untouched (error-preserving; not so the modes that replace a block). Where
nothing applies the caller gets the same tensor object back, so that a strength of 0 is bit-identical to no
intervention.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..dictionary import Codes, Concept
from ..dictionary.concept import image_kinds
from ..errors import RevelioError
from ..hookpoints.grids import maps_on_grid, mask_on_grid
from . import modes
from .intervention import Intervention, TokenContext

_TINY = 1e-12
_KEPT_GRIDS = 2
"""Sizes of pictures for which the maps of a concept are kept: they lie on the GPU."""


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
    factor = intervention.factor(context.role, context.percent)
    if factor == 0.0 or 0 in tokens.shape:
        return None
    dictionary = intervention.dictionary
    _check_fit(tokens, dictionary.d_model, context.grid)
    share: Tensor | float = factor
    if intervention.mask is not None:
        items = context.item_numbers(len(tokens))
        mask = mask_on_grid(intervention.mask, context.grid, items)
        share = factor * mask[..., None].to(tokens.device)
    if intervention.mode in ("only", "replace", "ablate_block"):
        return share * _whole_change(tokens, intervention, context, mirrored=factor < 0)
    codes = dictionary.encode(tokens, timestep=context.timestep) if intervention.reads_codes else None
    total: Tensor | None = None
    for features, change in _changes(intervention, codes, tokens, context.grid):
        added = dictionary.contribution(
            change * share, features, tokens, timestep=context.timestep, codes=codes
        )
        total = added if total is None else total + added
    return total


def _whole_change(
    tokens: Tensor, intervention: Intervention, context: TokenContext, *, mirrored: bool
) -> Tensor:
    """What the modes add that concern more than the chosen features: float32 [B, T, d].

    mirrored: this is the negative half of a mirrored intervention.
    """
    dictionary, strength, timestep = intervention.dictionary, intervention.strength, context.timestep
    tokens = tokens.float()
    if intervention.mode == "ablate_block":
        return -abs(strength) * (-tokens if mirrored else tokens)
    features, weights = _chosen(intervention, tokens.device)
    if intervention.mode == "only":
        codes = dictionary.encode(tokens, timestep=timestep)
        return modes.only(dictionary, codes, features, weights, strength, timestep)
    wanted = torch.zeros_like(tokens)
    if dictionary.captured == "output":
        wanted = modes.nothing(dictionary, dictionary.encode(tokens, timestep=timestep), timestep)
    if mirrored:
        return tokens - wanted  # its sign turns again: nothing is put in on the negative side
    values = strength * weights * modes.unit_values(dictionary, features, intervention.unit, tokens)
    return wanted + dictionary.contribution(values, features, tokens, timestep=timestep) - tokens


def _chosen(intervention: Intervention, device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers int64 and weights float32 [m] of the features that are not left alone."""
    selection = intervention.selection
    pairs = [(f, w) for f, w in zip(selection.features, selection.weights, strict=True) if w != 0]
    features = intervention.dictionary.feature_index([feature for feature, _ in pairs])
    return features, torch.tensor([weight for _, weight in pairs], dtype=torch.float32, device=device)


def _changes(
    intervention: Intervention, codes: Codes | None, tokens: Tensor, grid: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(feature numbers [m], dz [B or 1, T or 1, m]) of the single features, then of each concept.

    codes: those of the tokens, where dz depends on them.
    """
    selection, strength, device = intervention.selection, intervention.strength, tokens.device
    features, weights = _chosen(intervention, device)
    if len(features):
        z = torch.zeros(1, device=device) if codes is None else codes.of_many(features)
        unit = torch.ones(1, device=device)
        mode = intervention.mode
        if mode == "push":
            mode = "add" if strength > 0 else "scale"
        if intervention.puts_in:
            unit = modes.unit_values(intervention.dictionary, features, intervention.unit, tokens)
        if mode == "add":
            unit = unit * _place(intervention, features, grid).to(device)[None]
        yield features, modes.change_of_codes(mode, strength, weights, z, unit)
    for concept, weight in selection.concepts:
        assert codes is not None
        features = intervention.dictionary.feature_index(concept.features)
        amount, share = _in_this_kind(intervention, concept, tokens, grid)
        due = codes.of_many(features) * share
        here = _presence(due, amount)
        if intervention.puts_in:
            yield features, (1 - here) * amount * weight * strength
        else:
            yield features, (due + here * amount.clamp(max=0)) * weight * strength


def _presence(due: Tensor, amount: Tensor) -> Tensor:
    """How far a concept is there already at each token, 0..1: [B, T, 1].

    due [B, T, m]: the part of the codes that is due to the concept; amount [B, T, m]: its usual change. It is
    there as far as the part that is due resembles what the concept usually raises.
    """
    raised = amount.clamp(min=0)
    usual = raised.square().sum(dim=-1, keepdim=True).clamp(min=_TINY)
    return ((due * raised).sum(dim=-1, keepdim=True) / usual).clamp(0, 1)


def _place(intervention: Intervention, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much of each feature goes to each token: [T, m], or [1, 1] for everywhere."""
    stats = intervention.dictionary.stats
    maps = None if stats is None else stats.mean_map
    spread = intervention.mode == "add" or intervention.place == "everywhere" or intervention.mask is not None
    if spread or maps is None:
        return features.new_ones(grid[0] * grid[1], 1, dtype=torch.float32)
    return maps_on_grid(maps[features], grid)


def _in_this_kind(
    intervention: Intervention, concept: Concept, tokens: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Amount and share [B, T, m] of a concept in pictures of the kind that each row of tokens is of."""
    kept, key = intervention.maps, (concept, grid, tokens.device)
    if key not in kept:  # made once and not at every step, which would wait for a GPU
        while len(kept) >= _KEPT_GRIDS * len(intervention.selection.concepts):
            kept.pop(next(iter(kept)))
        kept[key] = _concept_on_grid(concept, grid, tokens.device)
    amount, share, reader = kept[key]
    kind = image_kinds(tokens.float().mean(dim=1), reader)
    return amount[kind], share[kind]


def _concept_on_grid(
    concept: Concept, grid: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Amount and share [kinds, T, m] and the reader, on the device."""
    maps = (
        torch.stack([maps_on_grid(kind, grid) for kind in side]) for side in (concept.amount, concept.share)
    )
    amount, share = (side.to(device) for side in maps)
    return amount, share, concept.reader.to(device)


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
