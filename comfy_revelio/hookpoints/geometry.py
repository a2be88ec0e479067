"""How tokens lie in an activation: maps [B, C, H, W] and sequences [B, T, C]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RevelioError

if TYPE_CHECKING:
    from torch import Tensor


def to_tokens(activation: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Tokens [B, T, C] and their grid (height, width) of a map [B, C, H, W] or sequence [B, T, C].

    A sequence lies in one row: its grid is (1, T). No copy of a sequence, a view of a map.
    """
    if activation.ndim == 4:
        return activation.flatten(2).transpose(1, 2), (activation.shape[2], activation.shape[3])
    if activation.ndim == 3:
        return activation, (1, activation.shape[1])
    raise RevelioError(
        f"Activations of the shape {list(activation.shape)} are neither a map [B, C, H, W] "
        "nor tokens [B, T, C]; choose another hook point."
    )


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens [B, T, C] laid out again as `like`, the activation that `to_tokens` was given."""
    if like.ndim == 4:
        return tokens.transpose(1, 2).reshape(like.shape)
    return tokens
