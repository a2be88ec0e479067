"""Gradient pursuit: the sparse code of a signal over a fixed set of atoms, for ITDA (arXiv 2505.17769).

As in the code behind arXiv 2505.24360: in each of k rounds the atom that fits the residual best joins, all
weights take one optimal gradient step, and negative weights are cut to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-3  # bound on the squared length of a step, against division by nothing


def gradient_pursuit(signal: Tensor, atoms: Tensor, k: int) -> Tensor:
    """signal [rows, d], atoms [n, d], both float -> weights [rows, n], at most k of a row above 0."""
    weights = signal.new_zeros(len(signal), len(atoms))
    residual = signal
    for _ in range(k):
        products = residual @ atoms.T
        chosen = (weights != 0).scatter_(1, products.argmax(dim=1, keepdim=True), True)
        gradient = torch.where(chosen, products, 0.0)
        direction = gradient @ atoms
        length = direction.square().sum(dim=1).clamp(min=_SMALLEST)
        step = (direction * residual).sum(dim=1) / length
        weights = (weights + step[:, None] * gradient).relu_()
        residual = signal - weights @ atoms
    return weights
