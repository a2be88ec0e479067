"""Painted regions as text, and as masks."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.steering.painted_region import painted_mask, parse_painted


def test_runs_in_reading_order() -> None:
    assert parse_painted("4x2:1,2,5").tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    assert parse_painted("2x2:0,4").tolist() == [[1, 1], [1, 1]]


def test_nothing_painted_is_everywhere() -> None:
    assert parse_painted(" ") is None
    assert painted_mask("", (5, 7)).shape == (1, 5, 7)
    assert bool((painted_mask("") == 1).all())


def test_a_region_grows_to_the_size_of_the_image() -> None:
    mask = painted_mask("4x2:0,2,2,2,2", (20, 40))
    assert mask.shape == (1, 20, 40)
    assert torch.equal((mask[0] > 0.5), torch.arange(40).expand(20, 40) < 20)
    assert painted_mask("4x2:1,2,5").shape == (1, 2, 4)


@pytest.mark.parametrize(
    "text",
    ["x", "4x2:", "4x2:1,2", "4x2:9", "0x2:0", "999x999:998001", "4x2:-1,9", "4x2:1,2,5,", "1" * 2**21],
)
def test_broken_regions(text: str) -> None:
    with pytest.raises(RevelioError, match="painted region"):
        parse_painted(text)
