"""ITDA: a dictionary whose features are activations themselves (arXiv 2505.17769; on Flux, 2505.24360).

Nothing is optimised. An activation that the existing features explain badly becomes a new feature (an atom),
normalised to unit length. Gradient pursuit computes the codes.

Shapes: B activations, D width of the activations, A atoms so far.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dictionary import Activation, Dictionary
from ..dictionary.gradient_pursuit import gradient_pursuit
from ..errors import RevelioError
from .batches import Rows, batches, sample_rows
from .config import TrainConfig

_SAMPLE = 32768
_PART = 256
"""Number of activations compared with the atoms at once, and therefore not with one another."""


@torch.no_grad()
def collect_atoms(
    rows: Rows,
    config: TrainConfig,
    device: torch.device,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    timesteps: Tensor | None = None,
) -> Dictionary:
    """Collect up to n_features atoms from at most `steps` batches, after subtracting the mean activation."""
    first = sample_rows(rows, timesteps, _SAMPLE, config.batch, config.seed).to(device)
    mean = first.mean(dim=0)
    variance = (first - mean).square().sum(dim=1).mean()
    if not bool(variance.isfinite()) or float(variance) == 0.0:
        raise RevelioError("The activations to train on are constant or not finite; harvest them again.")
    atoms = first.new_zeros(config.n_features, first.shape[1])
    count, mean_fvu = 0, 1.0
    stream = batches(rows, timesteps, config.batch, config.seed, device=device)
    for step in range(1, config.steps + 1):
        x, _ = next(stream)
        for part in (x - mean).split(_PART):
            if count == config.n_features:
                break
            fvu = _unexplained(part, atoms[:count], config.k) / variance
            mean_fvu += 0.05 * (float(fvu.mean()) - mean_fvu)
            new = part[fvu > config.fvu_threshold][: config.n_features - count]
            atoms[count : count + len(new)] = new / new.norm(dim=1, keepdim=True)
            count += len(new)
        is_done = step == config.steps or count == config.n_features
        if progress is not None and (is_done or step % config.report_every == 0):
            metrics = {"loss": mean_fvu, "dead_share": 0.0}
            progress(config.steps if is_done else step, config.steps, metrics)
        if is_done:
            break
    if count < config.k:
        raise RevelioError(
            f"Only {count} activations were different enough to become features, fewer than k = {config.k}; "
            "lower fvu_threshold."
        )
    found = atoms[:count].clone()
    weights = (found, found.new_zeros(count), found.clone(), mean, mean.clone())
    return Dictionary(*weights, Activation("pursuit", config.k))


def _unexplained(x_BD: Tensor, atoms_AD: Tensor, k: int) -> Tensor:
    """Return the squared error, float32 [B], of each activation after gradient pursuit with k atoms."""
    if len(atoms_AD):
        x_BD = x_BD - gradient_pursuit(x_BD, atoms_AD, min(k, len(atoms_AD))) @ atoms_AD
    return x_BD.square().sum(dim=1)
