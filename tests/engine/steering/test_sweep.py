"""Rows of strengths."""

from __future__ import annotations

import math

import pytest

from comfy_revelio import RevelioError
from comfy_revelio.steering.sweep import strength_label, strengths


def test_evenly_spread() -> None:
    assert strengths(-4, 4, 5) == [-4, -2, 0, 2, 4]
    assert strengths(-0.3, 0.3, 3)[1] == 0.0
    assert strengths(2, -1, 4) == [2, 1, 0, -1]
    assert strengths(1.5, 7, 1) == [1.5]


def test_zero_has_no_sign() -> None:
    assert all(math.copysign(1, value) > 0 for value in strengths(-0.0, 0.0, 3))
    assert math.copysign(1, strengths(0, 0, 2, "-0")[0]) > 0


def test_own_values() -> None:
    assert strengths(9, 9, 9, "-4, 0;2.5\n1e1,") == [-4, 0, 2.5, 10]


@pytest.mark.parametrize("values", ["1, two", "nan", "inf", ",".join(["1"] * 65)])
def test_what_is_no_row(values: str) -> None:
    with pytest.raises(RevelioError, match=r"(not a strength|from 1 to 64)"):
        strengths(0, 1, 2, values)
    with pytest.raises(RevelioError, match="finite"):
        strengths(0, math.inf, 2)


def test_labels() -> None:
    assert [strength_label(value) for value in (-2.0, 0.0, 0.25)] == [
        "strength −2",
        "strength 0",
        "strength 0.25",
    ]


def test_only_commas_are_no_strengths():
    with pytest.raises(RevelioError, match="not 0; write at least one"):
        strengths(0.0, 1.0, 2, ",,")
