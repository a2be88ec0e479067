"""The formulas of the steering modes, as changes of the codes or of the tokens themselves.

z: the codes of the chosen features at every token [B, T, m]; w [m]: their weights; unit [m] or [B, 1, m]: the
value that a strength of 1 means. All float32.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..dictionary import Codes, Dictionary

# Modes that ask what the feature does at the token, and modes that bring an amount of their own.
READING = ("scale", "set", "clamp", "ablate", "only")
BRINGING = ("add", "set", "clamp", "replace")


def change_of_codes(mode: str, strength: float, w: Tensor, z: Tensor, unit: Tensor) -> Tensor:
    """dz [B or 1, T or 1, m] of the modes that change the chosen features alone.

    z is 0 where a mode does not read it, and unit 1 where it brings nothing of its own; see `Intervention`.
    """
    if mode == "add":
        return strength * w * unit
    if mode == "scale":
        return strength * w * z
    if mode == "set":
        return strength * w * unit - z
    if mode == "clamp":
        limit = strength * w.abs() * unit
        return z.clamp(-limit, limit) - z
    assert mode == "ablate"
    return -abs(strength) * w * z


def unit_values(dictionary: Dictionary, features: Tensor, unit: str, tokens: Tensor) -> Tensor:
    """What a strength of 1 means for each feature: float32 [m], or [B, 1, m] for "norm".

    "mean": its mean active value (sdxl-unbox). "code": 1, the feature's own number. "norm": as long as the
    mean token of the picture [B, T, d] is, along the feature's direction (Shabalin et al., 2505.24360).
    """
    if unit == "code":
        return torch.ones(len(features), device=tokens.device)
    if unit == "mean":
        stats = dictionary.stats
        assert stats is not None  # checked when the intervention was made
        return stats.mean_active[features].float().to(tokens.device)
    length = tokens.float().norm(dim=-1).mean(dim=-1)[:, None, None]
    return length / dictionary.directions(features).norm(dim=-1).to(tokens.device).clamp(min=1e-12)


def only(
    dictionary: Dictionary,
    codes: Codes,
    features: Tensor,
    w: Tensor,
    strength: float,
    timestep: float,
) -> Tensor:
    """The tokens' change [B, T, d] when every other feature is switched off, by |strength|.

    Bias and reconstruction error stay: with strength 1 what is left is error + b + (w z)_chosen @ W_dec.
    """
    kept = torch.zeros(dictionary.n_features, device=codes.values.device)
    kept[features.to(kept.device)] = w.to(kept.device)
    values = abs(strength) * (kept[codes.indices] - 1) * codes.values
    changed = dictionary.decode(replace(codes, values=values), timestep=timestep)
    return changed - nothing(dictionary, codes, timestep)


def nothing(dictionary: Dictionary, codes: Codes, timestep: float) -> Tensor:
    """What the dictionary makes of no features at all: its bias, [B, T, d]."""
    none = replace(codes, indices=codes.indices[..., :1], values=torch.zeros_like(codes.values[..., :1]))
    return dictionary.decode(none, timestep=timestep)
