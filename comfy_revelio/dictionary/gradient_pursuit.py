"""Gradient pursuit: the sparse code of a signal over a fixed set of atoms, for ITDA (arXiv 2505.17769).

As in the code behind arXiv 2505.24360: in each of k rounds the atom that fits the residual best joins, all
weights take one optimal gradient step, and negative weights are cut to zero.

Atoms are activations and so resemble each other: rounding in float32 grows from round to round until other
atoms are chosen. So everything but the search for the best atom is in float64, over the chosen atoms alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-3  # bound on the squared length of a step, against division by nothing
_RIVALS = 4  # atoms that fit best in float32, between which float64 decides
_CHUNK = 1 << 24  # numbers of chosen atoms in memory at once


def gradient_pursuit(signal: Tensor, atoms: Tensor, k: int) -> Tensor:
    """signal [rows, d], atoms [n, d], both float32 -> weights [rows, n], at most k of a row above 0."""
    rows = max(1, _CHUNK // max(1, k * signal.shape[1]))
    weights = signal.new_zeros(len(signal), len(atoms))
    for part, out in zip(signal.split(rows), weights.split(rows), strict=True):
        _pursue(part, atoms, k, out)
    return weights


def _pursue(signal: Tensor, atoms: Tensor, k: int, out: Tensor) -> None:
    """Fill out [rows, n]. Place j of a row holds the atom chosen in round j and its weight."""
    exact = torch.float32 if signal.device.type == "mps" else torch.float64
    n_rows, d = signal.shape
    index = torch.full((n_rows, k), -1, device=signal.device)
    chosen = torch.zeros(n_rows, k, d, dtype=exact, device=signal.device)
    weights = torch.zeros(n_rows, k, dtype=exact, device=signal.device)
    target = signal.to(exact)
    residual = target
    for step in range(k):
        rivals = (residual.float() @ atoms.T).topk(min(_RIVALS, len(atoms)), dim=1).indices
        places = _along(atoms[rivals].to(exact), residual).argmax(dim=1, keepdim=True)
        best = rivals.gather(1, places)
        again = index == best  # it has a place already, though it may have lost its weight
        index[:, step] = torch.where(again.any(dim=1), -1, best[:, 0])
        chosen[:, step] = atoms[best[:, 0]].to(exact)
        selected = (weights != 0) | again
        selected[:, step] = ~again.any(dim=1)
        gradient = torch.where(selected, _along(chosen, residual), 0.0)
        direction = _sum(gradient, chosen)
        length = direction.square().sum(dim=1).clamp(min=_SMALLEST)
        size = (direction * residual).sum(dim=1) / length
        weights = (weights + size[:, None] * gradient).relu_()
        residual = target - _sum(weights, chosen)
    out.scatter_add_(1, index.clamp(min=0), weights.to(out.dtype))


def _along(atoms: Tensor, residual: Tensor) -> Tensor:
    """atoms [rows, j, d], residual [rows, d] -> their products [rows, j]."""
    return (atoms @ residual[:, :, None]).squeeze(2)


def _sum(weights: Tensor, atoms: Tensor) -> Tensor:
    """weights [rows, j], atoms [rows, j, d] -> [rows, d]."""
    return (weights[:, None, :] @ atoms).squeeze(1)
