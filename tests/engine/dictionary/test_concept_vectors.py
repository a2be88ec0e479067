"""Concept vectors by difference of means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comfy_revelio.dictionary import load_dictionary, save_dictionary
from comfy_revelio.dictionary.concept_vectors import concept_vectors
from comfy_revelio.errors import RevelioError


def rows(centre: torch.Tensor, seed: int) -> torch.Tensor:
    return centre + torch.randn(30, len(centre), generator=torch.Generator().manual_seed(seed)) * 0.1


def test_codes_say_where_a_row_lies_between_the_means(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    a, b, c, e = torch.randn(4, 16, generator=g).unbind()
    sides = {"glasses": (rows(a, 1), rows(b, 2)), "hat": (rows(c, 3).half(), rows(e, 4).half())}
    dictionary = concept_vectors(sides, hook_point="middle_block.1")
    for number, (with_it, without) in enumerate(sides.values()):
        means = torch.stack([with_it.float().mean(0), without.float().mean(0)])
        assert torch.allclose(dictionary.encode(means).of(number), torch.tensor([1.0, 0.0]), atol=1e-4)
        moved = means[1] + dictionary.contribution(torch.ones(1), [number], means[1])
        assert torch.allclose(moved, means[0], atol=1e-4)
    assert dictionary.labels == {"glasses": [0], "hat": [1]}
    save_dictionary(dictionary, tmp_path / "v.safetensors", dtype=torch.float32)
    assert load_dictionary(tmp_path / "v.safetensors").labels == dictionary.labels


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({}, "No concepts"),
        ({"hat": (torch.ones(2, 4), torch.ones(0, 4))}, "'hat' needs at least one row"),
        ({"hat": (torch.ones(2, 4), torch.ones(2, 5))}, "differ in width"),
        ({"hat": (torch.ones(2, 4), torch.ones(2, 4))}, "same mean"),
    ],
)
def test_sides_that_tell_nothing_are_refused(sides: dict, message: str) -> None:
    with pytest.raises(RevelioError, match=message):
        concept_vectors(sides)
