"""How the evaluation sums up steering; the pictures behind it are measured, not tested."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def evaluation(pack: Callable[[str], ModuleType]) -> Any:
    return import_module("lab.evaluate.measure")


def row(rate: tuple[float, float], others: tuple[float, float]) -> dict[str, float]:
    return {
        "rate_before": rate[0],
        "rate_after": rate[1],
        "others_before": others[0],
        "others_after": others[1],
    }


def test_summary_is_the_mean_over_concepts(evaluation: Any) -> None:
    figures = {
        "removal": {"glasses": row((0.8, 0.2), (0.9, 0.88)), "beard": row((1.0, 0.5), (0.9, 0.9))},
        "addition": {"glasses": row((0.0, 0.6), (0.9, 0.8)), "beard": row((0.1, 0.3), (0.9, 0.9))},
    }
    summary = evaluation.summary(figures)
    assert summary["removal_relative"] == pytest.approx(0.625)
    assert summary["removal_cost"] == pytest.approx(0.01)
    assert summary["addition_points"] == pytest.approx(0.4)
    assert summary["addition_cost"] == pytest.approx(0.05)


def test_nothing_to_remove_counts_as_nothing_removed(evaluation: Any) -> None:
    figures = {"removal": {"hat": row((0.0, 0.0), (0.9, 0.9))}, "addition": {"hat": row((0, 0), (0.9, 0.9))}}
    assert evaluation.summary(figures)["removal_relative"] == 0.0


def test_a_method_without_features_for_a_concept_counts_as_no_effect(
    evaluation: Any, pack: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = import_module("comfy_revelio.errors").RevelioError
    saes = [
        SimpleNamespace(dictionary=SimpleNamespace(hook_point=name, concepts={}))
        for name in ("layers.1", "middle_block.1")
    ]

    def unknown(*_: Any, **__: Any) -> None:
        raise error("no such feature")

    monkeypatch.setattr(evaluation, "steer_concept", unknown)
    monkeypatch.setattr(evaluation, "parse_selection", unknown)
    columns = len(import_module("lab.data.attributes").ATTRIBUTES)
    plain = SimpleNamespace(model=None, clip=None, negative_clip=None)
    studio = SimpleNamespace(
        plain=plain,
        look=lambda _branch, prompts: torch.zeros(len(prompts), columns, dtype=torch.long),
        notes=import_module("lab.evaluate.notes").Notes(),
    )
    result = evaluation.measure_steering(studio, saes, 3, tune=True, say=lambda _: None)
    assert len(result["steer_features"]["removal"]) == len(evaluation.CONCEPTS)
    assert result["best_hook_point"] == "middle_block.1"
    assert result["steer_concept_contrast"]["summary"]["addition_points"] == 0.0


def test_generation_gives_each_row_its_own_prompt_and_seed(
    pack: Callable[[str], ModuleType], mini: SimpleNamespace
) -> None:
    generate = pack("comfy_revelio.host.record.generation")
    positive = generate.encode(mini.clip, ["red hair", "a hat"])
    negative = generate.encode(mini.clip, [""])
    both = generate.sample(mini.model, positive, negative, [3, 4], steps=2)
    alone = generate.encode(mini.clip, ["a hat"])
    second = generate.sample(mini.model, alone, negative, [4], steps=2)
    assert both.shape == (2, 4, 16, 16)
    assert torch.allclose(both[1:], second, atol=1e-4)


def test_harvest_keeps_steps_items_and_grid(pack: Callable[[str], ModuleType], mini: SimpleNamespace) -> None:
    generate = pack("comfy_revelio.host.record.generation")
    prompts, negative = ["red hair", "a hat"], generate.encode(mini.clip, [""])

    def run(model: Any) -> None:
        for rows in (slice(0, 2), slice(1, 2)):
            positive = generate.encode(mini.clip, prompts[rows])
            generate.sample(model, positive, negative, [5, 6][rows], steps=3, height=128, width=192)

    maps = pack("comfy_revelio.host.learn.in_memory").harvest(
        mini.model, ["middle_block.1", "output_blocks.3.1"], run
    )
    assert maps["middle_block.1"].shape == (3, 3, 8, 12, 192)
    assert maps["output_blocks.3.1"].shape == (3, 3, 16, 24, 96)
    same = maps["middle_block.1"][:, 1].float() - maps["middle_block.1"][:, 2].float()
    assert same.abs().max() < 1e-2


def test_the_command_line_finds_what_measures(pack: Callable[[str], ModuleType]) -> None:
    """It names the modules of the lab as texts, which no checker of imports follows."""
    from comfy_revelio.cli import evaluate

    source = Path(evaluate.__file__).read_text(encoding="utf-8")
    used = re.findall(r'_lab\("(\w+)"\)\.(\w+)', source)
    assert used
    for module, function in used:
        assert callable(getattr(import_module(f"lab.evaluate.{module}"), function))
