"""Compute how the inputs are scaled, and initialise the weights.

Shapes: R sampled rows, D width of the activations, N features.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..errors import RevelioError
from .config import TrainConfig


def mean_and_scale(rows_RD: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Return the mean to subtract from each input and the factors to multiply it by, both float32 [D]."""
    mean_D = rows_RD.mean(dim=0)
    square_D = (rows_RD - mean_D).square().mean(dim=0)
    square = float(square_D.mean())
    if not math.isfinite(square) or square == 0.0:
        raise RevelioError("The activations to train on are constant or not finite; harvest them again.")
    if config.scale_input == "one":
        return mean_D, torch.full((rows_RD.shape[1],), 1 / math.sqrt(square))
    if config.scale_input == "each":  # the lower bound limits the factors of dimensions that hardly vary
        return mean_D, square_D.clamp(min=square * 1e-6).rsqrt().cpu()
    return mean_D, torch.ones(rows_RD.shape[1])


def decoder_and_encoder(config: TrainConfig, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return W_dec (rows of norm 1) and W_enc, both float32 [N, D]; with init "tied" the two are equal."""
    n = config.n_features
    decoder_ND = encoder_ND = torch.randn(n, width, generator=generator)  # even if unused: seeds stay valid
    if config.init == "kaiming":
        decoder_ND, encoder_ND = (_kaiming(n, width, generator) for _ in range(2))
    decoder_ND = decoder_ND / decoder_ND.norm(dim=1, keepdim=True)
    return decoder_ND, decoder_ND if config.init == "tied" else encoder_ND


def shared_bias(config: TrainConfig, rows_RD: Tensor, zero_D: Tensor) -> Tensor:
    """Return the initial bias, float32 [D]. zero_D: the activation 0, centred and scaled as the rows are."""
    if config.bias == "geometric_median":
        return geometric_median(rows_RD)
    # the mean of the rows is 0, because they are centred; "zeros" means the raw activation 0, now `zero_D`
    return torch.zeros_like(zero_D) if config.bias == "mean" else zero_D


def geometric_median(rows: Tensor, rounds: int = 100, limit: int = 32768) -> Tensor:
    """Return the point, float32 [D], with the smallest sum of distances to the rows [R, D] (Weiszfeld).

    >>> geometric_median(torch.tensor([[0.0], [1.0], [1.0], [1.0], [50.0]])).round(decimals=3).tolist()
    [1.0]
    """
    rows = rows[:limit].float()
    guess = rows.mean(dim=0)
    for _ in range(rounds):
        weights = 1 / (rows - guess).norm(dim=1, keepdim=True).clamp(min=1e-6)
        following = (rows * weights).sum(dim=0) / weights.sum()
        if float((following - guess).norm()) <= 1e-6 * float(guess.norm()):
            return following
        guess = following
    return guess


def _kaiming(n: int, d: int, generator: Generator) -> Tensor:
    """Draw a matrix [n, d] as kaiming_uniform_ draws Revelio's [D, N] matrix, whose fan-in is N."""
    bound = math.sqrt(6 / n)
    return torch.empty(n, d).uniform_(-bound, bound, generator=generator)
