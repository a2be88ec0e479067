"""Gradient pursuit for ITDA (arXiv 2505.17769): find a sparse code z with z A close to a signal x.

The rows a of A are atoms, r = x - z A is the residual. Each of k rounds, as in the code of arXiv 2505.24360:

    the atom with the largest r . a joins the chosen atoms
    g = r A^T over the chosen atoms, 0 elsewhere        the gradient
    s = (g A . r) / |g A|^2                             the best step length along g
    z <- ReLU(z + s g)

Atoms are activations and resemble each other, so float32 rounding errors would grow from round to round until
wrong atoms are chosen. Therefore everything is in float64, except each round's first search over all atoms.

Shapes: B rows, D width, N atoms, K rounds, R rivals.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-3  # lower bound on |g A|^2, to avoid division by 0
_RIVALS = 4  # the best atoms in float32, of which float64 chooses one
_CHUNK = 1 << 24  # largest number of elements in a table of chosen atoms


def gradient_pursuit(signal: Tensor, atoms: Tensor, k: int) -> Tensor:
    """Approximate signal [B, D] by z @ atoms [N, D]; return z [B, N], at most k per row above 0 (float32).

    >>> gradient_pursuit(torch.tensor([[3.0, 0.5]]), torch.eye(2), k=1).tolist()
    [[3.0, 0.0]]
    """
    rows = max(1, _CHUNK // max(1, k * signal.shape[1]))
    weights = signal.new_zeros(len(signal), len(atoms))
    for part, out in zip(signal.split(rows), weights.split(rows), strict=True):
        _pursue(part, atoms, k, out)
    return weights


def _pursue(signal: Tensor, atoms_ND: Tensor, k: int, out_BN: Tensor) -> None:
    """Add the weights to out_BN (zeros). Slot j of a row is for the atom chosen in round j."""
    exact = torch.float32 if signal.device.type == "mps" else torch.float64
    n_rows, d = signal.shape
    index_BK = torch.full((n_rows, k), -1, device=signal.device)
    chosen_BKD = torch.zeros(n_rows, k, d, dtype=exact, device=signal.device)
    z_BK = torch.zeros(n_rows, k, dtype=exact, device=signal.device)
    x_BD = signal.to(exact)
    residual_BD = x_BD
    for step in range(k):
        rivals_BR = (residual_BD.float() @ atoms_ND.T).topk(min(_RIVALS, len(atoms_ND)), dim=1).indices
        winner_B1 = _along(atoms_ND[rivals_BR].to(exact), residual_BD).argmax(dim=1, keepdim=True)
        best_B1 = rivals_BR.gather(1, winner_B1)
        again_BK = index_BK == best_B1  # this atom already has a slot, though its weight may be 0 again
        index_BK[:, step] = torch.where(again_BK.any(dim=1), -1, best_B1[:, 0])
        chosen_BKD[:, step] = atoms_ND[best_B1[:, 0]].to(exact)
        selected_BK = (z_BK != 0) | again_BK
        selected_BK[:, step] = ~again_BK.any(dim=1)
        gradient_BK = torch.where(selected_BK, _along(chosen_BKD, residual_BD), 0.0)
        direction_BD = _sum(gradient_BK, chosen_BKD)
        length_B = direction_BD.square().sum(dim=1).clamp(min=_SMALLEST)
        size_B = (direction_BD * residual_BD).sum(dim=1) / length_B
        z_BK = (z_BK + size_B[:, None] * gradient_BK).relu_()
        residual_BD = x_BD - _sum(z_BK, chosen_BKD)
    out_BN.scatter_add_(1, index_BK.clamp(min=0), z_BK.to(out_BN.dtype))


def _along(atoms_BKD: Tensor, residual_BD: Tensor) -> Tensor:
    """Return, for each row, the dot products of its atoms with its residual: [B, K]."""
    return (atoms_BKD @ residual_BD[:, :, None]).squeeze(2)


def _sum(weights_BK: Tensor, atoms_BKD: Tensor) -> Tensor:
    """Return, for each row, the weighted sum of its atoms: [B, D]."""
    return (weights_BK[:, None, :] @ atoms_BKD).squeeze(1)
