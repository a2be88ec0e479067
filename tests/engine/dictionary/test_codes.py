"""Codes answer the same questions as the dense table that they stand for."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio.dictionary import Codes
from comfy_revelio.errors import RevelioError


def _codes(shape: tuple[int, ...] = (2, 15), n: int = 30, k: int = 4) -> Codes:
    g = torch.Generator().manual_seed(1)
    indices = torch.rand(*shape, n, generator=g).argsort(-1)[..., :k]
    values = torch.rand(*shape, k, generator=g).sort(-1, descending=True).values
    silent = torch.rand(*shape, k, generator=g) < 0.3
    values, order = values.masked_fill(silent, 0.0).sort(dim=-1, descending=True, stable=True)
    indices = indices.gather(-1, order)
    return Codes(torch.where(values == 0, 0, indices), values, n)


def _table(codes: Codes) -> torch.Tensor:
    """Dense table, written element by element."""
    out = torch.zeros(*codes.shape, codes.n_features)
    for place in torch.cartesian_prod(*(torch.arange(s) for s in codes.indices.shape)):
        *where, slot = place.tolist()
        out[(*where, int(codes.indices[(*where, slot)]))] += codes.values[(*where, slot)]
    return out


def test_dense_of_and_of_many_agree() -> None:
    codes = _codes()
    table = _table(codes)
    assert torch.equal(codes.dense(), table)
    for feature in (0, 7, 29):
        assert torch.equal(codes.of(feature), table[..., feature])
    chosen = torch.tensor([29, 0, 3, 3])
    assert torch.equal(codes.of_many(chosen), table[..., chosen])
    assert codes.of_many(torch.tensor([], dtype=torch.int64)).shape == (2, 15, 0)


def test_a_silent_slot_does_not_hide_feature_zero() -> None:
    codes = Codes(torch.tensor([[0, 0, 0]]), torch.tensor([[2.5, 0.0, 0.0]]), 4)
    assert codes.dense().tolist() == [[2.5, 0, 0, 0]]
    assert codes.of(0).tolist() == [2.5]
    assert codes.peaks().tolist() == [[2.5, 0, 0, 0]]


def test_peaks_are_maxima_over_tokens_that_count() -> None:
    codes = _codes((3, 15))
    keep = torch.rand(3, 15, generator=torch.Generator().manual_seed(2)) < 0.5
    assert torch.equal(codes.peaks(), _table(codes).amax(1))
    assert torch.equal(codes.peaks(keep), torch.where(keep[..., None], _table(codes), 0.0).amax(1))
    assert torch.equal(_codes((3, 5, 3)).peaks(), _table(_codes((3, 5, 3))).amax((1, 2)))


def test_peaks_ignore_what_is_kept_out_even_when_it_is_not_a_number() -> None:
    codes = Codes(torch.tensor([[[1], [2]]]), torch.tensor([[[float("nan")], [3.0]]]), 4)
    assert codes.peaks(torch.tensor([[False, True]])).tolist() == [[0, 0, 3.0, 0]]


def test_indexing_is_over_the_leading_dimensions() -> None:
    codes = _codes((2, 5, 3))
    assert codes[1].shape == (5, 3)
    assert codes[:, 2:4].shape == (2, 2, 3)
    assert codes[..., 0].shape == (2, 5)
    assert torch.equal(codes[1, 2].dense(), codes.dense()[1, 2])
    mask = torch.tensor([True, False])
    assert torch.equal(codes[mask].dense(), codes.dense()[mask])


def test_impossible_codes_and_features_are_refused() -> None:
    with pytest.raises(RevelioError, match="one shape"):
        Codes(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1), 5)
    for feature in (-1, 30):
        with pytest.raises(RevelioError, match="0 to 29"):
            _codes().of(feature)
