"""Apply an intervention to tokens.

    h <- h + m dz W_dec[chosen]        m: mask times ramp; negative on the uncond side if the role is mirrored

The mode defines dz (modes.py). Only this change is added: all other features, and the part of the tokens that
the dictionary does not explain, stay as they are, except in modes "only", "replace" and "ablate_block". If
nothing applies, `apply` returns the same tensor object: strength 0 is bit-identical to no intervention.

A concept itself determines where its features change, and by how much. At each token, with the codes z and
the concept's amount a and share r (`Concept`) for the kind of image that the tokens come from:

    p  = clamp(sum(z r max(a, 0)) / sum(max(a, 0)^2), 0, 1)      presence: the part that is there already
    dz = s w (1 - p) a                           s > 0: adds only what is missing
    dz = s w (z r + p min(a, 0))                 s < 0: removes its features, and restores those it displaced

Shapes: B rows, T tokens, D width of the activations, M chosen features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..dictionary import Codes, Concept
from ..dictionary.concept import image_kinds
from ..errors import RevelioError
from ..hookpoints.mask_on_grid import mask_on_grid
from ..hookpoints.resize_maps import maps_on_grid
from . import modes
from .intervention import Intervention, TokenContext

_TINY = 1e-12
_KEPT_GRIDS = 2
"""Number of image sizes for which concept maps are cached: few, because the maps take memory on the GPU."""


def apply(tokens: Tensor, intervention: Intervention, context: TokenContext) -> Tensor:
    """Return the tokens [B, T, D] as changed by the intervention, in their original dtype.

    Returns the same object if nothing applies: strength 0, no features, a point of the schedule outside the
    range, or a role that the intervention does not act on.

    >>> from comfy_revelio.dictionary import Activation, Dictionary
    >>> from comfy_revelio.steering import Selection
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
    >>> off = Intervention(sae, Selection((1,)), strength=-1.0)
    >>> apply(torch.tensor([[[3.0, 2.0]]]), off, TokenContext(grid=(1, 1))).tolist()
    [[[3.0, 0.0]]]
    """
    change = delta(tokens, intervention, context)
    return tokens if change is None else tokens + change.to(tokens.dtype)


@torch.no_grad()
def delta(tokens: Tensor, intervention: Intervention, context: TokenContext) -> Tensor | None:
    """Return the change alone, float32 [B or 1, T, D], or None if nothing applies.

    If the dictionary reads output - input, pass that difference as tokens and add the result to the output.

    >>> from comfy_revelio.dictionary import Activation, Dictionary
    >>> from comfy_revelio.steering import Selection
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
    >>> off = Intervention(sae, Selection((1,)), strength=-1.0)
    >>> delta(torch.tensor([[[3.0, 2.0]]]), off, TokenContext(grid=(1, 1))).tolist()
    [[[0.0, -2.0]]]
    """
    factor = intervention.factor(context.role, context.percent)
    if factor == 0.0 or 0 in tokens.shape:
        return None
    dictionary = intervention.dictionary
    _check_fit(tokens, dictionary.d_model, context.grid)
    m_BT1: Tensor | float = factor
    if intervention.mask is not None:
        items = context.item_numbers(len(tokens))
        m_BT1 = factor * mask_on_grid(intervention.mask, context.grid, items)[..., None].to(tokens.device)
    if intervention.mode not in modes.CODE_CHANGES:
        return m_BT1 * _token_change(tokens, intervention, context, mirrored=factor < 0)
    codes = dictionary.encode(tokens, timestep=context.timestep) if intervention.reads_codes else None
    total_BTD: Tensor | None = None
    for features, dz_BTM in _code_changes(intervention, codes, tokens, context.grid):
        added_BTD = dictionary.contribution(
            dz_BTM * m_BT1, features, tokens, timestep=context.timestep, codes=codes
        )
        total_BTD = added_BTD if total_BTD is None else total_BTD + added_BTD
    return total_BTD


def _token_change(
    tokens: Tensor, intervention: Intervention, context: TokenContext, *, mirrored: bool
) -> Tensor:
    """Return the change (float32 [B, T, D]) for modes that affect more than the chosen features.

    mirrored: True on the uncond side of a mirrored intervention, where the caller flips the result's sign.
    """
    dictionary, s, timestep = intervention.dictionary, intervention.strength, context.timestep
    x_BTD = tokens.float()
    if intervention.mode == "ablate_block":  # the same on both sides: undo the caller's flip in advance
        return modes.ablate_block(-x_BTD if mirrored else x_BTD, s)
    features, w_M = _chosen(intervention, x_BTD.device)
    if intervention.mode == "only":
        codes = dictionary.encode(x_BTD, timestep=timestep)
        return modes.only(dictionary, codes, features, w_M, s, timestep)
    if mirrored:  # on the uncond side all features are removed; the caller negates this change
        return x_BTD - modes.without_features(dictionary, x_BTD, timestep)
    dz_M = s * w_M * modes.unit_values(dictionary, features, intervention.unit, x_BTD)
    return modes.replace(dictionary, x_BTD, features, dz_M, timestep)


def _chosen(intervention: Intervention, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the numbers int64 [M] and weights float32 [M] of the chosen features whose weight is not 0."""
    selection = intervention.selection
    pairs = [(f, w) for f, w in zip(selection.features, selection.weights, strict=True) if w != 0]
    features = intervention.dictionary.feature_index([feature for feature, _ in pairs])
    return features, torch.tensor([weight for _, weight in pairs], dtype=torch.float32, device=device)


def _code_changes(
    intervention: Intervention, codes: Codes | None, tokens: Tensor, grid: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (feature numbers [M], dz [B or 1, T or 1, M]) first for the features, then for each concept.

    codes: the codes of the tokens; None if dz does not depend on them.
    """
    selection, s, device = intervention.selection, intervention.strength, tokens.device
    features, w_M = _chosen(intervention, device)
    if len(features):
        z_BTM = torch.zeros(1, device=device) if codes is None else codes.of_many(features)
        u_BTM = torch.ones(1, device=device)
        if intervention.adds_amount:
            u_BTM = modes.unit_values(intervention.dictionary, features, intervention.unit, tokens)
        if intervention.mode in ("push", "add") and intervention.adds_amount:
            u_BTM = u_BTM * _places_to_add(intervention, features, grid).to(device)[None]
        yield features, modes.CODE_CHANGES[intervention.mode](s, w_M, z_BTM, u_BTM)
    for concept, w in selection.concepts:
        assert codes is not None
        features = intervention.dictionary.feature_index(concept.features)
        a_BTM, r_BTM = _amount_and_share(intervention, concept, tokens, grid)
        due_BTM = codes.of_many(features) * r_BTM
        p_BT1 = _presence(due_BTM, a_BTM)
        if intervention.adds_amount:
            yield features, (1 - p_BT1) * a_BTM * w * s
        else:
            yield features, (due_BTM + p_BT1 * a_BTM.clamp(max=0)) * w * s


def _presence(due_BTM: Tensor, a_BTM: Tensor) -> Tensor:
    """Return how much of a concept is already at each token, 0..1: [B, T, 1].

    due: z r, the part of the codes that is due to the concept. Projecting it on the amounts that the concept
    usually adds makes 1 mean "as much as usual"; clamping ensures that no more than the whole is removed.
    """
    raised_BTM = a_BTM.clamp(min=0)
    usual_BT1 = raised_BTM.square().sum(dim=-1, keepdim=True).clamp(min=_TINY)
    return ((due_BTM * raised_BTM).sum(dim=-1, keepdim=True) / usual_BT1).clamp(0, 1)


def _places_to_add(intervention: Intervention, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return how much of each feature to add at each token: its mean map [T, M], or [T, 1] of ones."""
    stats = intervention.dictionary.stats
    everywhere = intervention.place == "everywhere" or intervention.mode == "add"
    # A mask says where to add; the mean map would leave parts of the mask empty.
    if everywhere or intervention.mask is not None or stats is None or stats.mean_map is None:
        return features.new_ones(grid[0] * grid[1], 1, dtype=torch.float32)
    return maps_on_grid(stats.mean_map[features], grid)


def _amount_and_share(
    intervention: Intervention, concept: Concept, tokens: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return a concept's amount and share [B, T, M] for the kind of image that each row comes from."""
    kept, key = intervention.concept_maps, (concept, grid, tokens.device)
    if key not in kept:  # cached, because making the maps at every step would wait for the GPU
        while len(kept) >= _KEPT_GRIDS * len(intervention.selection.concepts):
            kept.pop(next(iter(kept)))
        kept[key] = _concept_on_grid(concept, grid, tokens.device)
    amount, share, reader = kept[key]
    kind_B = image_kinds(tokens.float().mean(dim=1), reader)
    return amount[kind_B], share[kind_B]


def _concept_on_grid(
    concept: Concept, grid: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a concept's amount and share, resized to [kinds, T, M], and its reader, on the device."""
    maps = (
        torch.stack([maps_on_grid(kind, grid) for kind in side]) for side in (concept.amount, concept.share)
    )
    amount, share = (side.to(device) for side in maps)
    return amount, share, concept.reader.to(device)


def _check_fit(tokens: Tensor, d_model: int, grid: tuple[int, int]) -> None:
    if tokens.ndim != 3 or tokens.shape[1] != grid[0] * grid[1]:
        raise RevelioError(
            f"Tokens of shape {list(tokens.shape)} do not fill a grid of {grid[0]} by {grid[1]}."
        )
    if tokens.shape[2] != d_model:
        raise RevelioError(
            f"This dictionary is for activations {d_model} wide, but this hook point is "
            f"{tokens.shape[2]} wide; choose the hook point that the dictionary was trained on."
        )
