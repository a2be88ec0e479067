"""The formulas of the steering modes.

    h <- h + dz W_dec[chosen]      push, add, scale, set; from papers: clamp, ablate, only
    h <- h + dh                    from papers, for a whole block: replace, ablate_block

z is the code of a chosen feature at a token, w the feature's weight, s the strength, and u the value that a
strength of 1 stands for (`unit_values`). "add", "replace" and "ablate_block" come from sdxl-unbox (Surkov
et al., arXiv 2410.22366), the unit "norm" from Shabalin et al. (arXiv 2505.24360). docs/steering.md has a
table of all modes and measurements of what they do to images.

Shapes: B rows, T tokens, D width of the activations, N features, M chosen features, K active features. A
dimension along which all values are equal may have size 1. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace as replaced
from typing import Literal, get_args

import torch
from torch import Tensor

from ..dictionary import Codes, Dictionary

Mode = Literal["push", "add", "scale", "set", "clamp", "ablate", "only", "replace", "ablate_block"]
MODES: tuple[Mode, ...] = get_args(Mode)
Unit = Literal["mean", "code", "norm"]
UNITS: tuple[Unit, ...] = get_args(Unit)

READS_CODES: frozenset[Mode] = frozenset({"scale", "set", "clamp", "ablate", "only"})
"""Modes that read the codes of the tokens; push does so too if its strength is below 0."""
ADDS_AMOUNT: frozenset[Mode] = frozenset({"add", "set", "clamp", "replace"})
"""Modes whose strength counts units (`Unit`), as the strength of `push` does when it is above 0."""

_TINY = 1e-12


def push(s: float, w_M: Tensor, z_BTM: Tensor, u_BTM: Tensor) -> Tensor:
    """Remove features where they fire (s below 0: dz = s w z), or add them (s above 0: dz = s w u).

    To add a feature in its usual places, the caller multiplies u by the feature's mean map.

    >>> z, u = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 3.0])
    >>> push(-1.0, torch.ones(2), z, u).tolist(), push(2.0, torch.ones(2), z, u).tolist()
    ([-0.0, -2.0], [6.0, 6.0])
    """
    return scale(s, w_M, z_BTM, u_BTM) if s < 0 else add(s, w_M, z_BTM, u_BTM)


def add(s: float, w_M: Tensor, _z_BTM: Tensor, u_BTM: Tensor) -> Tensor:
    """Add the same amount everywhere, whatever the token's code: dz = s w u.

    >>> add(-1.0, torch.ones(2), torch.tensor([0.0, 2.0]), torch.tensor([3.0, 3.0])).tolist()
    [-3.0, -3.0]
    """
    return s * w_M * u_BTM


def scale(s: float, w_M: Tensor, z_BTM: Tensor, _u_BTM: Tensor) -> Tensor:
    """Add a multiple of the code: dz = s w z. A strength of +1 doubles a feature, -1 switches it off.

    >>> scale(1.0, torch.ones(2), torch.tensor([0.0, 2.0]), torch.ones(2)).tolist()
    [0.0, 2.0]
    """
    return s * w_M * z_BTM


def set_to(s: float, w_M: Tensor, z_BTM: Tensor, u_BTM: Tensor) -> Tensor:
    """Set the code to the same value everywhere: dz = s w u - z.

    >>> set_to(1.0, torch.ones(2), torch.tensor([0.0, 2.0]), torch.tensor([3.0, 3.0])).tolist()
    [3.0, 1.0]
    """
    return s * w_M * u_BTM - z_BTM


def clamp(s: float, w_M: Tensor, z_BTM: Tensor, u_BTM: Tensor) -> Tensor:
    """Keep the code within a limit l: dz = clamp(z, -l, l) - z with l = s |w| u, s above 0.

    >>> clamp(0.5, torch.ones(2), torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0])).tolist()
    [0.0, -0.5]
    """
    limit_BTM = s * w_M.abs() * u_BTM
    return z_BTM.clamp(-limit_BTM, limit_BTM) - z_BTM


def ablate(s: float, w_M: Tensor, z_BTM: Tensor, _u_BTM: Tensor) -> Tensor:
    """Remove a share of the feature where it fires (1 switches it off): dz = -|s| w z.

    >>> ablate(1.0, torch.ones(2), torch.tensor([0.0, 2.0]), torch.ones(2)).tolist()
    [-0.0, -2.0]
    """
    return -abs(s) * w_M * z_BTM


CODE_CHANGES: Mapping[Mode, Callable[[float, Tensor, Tensor, Tensor], Tensor]] = {
    "push": push,
    "add": add,
    "scale": scale,
    "set": set_to,
    "clamp": clamp,
    "ablate": ablate,
}
"""Mode -> function that returns dz [B, T, M], for the modes that change only the chosen features."""


def only(
    dictionary: Dictionary, codes: Codes, features: Tensor, w_M: Tensor, s: float, timestep: float
) -> Tensor:
    """Return the change to the tokens [B, T, D] that switches off all features except the chosen ones.

    dz = |s| (w - 1) z for the chosen features and -|s| z for all others. The bias stays, and so does the
    error (what the dictionary does not explain): strength 1 leaves error + b_out + (w z)_chosen W_dec.

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, eye, zero, zero, Activation("relu", k=2))
    >>> codes = sae.encode(torch.tensor([[[3.0, 2.0]]]))
    >>> only(sae, codes, torch.tensor([1]), torch.ones(1), 1.0, 0.0).tolist()
    [[[-3.0, 0.0]]]
    """
    kept_N = torch.zeros(dictionary.n_features, device=codes.values.device)
    kept_N[features.to(kept_N.device)] = w_M.to(kept_N.device)
    # Computed for the K active features, not for all N: a feature that does not fire does not change.
    dz_BTK = abs(s) * (kept_N[codes.indices] - 1) * codes.values
    # `decode` also restores the scale of normalising dictionaries. It adds a bias, which is subtracted again.
    changed_BTD = dictionary.decode(replaced(codes, values=dz_BTK), timestep=timestep)
    return changed_BTD - decode_nothing(dictionary, codes, timestep)


def replace(dictionary: Dictionary, x_BTD: Tensor, features: Tensor, dz_M: Tensor, timestep: float) -> Tensor:
    """Return the change dh = x' - x that leaves only the chosen features in a token, at dz = s w u.

    x' = dz W_dec, plus b_out if the dictionary reads outputs. If the dictionary reads output - input, the
    block then contributes only these features (as in the feature icons of sdxl-unbox).

    >>> from comfy_revelio.dictionary import Activation, Provenance
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> relu, block = Activation("relu", k=2), Provenance(captured="diff")
    >>> sae = Dictionary(eye, zero, eye, zero, zero, relu, provenance=block)
    >>> replace(sae, torch.tensor([[[3.0, 2.0]]]), torch.tensor([1]), torch.tensor([5.0]), 0.0).tolist()
    [[[-3.0, 3.0]]]
    """
    added_BTD = dictionary.contribution(dz_M, features, x_BTD, timestep=timestep)
    return without_features(dictionary, x_BTD, timestep) + added_BTD - x_BTD


def ablate_block(x_BTD: Tensor, s: float) -> Tensor:
    """Return the change -|s| x, which removes a share of the block's contribution x = output - input.

    >>> ablate_block(torch.tensor([3.0, 2.0]), 0.5).tolist()
    [-1.5, -1.0]
    """
    return -abs(s) * x_BTD


def without_features(dictionary: Dictionary, x_BTD: Tensor, timestep: float) -> Tensor:
    """Return featureless tokens [B, T, D]: 0 if the dictionary reads output - input, else the bias.

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero, bias = torch.eye(2), torch.zeros(2), torch.tensor([0.5, 1.0])
    >>> sae = Dictionary(eye, zero, eye, bias, bias, Activation("relu", k=2))
    >>> without_features(sae, torch.tensor([[[3.0, 2.0]]]), 0.0).tolist()
    [[[0.5, 1.0]]]
    """
    if dictionary.captured != "output":
        return torch.zeros_like(x_BTD)
    return decode_nothing(dictionary, dictionary.encode(x_BTD, timestep=timestep), timestep)


def decode_nothing(dictionary: Dictionary, codes: Codes, timestep: float) -> Tensor:
    """Decode codes in which no feature fires, at the scale and shift of the given codes: [B, T, D].

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero, bias = torch.eye(2), torch.zeros(2), torch.tensor([0.5, 1.0])
    >>> sae = Dictionary(eye, zero, eye, bias, bias, Activation("relu", k=2))
    >>> codes = Codes(torch.tensor([[[1]]]), torch.tensor([[[3.0]]]), 2, scale=torch.tensor([[4.0]]))
    >>> decode_nothing(sae, codes, 0.0).tolist()
    [[[2.0, 4.0]]]
    """
    none = replaced(codes, indices=codes.indices[..., :1], values=torch.zeros_like(codes.values[..., :1]))
    return dictionary.decode(none, timestep=timestep)


def unit_values(dictionary: Dictionary, features: Tensor, unit: Unit, x_BTD: Tensor) -> Tensor:
    """Return the value u that strength 1 means for each feature: float32 [M], or [B, 1, M] for "norm".

    "mean": the feature's mean value where it fires (sdxl-unbox). "code": 1, so that strengths are codes.
    "norm": mean ||x|| / ||W_dec[f]||, which adds a vector as long as the image's mean token (2505.24360).

    >>> from comfy_revelio.dictionary import Activation
    >>> eye, zero = torch.eye(2), torch.zeros(2)
    >>> sae = Dictionary(eye, zero, 2 * eye, zero, zero, Activation("relu", k=2))
    >>> unit_values(sae, torch.tensor([1]), "norm", torch.tensor([[[3.0, 4.0]]])).tolist()
    [[[2.5]]]
    """
    if unit == "code":
        return torch.ones(len(features), device=x_BTD.device)
    if unit == "mean":
        stats = dictionary.stats
        assert stats is not None  # checked when the intervention was made
        return stats.mean_active[features].float().to(x_BTD.device)
    length_B11 = x_BTD.float().norm(dim=-1).mean(dim=-1)[:, None, None]
    return length_B11 / dictionary.directions(features).norm(dim=-1).to(x_BTD.device).clamp(min=_TINY)
