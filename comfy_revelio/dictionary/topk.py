"""From pre-activations to the few values that count, the same way every time."""

from __future__ import annotations

import torch
from torch import Tensor

_NARROW = 128
"""Codes of this width are made at once, however few features are active."""


def top_k(h: Tensor, k: int, *, signed: bool) -> tuple[Tensor, Tensor]:
    """The k largest pre-activations of each row of h, float32 [rows, n].

    Returns indices int64 and values float32, both [rows, k], values descending. Among equal
    values the lower index wins, at the cut and in the order, so results do not depend on the
    device. Unless signed, negative values become 0; wherever the value is 0 the index is 0.
    """
    values, indices = _exact_top(h, k) if h.is_cuda else _checked_top(h, k, signed=signed)
    if not signed:
        values = values.relu()
    return torch.where(values == 0, 0, indices), values.contiguous()


def positive(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All values above 0 of each row of z, float32 [rows, n], but at most the k largest.

    Returns indices int64 and values float32, both [rows, w] with w at most k; where a row has fewer, value
    and index are 0. A k above 128 makes w the most that any row has, 1 at least: for that the device is
    asked, and the caller waits for it.
    """
    if k > _NARROW:
        k = max(1, min(k, int((z > 0).sum(dim=1).max()) if len(z) else 0))
    return top_k(z, k, signed=False)


def group_max(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of each of k equal groups of neighbours, negative values 0 (sparsify's "groupmax")."""
    values, indices = h.relu().unflatten(1, (k, -1)).max(dim=2)
    indices = indices + torch.arange(k, device=h.device) * (h.shape[1] // k)
    values, order = values.sort(dim=1, descending=True, stable=True)
    indices = indices.gather(1, order)
    return torch.where(values == 0, 0, indices), values


def _checked_top(h: Tensor, k: int, *, signed: bool) -> tuple[Tensor, Tensor]:
    """The same as _exact_top where it matters, and quicker; but it looks whether there are ties, and a GPU
    would be waited for."""
    values, indices = h.topk(min(k + 1, h.shape[1]), dim=1)
    tied = values[:, 1:] == values[:, :-1]
    if not signed:
        tied &= values[:, 1:] > 0  # what relu removes needs no order
    values, indices = values[:, :k], indices[:, :k]
    rows = tied.any(1).nonzero()[:, 0]
    if len(rows):
        values, indices = values.clone(), indices.clone()
        values[rows], indices[rows] = _exact_top(h[rows], k)
    return values, indices


def _exact_top(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k on unique integer keys: the value's bits in sortable order, then the index."""
    bits = (h + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    last_first = torch.arange(h.shape[1] - 1, -1, -1, device=h.device)
    indices = ((rank << 32) | last_first).topk(k, dim=1).indices
    return h.gather(1, indices), indices
