"""What a dictionary minimises while it learns.

    loss = L(k) + multi_topk L(4 k) + l1 L_1 + aux_coef L_aux

    L(k)    mean (x - x^)^2 / variance, with k features active
            Gao et al., arXiv 2406.04093, section 2.3; L(4 k) is their Multi-TopK, section 5.3
    L_1     mean over tokens of sum_f |z_f| |W_dec,f|: sparsity, for ReLU codes without top-k
    L_aux   mean (e - e^)^2 / mean e^2, with e = x - x^ and e^ = z_dead W_dec
            AuxK, appendix A.2: z_dead are the aux_k strongest of the dead features. They learn to explain
            what the living ones leave over, and so come back to life.

Shapes: B tokens of a batch, D width of the activations, N features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(error_BD: Tensor, variance: Tensor) -> Tensor:
    """L(k): the squared error as a share of the variance.

    >>> float(reconstruction_loss(torch.tensor([[1.0, 3.0]]), torch.tensor(10.0)))
    0.5
    """
    return error_BD.square().mean() / variance


def sparsity_loss(z_BN: Tensor, W_dec_ND: Tensor) -> Tensor:
    """L_1: without the norms, small codes with long decoder rows would be cheap.

    >>> float(sparsity_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]])))
    7.0
    """
    return (z_BN * W_dec_ND.norm(dim=1)).sum(dim=1).mean()


def aux_k_codes(h_BN: Tensor, dead_N: Tensor, aux_k: int) -> Tensor:
    """z_dead: the codes of the aux_k strongest dead features by pre-activation h; all others are 0.

    >>> h, dead = torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([False, True, True])
    >>> aux_k_codes(h, dead, 1).tolist()
    [[0.0, 0.0, 2.0]]
    """
    k = min(aux_k, h_BN.shape[1])
    values, indices = torch.where(dead_N, h_BN, -torch.inf).topk(k, dim=1, sorted=False)
    # with fewer dead features than k, the rest of the values are -inf, which ReLU makes 0
    return torch.zeros_like(h_BN).scatter(1, indices, values.relu())


def aux_k_loss(error_BD: Tensor, explained_BD: Tensor) -> Tensor:
    """L_aux: the share of the error e that e^ does not explain; 0 where nothing is left to explain.

    >>> float(aux_k_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
    0.25
    """
    missed = (error_BD - explained_BD).square().mean()
    return (missed / error_BD.square().mean()).nan_to_num(0.0)
