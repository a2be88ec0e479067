"""Concepts from pictures with and without: what carries the change is found, with place and amount."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.analysis import concept_between
from comfy_revelio.analysis.kinds import kind_reader
from comfy_revelio.dictionary import Dictionary
from comfy_revelio.dictionary.concepts import kinds_of

HEIGHT, WIDTH, D = 4, 6, 16


@pytest.fixture
def sae() -> Dictionary:
    """Features are the axes of the space: the code of an activation is its positive part."""
    eye, zero = torch.eye(D), torch.zeros(D)
    return Dictionary(eye, zero, eye, zero, zero, k=D)


def _pair(items: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """With the concept feature 3 fires on the left, 7 moves from right to left, 5 fires as well without."""
    without = torch.rand(items, HEIGHT, WIDTH, D, generator=torch.Generator().manual_seed(seed)) * 0.1
    without[..., 3] = without[..., 7] = 0
    without[..., 3:, 7] = 2.0
    without[..., 5] = 4.0
    with_it = without.clone()
    with_it[..., :3, 3] = 3.0
    with_it[..., 7] = without[..., 7].flip(-1)
    return with_it, without


def test_what_changes_is_found_with_its_place(sae) -> None:
    found = concept_between(sae, *zip(_pair(3, 0), _pair(2, 1), strict=True), count=3)
    assert found.features[:2] == (3, 7) and found.amount.shape == (1, 3, HEIGHT, WIDTH)
    left = torch.zeros(HEIGHT, WIDTH)
    left[:, :3] = 1
    assert torch.allclose(found.amount[0, 0], 3 * left, atol=1e-4)
    assert torch.allclose(found.share[0, 0], left, atol=1e-3)
    assert torch.allclose(found.amount[0, 1], 2 * left - 2 * (1 - left), atol=1e-4)
    assert torch.allclose(found.share[0, 1], left, atol=1e-3)


def test_the_mean_is_over_pictures_however_they_come(sae) -> None:
    (first, _), (second, without) = _pair(3, 0), _pair(2, 1)
    parts = concept_between(sae, [first, second], [without], count=2)
    whole = concept_between(sae, [torch.cat([first, second])], iter([without[:1], without[1:]]), count=2)
    assert parts.features == whole.features
    assert torch.allclose(parts.amount, whole.amount, atol=1e-6)
    assert torch.allclose(parts.share, whole.share, atol=1e-6)


def test_sides_that_cannot_be_compared_are_refused(sae) -> None:
    with_it, without = _pair(2, 0)
    with pytest.raises(RevelioError, match="none without"):
        concept_between(sae, [with_it], [])
    with pytest.raises(RevelioError, match=r"\[4, 6\] and \[4, 5\]"):
        concept_between(sae, [with_it], [without[:, :, :5]])


def test_fine_grids_are_averaged(sae) -> None:
    """Maps of a concept have at most 16 cells a side, each the mean of what it covers."""
    with_it = torch.zeros(1, 32, 48, D)
    with_it[:, :, :24, 3] = 2.0
    with_it[:, ::2, :24, 3] = 4.0
    found = concept_between(sae, [with_it], [torch.zeros(1, 32, 48, D)], count=1)
    left = torch.zeros(16, 16)
    left[:, :8] = 3.0
    assert found.features == (3,) and torch.allclose(found.amount[0, 0], left, atol=1e-5)


def test_each_kind_of_picture_has_maps_of_its_own(sae) -> None:
    """Bright pictures wear it on the left, dark ones on the right; the two are told apart by a reader."""
    dark, bright = (torch.rand(60, HEIGHT, WIDTH, D) * 0.1 + level for level in (0.0, 2.0))
    with_dark, with_bright = dark.clone(), bright.clone()
    with_dark[..., 3:, 3] += 1.0
    with_bright[..., :3, 3] += 4.0
    pooled = torch.cat([dark, bright, with_dark, with_bright]).mean(dim=(1, 2))
    kinds = torch.tensor([0, 1, 0, 1]).repeat_interleave(60)
    reader = kind_reader(pooled, kinds)
    assert torch.equal(kinds_of(pooled, reader), kinds)
    found = concept_between(
        sae, [with_dark, with_bright], [torch.cat([dark, bright])], reader=reader, count=1
    )
    one, other = found.amount[:, 0]
    assert float(one[:, 3:].mean()) > 3 * float(one[:, :3].abs().mean())
    assert float(other[:, :3].mean()) > 3 * float(other[:, 3:].abs().mean())
    assert torch.equal(found.reader, reader)
