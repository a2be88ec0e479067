"""Scale and shift of activations by timestep, for dictionaries that follow the denoising process.

The idea of TIDE (arXiv 2503.07050): what a feature looks like drifts with the noise level, so input and
output of the dictionary are modulated by the timestep, as a diffusion model modulates its own blocks. No code
was published; the shape of the small network is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EMBEDDING = 64
HIDDEN = 128
_LONGEST = 10_000.0


class Modulation(nn.Module):
    """timestep -> (scale_in, shift_in, scale_out, shift_out), each [..., d]; zero when new.

    Buffers: time_W1 [h, e], time_b1 [h], time_W2 [4 d, h], time_b2 [4 d].
    """

    time_W1: Tensor
    time_b1: Tensor
    time_W2: Tensor
    time_b2: Tensor

    def __init__(self, time_W1: Tensor, time_b1: Tensor, time_W2: Tensor, time_b2: Tensor) -> None:
        super().__init__()
        for name, tensor in zip(NAMES, (time_W1, time_b1, time_W2, time_b2), strict=True):
            self.register_buffer(name, tensor.detach())

    @property
    def d_model(self) -> int:
        return self.time_b2.shape[0] // 4

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """timestep: float [rows] -> four float32 tensors [rows, d]."""
        device = timestep.device
        W1, b1, W2, b2 = (getattr(self, name).to(device).float() for name in NAMES)
        return modulate(timestep, W1, b1, W2, b2)

    def fits(self, d_model: int) -> bool:
        """Whether the four tensors belong together and to activations of this width."""
        hidden = self.time_b1.shape[0] if self.time_b1.ndim == 1 else -1
        return (
            self.time_W1.ndim == 2
            and self.time_W1.shape[0] == hidden
            and self.time_W1.shape[1] % 2 == 0
            and tuple(self.time_W2.shape) == (4 * d_model, hidden)
            and tuple(self.time_b2.shape) == (4 * d_model,)
        )


NAMES = ("time_W1", "time_b1", "time_W2", "time_b2")


def new_weights(
    d_model: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Initial weights: the modulation starts as none at all."""
    W1 = torch.randn(HIDDEN, EMBEDDING, generator=generator) / EMBEDDING**0.5
    return W1, torch.zeros(HIDDEN), torch.zeros(4 * d_model, HIDDEN), torch.zeros(4 * d_model)


def modulate(
    timestep: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as a function of the weights, for training. timestep [rows] -> four times [rows, d]."""
    half = W1.shape[1] // 2
    rates = torch.exp(-math.log(_LONGEST) * torch.arange(half, device=timestep.device) / half)
    angles = timestep.float()[:, None] * rates
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    hidden = nn.functional.silu(embedding @ W1.T + b1)
    a, b, c, d = (hidden @ W2.T + b2).chunk(4, dim=-1)
    return a, b, c, d
