"""Select the strongest pre-activations, with the same result on every device.

Shapes: B rows, N features, K active features.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NARROW = 128
"""For k up to this number, `positive` returns k slots even if fewer features are active."""


def top_k(h_BN: Tensor, k: int, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return indices (int64) and values (float32) of each row's k largest values, both [B, K], descending.

    Of equal values, the value with the lower index is selected first and comes first, so that results do not
    depend on the device. Unless `signed`, negative values become 0. Where a value is 0, its index is 0.

    >>> top_k(torch.tensor([[1.0, 3.0, 3.0, -5.0]]), 2, signed=False)
    (tensor([[1, 2]]), tensor([[3., 3.]]))
    """
    values, indices = _exact_top(h_BN, k) if h_BN.is_cuda else _checked_top(h_BN, k, signed=signed)
    if not signed:
        values = values.relu()
    return torch.where(values == 0, 0, indices), values.contiguous()


def positive(z_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return indices and values, as `top_k` does, of each row's values above 0, at most the k largest.

    In unused slots, value and index are 0. K = k for k up to 128. For larger k, K is only as large as the
    fullest row needs (at least 1); reading K back from the device makes the caller wait for the device.

    >>> positive(torch.tensor([[0.0, 2.0, -1.0]]), 2)
    (tensor([[1, 0]]), tensor([[2., 0.]]))
    """
    if k > _NARROW:
        k = max(1, min(k, int((z_BN > 0).sum(dim=1).max()) if len(z_BN) else 0))
    return top_k(z_BN, k, signed=False)


def group_max(h_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the maximum (0 if negative) of each of k equal groups of neighbours, in the form of `top_k`.

    >>> group_max(torch.tensor([[1.0, 2.0, 5.0, 4.0]]), 2)
    (tensor([[2, 1]]), tensor([[5., 2.]]))
    """
    values, indices = h_BN.relu().unflatten(1, (k, -1)).max(dim=2)
    indices = indices + torch.arange(k, device=h_BN.device) * (h_BN.shape[1] // k)
    values, order = values.sort(dim=1, descending=True, stable=True)
    indices = indices.gather(1, order)
    return torch.where(values == 0, 0, indices), values


def _checked_top(h_BN: Tensor, k: int, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return what `_exact_top` returns, but faster; not for CUDA, where looking for ties forces a wait."""
    values, indices = h_BN.topk(min(k + 1, h_BN.shape[1]), dim=1)
    tied = values[:, 1:] == values[:, :-1]
    if not signed:
        tied &= values[:, 1:] > 0  # values that relu removes need no order
    values, indices = values[:, :k], indices[:, :k]
    rows = tied.any(1).nonzero()[:, 0]
    if len(rows):
        values, indices = values.clone(), indices.clone()
        values[rows], indices[rows] = _exact_top(h_BN[rows], k)
    return values, indices


def _exact_top(h_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k largest by unique integer keys: the value's bits in sortable order, then the index."""
    bits = (h_BN + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    last_first = torch.arange(h_BN.shape[1] - 1, -1, -1, device=h_BN.device)
    indices = ((rank << 32) | last_first).topk(k, dim=1).indices
    return h_BN.gather(1, indices), indices
