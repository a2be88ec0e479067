"""Choosing the k largest of each row, the same way every time."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(h: Tensor, k: int, *, signed: bool) -> tuple[Tensor, Tensor]:
    """The k largest pre-activations of each row of h, float32 [rows, n].

    Returns indices int64 and values float32, both [rows, k], values descending. Among equal
    values the lower index wins, at the cut and in the order, so results do not depend on the
    device. Unless signed, negative values become 0; wherever the value is 0 the index is 0.
    """
    n = h.shape[1]
    values, indices = h.topk(min(k + 1, n), dim=1)
    tied = values[:, 1:] == values[:, :-1]
    if not signed:
        tied &= values[:, 1:] > 0  # what relu removes needs no order
    values, indices = values[:, :k], indices[:, :k]
    rows = tied.any(1).nonzero()[:, 0]
    if len(rows):
        values, indices = values.clone(), indices.clone()
        values[rows], indices[rows] = _exact_top(h[rows], k)
    if not signed:
        values = values.relu()
    return torch.where(values == 0, 0, indices), values.contiguous()


def _exact_top(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k on unique integer keys: the value's bits in sortable order, then the index."""
    bits = (h + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    rank = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    last_first = torch.arange(h.shape[1] - 1, -1, -1, device=h.device)
    indices = ((rank << 32) | last_first).topk(k, dim=1).indices
    return h.gather(1, indices), indices
