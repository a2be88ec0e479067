"""ITDA: a dictionary whose features are activations themselves (arXiv 2505.24360).

There is nothing to optimise: activations stream by, and those that the features so far explain badly become
features, at unit length. Codes come from gradient pursuit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dictionary import Activation, Dictionary
from ..dictionary.gradient_pursuit import gradient_pursuit
from ..errors import RevelioError
from .batches import Rows, batches, sample
from .config import TrainConfig

_SAMPLE = 32768
_PART = 256
"""Activations judged at a time: those that join together do not know of each other."""


@torch.no_grad()
def collect(
    rows: Rows,
    config: TrainConfig,
    device: torch.device,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    timesteps: Tensor | None = None,
) -> Dictionary:
    """Collect up to n_features atoms in at most `steps` batches; the mean of the rows is taken off first."""
    first = sample(rows, timesteps, _SAMPLE, config.batch, config.seed).to(device)
    mean = first.mean(dim=0)
    variance = (first - mean).square().sum(dim=1).mean()
    if not bool(variance.isfinite()) or float(variance) == 0.0:
        raise RevelioError("The activations to train on are constant or not finite; harvest them again.")
    atoms = first.new_zeros(config.n_features, first.shape[1])
    count, unexplained = 0, 1.0
    stream = batches(rows, timesteps, config.batch, config.seed, device=device)
    for step in range(1, config.steps + 1):
        x, _ = next(stream)
        for part in (x - mean).split(_PART):
            if count == config.n_features:
                break
            error = part.square().sum(dim=1)
            if count:
                z = gradient_pursuit(part, atoms[:count], min(config.k, count))
                error = (part - z @ atoms[:count]).square().sum(dim=1)
            fvu = error / variance
            unexplained += 0.05 * (float(fvu.mean()) - unexplained)
            new = part[fvu > config.fvu_threshold][: config.n_features - count]
            atoms[count : count + len(new)] = new / new.norm(dim=1, keepdim=True)
            count += len(new)
        done = step == config.steps or count == config.n_features
        if progress is not None and (done or step % config.report_every == 0):
            progress(config.steps if done else step, config.steps, {"loss": unexplained, "dead_share": 0.0})
        if done:
            break
    if count < config.k:
        raise RevelioError(
            f"Only {count} activations are unlike the others, fewer than k = {config.k}; lower fvu_threshold."
        )
    found = atoms[:count].clone()
    weights = (found, found.new_zeros(count), found.clone(), mean, mean.clone())
    return Dictionary(*weights, Activation("pursuit", config.k))
