"""Transform activations before encoding. Decoding undoes only the normalisation.

    whitening       x <- clamp(x W + w, -clip, clip)      fae, arXiv 2505.24360
    normalisation   x <- (x - shift) / scale              decoding multiplies by scale and adds shift

Decoding need not undo whitening, because W_dec and b_out of a whitened dictionary produce raw activations.
Whitening cannot be folded into W_enc because of the clamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RevelioError, checked_choice
from .timestep_modulation import Modulation

Normalisation = Literal["none", "layernorm", "rms"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)

_EPS = 1e-5  # added to the deviation, as in OpenAI's code


@dataclass(frozen=True, eq=False)
class InputTransform:
    """Whitening, normalisation, and modulation by the timestep; all are off by default."""

    normalise: Normalisation = "none"
    """"layernorm": subtract the mean, divide by the deviation. "rms": divide by the root mean square."""
    whitening: Tensor | None = None
    """W [d, d]; applied before everything else."""
    whitening_bias: Tensor | None = None
    """w [d]."""
    clip: float = 0.0
    """Largest absolute value after whitening; 0 means no clipping."""
    modulation: Modulation | None = None
    """Scales and shifts input and output by amounts that depend on the timestep."""

    def check(self, d_model: int) -> None:
        """Raise RevelioError unless the transform fits activations of width `d_model`."""
        checked_choice("normalisation", self.normalise, NORMALISATIONS)
        shapes = [None if t is None else tuple(t.shape) for t in (self.whitening, self.whitening_bias)]
        if shapes not in ([None, None], [(d_model, d_model), (d_model,)]):
            raise RevelioError(
                f"Whitening of activations {d_model} wide needs a matrix [{d_model}, {d_model}] and a bias "
                f"[{d_model}]; got {shapes[0]} and {shapes[1]}."
            )
        if self.clip < 0 or (self.clip and self.whitening is None):
            raise RevelioError(f"A clip must not be negative and needs whitening; got a clip of {self.clip}.")
        if self.modulation is not None and not self.modulation.fits(d_model):
            raise RevelioError(f"The modulation of this dictionary does not fit activations {d_model} wide.")


def whiten(x_BD: Tensor, W_DD: Tensor, w_D: Tensor, clip: float) -> Tensor:
    """Return x W + w, clamped to -clip..clip unless clip is 0: float32 [B, D].

    >>> whiten(torch.tensor([[1.0, 4.0]]), torch.eye(2) * 3, torch.zeros(2), 10.0).tolist()
    [[3.0, 10.0]]
    """
    x_BD = x_BD @ W_DD.to(x_BD.device).float() + w_D.to(x_BD.device).float()
    return x_BD.clamp(-clip, clip) if clip else x_BD


def normalise(x: Tensor, kind: Normalisation) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return x (float32 [..., d]) normalised, and the scale and shift ([..., 1] or None) to undo that.

    >>> x, scale, shift = normalise(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), "rms")
    >>> x.tolist(), scale.tolist(), shift
    ([[1.2000000476837158, 1.600000023841858, 0.0, 0.0]], [[2.5]], None)
    """
    if kind == "layernorm":
        mean = x.mean(dim=-1, keepdim=True)
        centred = x - mean
        deviation = centred.std(dim=-1, keepdim=True)
        return centred / (deviation + _EPS), deviation, mean
    if kind == "rms":
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return x / scale.clamp(min=torch.finfo(torch.float32).tiny), scale, None
    return x, None, None
