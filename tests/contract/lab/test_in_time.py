"""`evaluate mini --minutes` on machines of many speeds, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

SAES = [
    SimpleNamespace(dictionary=SimpleNamespace(hook_point=name, concepts={}))
    for name in ("layers.1", "middle_block.1", "output_blocks.4.1")
]
FIXED = 12.0
"""Seconds that loading takes."""


class Machine:
    """A clock that drawing moves on, and a studio whose judge sees nothing but first values.

    seconds: an image takes, by how many images were drawn before it.
    """

    def __init__(self, seconds: Callable[[int], float], columns: int) -> None:
        self.now = 1000.0
        self.drawn = 0
        self.seconds = seconds
        self.columns = columns
        self.plain = object()

    def clock(self) -> float:
        return self.now

    def load(self) -> Machine:
        self.now += FIXED
        return self

    def look(self, _branch: Any, prompts: Sequence[Any]) -> torch.Tensor:
        for _ in prompts:
            self.now += self.seconds(self.drawn)
            self.drawn += 1
        return torch.zeros(len(prompts), self.columns, dtype=torch.long)


@pytest.fixture
def evaluate(pack: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    """evaluate(seconds, minutes, **more): the report, the minutes that it took, and what was said."""
    module = import_module("lab.evaluate.in_time")
    columns = len(import_module("lab.data.attributes").ATTRIBUTES)
    monkeypatch.setattr(module, "bundled_saes", lambda: SAES)
    monkeypatch.setattr(module, "judge_figures", dict)
    monkeypatch.setattr(module, "sae_figures", lambda _sae: {})
    monkeypatch.setattr(module, "by_text", lambda *_: lambda _concept, strength: strength)
    monkeypatch.setattr(module, "by_features", lambda *_: lambda _concept, strength: strength)

    def run(
        seconds: Callable[[int], float], minutes: float, **more: Any
    ) -> tuple[dict[str, Any], float, list[str]]:
        more = {"n_prompts": 256} | more  # enough for the times here
        machine = Machine(seconds, columns)
        monkeypatch.setattr(module, "open_studio", machine.load)
        said: list[str] = []
        report = module.evaluate_in(minutes, say=said.append, clock=machine.clock, **more)
        return report, (machine.now - 1000) / 60, said

    return run


@pytest.mark.parametrize("minutes", [2, 6])
@pytest.mark.parametrize("pace", [0.3, 1.5])
def test_the_time_holds_within_a_third_on_fast_and_slow_machines(
    evaluate: Any, pace: float, minutes: float
) -> None:
    report, took, _ = evaluate(lambda _: pace, minutes)
    assert minutes * 2 / 3 < took < minutes * 4 / 3
    assert report["steering"]["n_per_concept"] >= 1 or len(report["steering"]["concepts"]) < 5


@pytest.mark.parametrize("slower", [4])
def test_a_machine_that_becomes_busy_costs_sample_and_not_time(evaluate: Any, slower: float) -> None:
    alone, _, _ = evaluate(lambda _: 0.5, 5)
    busy, took, _ = evaluate(lambda drawn: 0.5 if drawn < 100 else 0.5 * slower, 5)
    assert took < 5 * 4 / 3
    assert _images(busy) < _images(alone)


def test_a_machine_that_becomes_idle_is_used(evaluate: Any) -> None:
    busy, _, _ = evaluate(lambda _: 1.5, 5)
    idle, took, _ = evaluate(lambda drawn: 1.5 if drawn < 60 else 0.3, 5)
    assert 5 * 2 / 3 < took < 5 * 4 / 3
    assert _images(idle) > 2 * _images(busy)


def test_the_sample_says_its_true_size(evaluate: Any) -> None:
    report, _, said = evaluate(lambda _: 0.4, 4)
    mini, steering = report["mini_model"], report["steering"]
    assert any(f"on {mini['n_prompts']} held-out prompts" in line for line in said)
    rows = [row for way in ("removal", "addition") for row in steering["steer_features"][way].values()]
    assert {row["n"] for row in rows} >= {steering["n_per_concept"]}
    assert (
        min(row["n"] for row in rows) == steering["n_per_concept"] == steering["hook_points"]["n_per_concept"]
    )
    assert steering["best_hook_point"] == "output_blocks.4.1"
    assert {"steer_concept_contrast", "steer_concept_paper", "steer_features"} < steering.keys()


def test_no_more_is_drawn_than_was_asked_for(evaluate: Any) -> None:
    report, took, _ = evaluate(lambda _: 0.01, 10, n_prompts=40, n_steering=9)
    assert report["mini_model"]["n_prompts"] == 40
    assert report["steering"]["n_per_concept"] == 9
    assert took < 1


def test_steering_is_left_out_where_it_was_not_asked_for_or_does_not_fit(evaluate: Any) -> None:
    without, took, _ = evaluate(lambda _: 0.5, 2, n_steering=0)
    assert "steering" not in without
    assert 2 * 2 / 3 < took < 2 * 4 / 3  # all of the time is for prompts
    slow, took, said = evaluate(lambda _: 20.0, 2)
    assert "steering" not in slow
    assert slow["mini_model"]["n_prompts"] == 2
    assert any("left out" in line for line in said)


def test_loading_counts(evaluate: Any) -> None:
    """The time is from the start of the command."""
    late, took, _ = evaluate(lambda _: 0.5, 2, started=1000.0 - 60)
    assert 2 * 2 / 3 < took + 1 < 2 * 4 / 3
    assert late["mini_model"]["n_prompts"] < evaluate(lambda _: 0.5, 2)[0]["mini_model"]["n_prompts"]


def _images(report: dict[str, Any]) -> int:
    rows = report["steering"]["steer_features"]["removal"].values()
    return int(sum(row["n"] for row in rows))
