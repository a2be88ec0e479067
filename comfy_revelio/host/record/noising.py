"""How much noise a real image gets for a timestep."""

from __future__ import annotations

import math
from typing import Any

import torch


def sigma_at(time: float, sampling: Any) -> float:
    """The sigma at which a network is at timestep `time` of 1000.

    sampling: the model's `model_sampling`. Flow models count the share of noise, from 0 to 1 or to 1000.
    Models that count timesteps have them in their table. For others `time` is a share of the schedule.
    """
    half, whole = (float(sampling.timestep(torch.tensor(share))) for share in (0.5, 1.0))
    counts_noise = any(math.isclose(whole, most, rel_tol=1e-3) for most in (1.0, 1000.0))
    if counts_noise and math.isclose(2 * half, whole, rel_tol=1e-4):
        return time / 1000
    sigma = sampling.sigma(torch.tensor(float(time)))
    if abs(float(sampling.timestep(sigma)) - time) <= 0.5:
        return float(sigma)
    return float(sampling.percent_to_sigma(1 - time / 1000))
