"""Scale and shift activations by amounts that depend on the timestep, for dictionaries that do so.

    in    x <- x (1 + scale_in(t)) + shift_in(t)             after subtracting b_in
    out   x^ <- (z W_dec) (1 + scale_out(t)) + shift_out(t)    before adding b_out

The idea is from TIDE (arXiv 2503.07050). What a feature looks like drifts with the noise level, so the
timestep modulates the dictionary's input and output, as it modulates the blocks of a diffusion model. TIDE's
code was not published. Our network is a sinusoidal embedding of t, one hidden SiLU layer and four outputs.

Shapes: B rows, D width of the activations, H hidden width, E width of the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NAMES = ("time_W1", "time_b1", "time_W2", "time_b2")
EMBEDDING = 64
HIDDEN = 128
_LONGEST = 10_000.0


class Modulation(nn.Module):
    """Map timesteps [B] to (scale_in, shift_in, scale_out, shift_out), each [B, D]; new weights give only 0.

    Buffers: time_W1 [H, E], time_b1 [H], time_W2 [4 D, H], time_b2 [4 D].
    """

    time_W1: Tensor
    time_b1: Tensor
    time_W2: Tensor
    time_b2: Tensor

    def __init__(self, time_W1: Tensor, time_b1: Tensor, time_W2: Tensor, time_b2: Tensor) -> None:
        super().__init__()
        for name, tensor in zip(NAMES, (time_W1, time_b1, time_W2, time_b2), strict=True):
            self.register_buffer(name, tensor.detach())

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map timesteps, float [B], to (scale_in, shift_in, scale_out, shift_out), each float32 [B, D]."""
        device = timestep.device
        W1, b1, W2, b2 = (getattr(self, name).to(device).float() for name in NAMES)
        return modulate(timestep, W1, b1, W2, b2)

    def fits(self, d_model: int) -> bool:
        """Whether the four tensors fit each other and activations of width `d_model`."""
        hidden = self.time_b1.shape[0] if self.time_b1.ndim == 1 else -1
        return (
            self.time_W1.ndim == 2
            and self.time_W1.shape[0] == hidden
            and self.time_W1.shape[1] % 2 == 0
            and tuple(self.time_W2.shape) == (4 * d_model, hidden)
            and tuple(self.time_b2.shape) == (4 * d_model,)
        )


def new_weights(
    d_model: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return initial weights (W1, b1, W2, b2) for a modulation that does not change its inputs yet."""
    W1 = torch.randn(HIDDEN, EMBEDDING, generator=generator) / EMBEDDING**0.5
    return W1, torch.zeros(HIDDEN), torch.zeros(4 * d_model, HIDDEN), torch.zeros(4 * d_model)


def modulate(
    timestep_B: Tensor, W1_HE: Tensor, b1_H: Tensor, W2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute `Modulation.forward` with the given weights; training uses this function directly.

    >>> [part.tolist() for part in modulate(torch.tensor([300.0]), *new_weights(2))]
    [[[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
    """
    half = W1_HE.shape[1] // 2
    rates = torch.exp(-math.log(_LONGEST) * torch.arange(half, device=timestep_B.device) / half)
    angles = timestep_B.float()[:, None] * rates
    embedding_BE = torch.cat([angles.cos(), angles.sin()], dim=-1)
    hidden_BH = nn.functional.silu(embedding_BE @ W1_HE.T + b1_H)
    scale_in, shift_in, scale_out, shift_out = (hidden_BH @ W2.T + b2).chunk(4, dim=-1)
    return scale_in, shift_in, scale_out, shift_out
