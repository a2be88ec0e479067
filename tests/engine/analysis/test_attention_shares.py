"""Shares of attention against the formula, with masks, in chunks, and in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from comfy_revelio.analysis import attention_shares
from comfy_revelio.analysis.attention_shares import membership, word_shares

WORDS = [[1], [2, 4]]
MEMBER = membership(WORDS, 6)


def made(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, 3, 12, 8).to(dtype), torch.randn(2, 3, 6, 8).to(dtype)


def by_hand(q: Tensor, k: Tensor, keep: Tensor | None = None) -> Tensor:
    """One number at a time: the exponentials that belong to a word over all of them."""
    found = torch.zeros(2, 2, 12, dtype=torch.float64)
    for b in range(2):
        for i in range(12):
            for head in range(3):
                powers = [
                    float(torch.exp((q[b, head, i].double() @ k[b, head, j].double()) / 8**0.5))
                    * (1.0 if keep is None or keep[i, j] else 0.0)
                    for j in range(6)
                ]
                for word, columns in enumerate(WORDS):
                    found[b, word, i] += sum(powers[j] for j in columns) / sum(powers) / 3
    return found.float()


@pytest.mark.parametrize("chunk", [1, 2**30])
def test_shares(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(attention_shares, "CHUNK_BYTES", chunk)
    q, k = made()
    found = word_shares(q, k, MEMBER)
    assert found.shape == (2, 2, 12) and found.dtype == torch.float32
    assert torch.allclose(found, by_hand(q, k), atol=1e-6)


def test_all_words_together_get_everything() -> None:
    q, k = made()
    assert torch.allclose(word_shares(q, k, membership([[j] for j in range(6)], 6)).sum(1), torch.ones(2, 12))


@pytest.mark.parametrize("shape", [(12, 6), (1, 12, 6), (1, 1, 12, 6)])
@pytest.mark.parametrize("added", [False, True])
def test_masks(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], added: bool) -> None:
    monkeypatch.setattr(attention_shares, "CHUNK_BYTES", 1000)
    q, k = made()
    keep = torch.rand(12, 6) > 0.4
    keep[:, 0] = True
    mask = torch.zeros(12, 6).masked_fill(~keep, float("-inf")) if added else keep
    assert torch.allclose(word_shares(q, k, MEMBER, mask=mask.reshape(shape)), by_hand(q, k, keep), atol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    q, k = made(torch.bfloat16)
    assert torch.allclose(word_shares(q, k, MEMBER), by_hand(q, k), atol=1e-6)
