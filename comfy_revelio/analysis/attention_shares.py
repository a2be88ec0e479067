"""How much attention each patch pays to each word (DAAM, arXiv 2210.04885, section 3).

    share[b, w, q] = mean over heads of the sum over the keys k of word w of softmax_k(Q K' / sqrt(D))[q, k]

Shapes: B rows, H heads, Q queries (patches), K keys (tokens of the prompt), D width of a head, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 1024 * 1024
"""Maximum memory for the attention probabilities of one chunk of patches."""


def membership(words: Sequence[Sequence[int]], keys: int) -> Tensor:
    """Return which of the K keys belong to each word: float32 [K, W] of 0 and 1. words: each word's keys.

    >>> membership([[0], [1, 2]], keys=4).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    """
    member_KW = torch.zeros(keys, len(words))
    for word, columns in enumerate(words):
        member_KW[list(columns), word] = 1.0
    return member_KW


@torch.no_grad()
def word_shares(q: Tensor, k: Tensor, member: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the attention that each query pays to each word, averaged over heads: float32 [B, W, Q].

    q: [B, H, Q, D]; k: [B, H, K, D]; both after the model's norms and rotary embedding. member: [K, W], made
    by `membership`, on the device of q. mask: as in scaled dot product attention, either boolean (True keeps
    a key) or numbers to add to the scores.

    >>> q, k = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 4, 2)  # attends to every key alike
    >>> word_shares(q, k, membership([[0], [1, 2]], keys=4)).tolist()
    [[[0.25], [0.5]]]
    """
    batch, heads, queries, width = q.shape
    k_BHDK = k.float().transpose(2, 3) * width**-0.5
    bias = None if mask is None else _as_bias(mask)
    shares_BWQ = q.new_zeros(batch, member.shape[1], queries, dtype=torch.float32)
    chunk = max(1, CHUNK_BYTES // (4 * batch * heads * k.shape[2]))
    for start in range(0, queries, chunk):  # in chunks: a whole image would need gigabytes
        part = slice(start, start + chunk)
        scores_BHQK = q[:, :, part].float() @ k_BHDK
        if bias is not None:
            scores_BHQK += bias if bias.shape[2] == 1 else bias[:, :, part]
        # The softmax is over all keys, so that a value is a share of the patch's whole attention.
        shares_BWQ[:, :, part] = (scores_BHQK.softmax(dim=-1) @ member).mean(dim=1).transpose(1, 2)
    return shares_BWQ


def _as_bias(mask: Tensor) -> Tensor:
    """Return a mask as a term to add to the scores: [1 or B, 1 or H, 1 or Q, K]."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
    return mask.float()
