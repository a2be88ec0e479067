"""Compute the code z of an input x. Each kind of activation has one small function.

b_in was already subtracted from x. With h = W_enc x + b_enc and g = W_enc x:

    topk_relu     z = ReLU(TopK(h))                                 Gao et al., arXiv 2406.04093, section 2.3
    topk_signed   z = TopK(h), negative values kept                 the code of Revelio, arXiv 2411.16725
    groupmax      z = ReLU(largest h) in each of k equal groups     the code of EleutherAI's sparsify
    relu          z = ReLU(h)
    jumprelu      z = h where h > max(threshold, 0), else 0         arXiv 2407.14435
    gated         z = ReLU(magnitude * g + b_enc) where g + gate_bias > 0, else 0     arXiv 2404.16014
    pursuit       z = gradient pursuit of x over the rows of W_enc  ITDA, arXiv 2505.17769

A trained BatchTopK dictionary (arXiv 2412.06410) is a "jumprelu" with one threshold for all features. "relu",
"jumprelu" and "gated" have no fixed number of active features. A code keeps at most the k strongest
features; k = n (the number of features) keeps all of them.

Shapes: B rows, D width of the activations, N features, K active features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RevelioError, checked_choice
from .gradient_pursuit import gradient_pursuit
from .topk import group_max, positive, top_k

ActivationKind = Literal["topk_relu", "topk_signed", "groupmax", "relu", "jumprelu", "gated", "pursuit"]
ACTIVATION_KINDS: tuple[ActivationKind, ...] = get_args(ActivationKind)


@dataclass(frozen=True, eq=False)
class Activation:
    """A kind of activation and the tensors that it needs; the equations are at the top of this file."""

    kind: ActivationKind
    k: int
    """The largest number of active features in a code."""
    threshold: Tensor | None = None
    """[n]; only for "jumprelu"."""
    gate_bias: Tensor | None = None
    """[n]; only for "gated"."""
    magnitude: Tensor | None = None
    """[n]; only for "gated"."""

    def check(self, n_features: int) -> None:
        """Raise RevelioError unless this activation fits a dictionary with `n_features` features."""
        checked_choice("activation", self.kind, ACTIVATION_KINDS)
        if not 1 <= self.k <= n_features:
            raise RevelioError(f"k must be from 1 to {n_features}, the number of features; got {self.k}.")
        if self.kind == "groupmax" and n_features % self.k:
            raise RevelioError(f"{n_features} features cannot be split into k = {self.k} equal groups.")
        needed = {"threshold": "jumprelu", "gate_bias": "gated", "magnitude": "gated"}
        for name, kind in needed.items():
            tensor: Tensor | None = getattr(self, name)
            found = "absent" if tensor is None else list(tensor.shape)
            wanted = [n_features] if kind == self.kind else "absent"
            if found != wanted:
                raise RevelioError(
                    f"A dictionary with activation {self.kind!r} needs {name} {wanted}; got {found}."
                )


@dataclass(frozen=True, eq=False)
class Encoder:
    """The weights (float32, all on one device) and the activation that turn inputs into codes."""

    W_enc_ND: Tensor
    b_enc_N: Tensor
    activation: Activation

    def pre_activations(self, x_BD: Tensor) -> Tensor:
        """Return the pre-activations h [B, N]."""
        return torch.addmm(self.b_enc_N, x_BD, self.W_enc_ND.T)

    def select(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return indices (int64) and values (float32) of active features, both [B, K], strongest first."""
        return ACTIVATIONS[self.activation.kind](x_BD, self)


def _jumprelu(x_BD: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
    h_BN, threshold_N = encoder.pre_activations(x_BD), encoder.activation.threshold
    assert threshold_N is not None
    return positive(torch.where(h_BN > threshold_N, h_BN, 0.0), encoder.activation.k)


def _gated(x_BD: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
    activation = encoder.activation
    assert activation.gate_bias is not None and activation.magnitude is not None
    g_BN = x_BD @ encoder.W_enc_ND.T
    z_BN = g_BN * activation.magnitude + encoder.b_enc_N
    return positive(torch.where(g_BN + activation.gate_bias > 0, z_BN, 0.0), activation.k)


ACTIVATIONS: dict[ActivationKind, Callable[[Tensor, Encoder], tuple[Tensor, Tensor]]] = {
    "topk_relu": lambda x_BD, enc: top_k(enc.pre_activations(x_BD), enc.activation.k, signed=False),
    "topk_signed": lambda x_BD, enc: top_k(enc.pre_activations(x_BD), enc.activation.k, signed=True),
    "groupmax": lambda x_BD, enc: group_max(enc.pre_activations(x_BD), enc.activation.k),
    "relu": lambda x_BD, enc: positive(enc.pre_activations(x_BD), enc.activation.k),
    "jumprelu": _jumprelu,
    "gated": _gated,
    "pursuit": lambda x_BD, enc: positive(
        gradient_pursuit(x_BD, enc.W_enc_ND, enc.activation.k), enc.activation.k
    ),
}
"""Kind -> function from x [B, D] to the indices and values of the active features, both [B, K]."""
