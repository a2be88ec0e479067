"""Compute the noise level to which a real image is noised for a timestep."""

from __future__ import annotations

import math
from typing import Any

import torch


def sigma_at(time: float, sampling: Any) -> float:
    """Return the sigma that corresponds to timestep `time`, on a scale from 0 (clean) to 1000 (noise).

    sampling: the model's `model_sampling`. In flow models the timestep is the share of noise (up to 1 or
    1000), and sigma is time / 1000. Other models look up `time` in a table of sigmas. Models without such a
    table use the sigma at progress 1 - time / 1000.
    """
    half, whole = (float(sampling.timestep(torch.tensor(share))) for share in (0.5, 1.0))
    counts_noise = any(math.isclose(whole, most, rel_tol=1e-3) for most in (1.0, 1000.0))
    if counts_noise and math.isclose(2 * half, whole, rel_tol=1e-4):
        return time / 1000
    sigma = sampling.sigma(torch.tensor(float(time)))
    if abs(float(sampling.timestep(sigma)) - time) <= 0.5:
        return float(sigma)
    return float(sampling.percent_to_sigma(1 - time / 1000))
