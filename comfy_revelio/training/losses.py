"""The loss that training minimises.

    loss = L(k) + multi_topk L(4 k) + l1 L_1 + aux_coef L_aux

    L(k)    mean (x - x^)^2 / variance, with k features active
            Gao et al., arXiv 2406.04093, section 2.3; L(4 k) is their Multi-TopK, section 5.3
    L_1     mean over tokens of sum_f |z_f| |W_dec,f|: sparsity, for ReLU codes without top-k
    L_aux   mean (e - e^)^2 / mean e^2, with e = x - x^ and e^ = z_dead W_dec
            AuxK, appendix A.2: z_dead are the codes of the aux_k strongest dead features. Dead features
            learn to explain the error that the living ones leave, and so become active again.

Shapes: B tokens of a batch, D width of the activations, N features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(error_BD: Tensor, variance: Tensor) -> Tensor:
    """Return L(k): the mean squared error divided by the variance.

    >>> float(reconstruction_loss(torch.tensor([[1.0, 3.0]]), torch.tensor(10.0)))
    0.5
    """
    return error_BD.square().mean() / variance


def sparsity_loss(z_BN: Tensor, W_dec_ND: Tensor) -> Tensor:
    """Return L_1. Because of the norms, smaller codes with longer decoder rows do not lower the loss.

    >>> float(sparsity_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]])))
    7.0
    """
    return (z_BN * W_dec_ND.norm(dim=1)).sum(dim=1).mean()


def aux_k_codes(h_BN: Tensor, dead_N: Tensor, aux_k: int) -> Tensor:
    """Return z_dead: codes of the aux_k dead features with the largest pre-activations h; all others are 0.

    >>> h, dead = torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([False, True, True])
    >>> aux_k_codes(h, dead, 1).tolist()
    [[0.0, 0.0, 2.0]]
    """
    k = min(aux_k, h_BN.shape[1])
    values, indices = torch.where(dead_N, h_BN, -torch.inf).topk(k, dim=1, sorted=False)
    # if there are fewer dead features than k, the remaining values are -inf, which ReLU turns into 0
    return torch.zeros_like(h_BN).scatter(1, indices, values.relu())


def aux_k_loss(error_BD: Tensor, explained_BD: Tensor) -> Tensor:
    """Return L_aux: the share of the error e that e^ does not explain; 0 if the error is 0.

    >>> float(aux_k_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
    0.25
    """
    missed = (error_BD - explained_BD).square().mean()
    return (missed / error_BD.square().mean()).nan_to_num(0.0)
