"""How much attention each patch pays to each word: rows of softmax(q k'), summed over a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 1024 * 1024
"""What the probabilities of one chunk of patches may take."""


def membership(words: Sequence[Sequence[int]], keys: int) -> Tensor:
    """Which of so many keys belong to which word: float32 [keys, words] of 0 and 1.

    words: the keys of each.
    """
    member = torch.zeros(keys, len(words))
    for number, columns in enumerate(words):
        member[list(columns), number] = 1.0
    return member


@torch.no_grad()
def word_shares(q: Tensor, k: Tensor, member: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Attention that each query pays to each word, mean over heads: float32 [B, words, queries].

    q: [B, heads, queries, d]; k: [B, heads, keys, d], after everything that the model does to them (norms,
    rotary embedding). member: [keys, words] as `membership` makes it, on the device of q. mask: as scaled dot
    product attention takes it, boolean (True is kept) or added. The softmax runs over all keys, so that a
    value is the share of the whole attention of that patch (DAAM, arXiv 2210.04885, section 3). Computed in
    float32, in chunks of queries that bound the memory.
    """
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    keys_t = k.float().transpose(2, 3) * width**-0.5
    bias = None if mask is None else _as_bias(mask)
    shares = q.new_zeros(batch, member.shape[1], queries, dtype=torch.float32)
    chunk = max(1, CHUNK_BYTES // (4 * batch * heads * keys))
    for start in range(0, queries, chunk):
        part = slice(start, start + chunk)
        scores = q[:, :, part].float() @ keys_t
        if bias is not None:
            scores += bias if bias.shape[2] == 1 else bias[:, :, part]
        shares[:, :, part] = (scores.softmax(dim=-1) @ member).mean(dim=1).transpose(1, 2)
    return shares


def _as_bias(mask: Tensor) -> Tensor:
    """A mask as what is added to the scores, [1 or B, 1 or heads, 1 or queries, keys]."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
    return mask.float()
