"""What the evaluation asks and how it counts."""

from __future__ import annotations

import pytest
import torch

from lab.data.attributes import ATTRIBUTES, HIDDEN, STYLES, is_held_out, value_name
from lab.evaluate.prompts import (
    CONCEPTS,
    Prompt,
    accuracies,
    chance,
    held_out_prompts,
    others,
    prompts_naming,
    prompts_without,
    rate,
)

COLUMN = {name: i for i, name in enumerate(ATTRIBUTES)}


def answers(prompts: list[Prompt], **changed: int) -> torch.Tensor:
    """What a perfect judge says of perfect pictures, with some columns overwritten."""
    rows = torch.tensor([[max(0, p.labels[name]) for name in ATTRIBUTES] for p in prompts])
    for name, value in changed.items():
        rows[:, COLUMN[name]] = value
    return rows


def test_held_out_prompts_name_a_reserved_combination_and_are_always_the_same() -> None:
    prompts = held_out_prompts(40)
    assert all(is_held_out(p.labels) for p in prompts)
    for prompt in prompts:
        hair_shows = prompt.labels["hair"] != HIDDEN
        assert {"style", "glasses", "hair" if hair_shows else "background"} <= prompt.mentioned
    assert prompts == held_out_prompts(40)
    assert len({p.seed for p in prompts}) == 40


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: c.name)
def test_prompts_name_the_concept_or_are_silent_about_it(concept) -> None:
    for prompt in prompts_naming(concept, 20):
        assert concept.attribute in prompt.mentioned
        assert value_name(concept.attribute, prompt.labels[concept.attribute]) == concept.value
    for prompt in prompts_without(concept, 20):
        assert concept.attribute not in prompt.mentioned
        assert value_name(concept.attribute, prompt.labels[concept.attribute]) != concept.value
        style = value_name("style", prompt.labels["style"])
        assert concept.value in STYLES[style][concept.attribute]


def test_a_perfect_judge_finds_everything_and_a_wrong_column_is_seen() -> None:
    prompts = held_out_prompts(60)
    assert set(accuracies(answers(prompts), prompts).values()) == {1.0}
    wrong = accuracies(answers(prompts, background=0), prompts)
    assert wrong["background"] < 0.5 and wrong["skin"] == 1.0


def test_values_that_cannot_be_seen_are_not_counted() -> None:
    labels = {name: 0 for name in ATTRIBUTES} | {"hair": HIDDEN}
    prompt = Prompt("", labels, frozenset(ATTRIBUTES), 0)
    assert "hair" not in accuracies(torch.zeros(1, len(ATTRIBUTES), dtype=torch.long), [prompt])


def test_chance_is_the_best_constant_answer() -> None:
    prompts = [
        Prompt("", {name: 0 for name in ATTRIBUTES} | {"mood": mood}, frozenset({"mood"}), 0)
        for mood in (0, 1, 1, 2)
    ]
    assert chance(prompts) == {"mood": 0.5}


def test_removing_glasses_counts_sunglasses_as_still_there() -> None:
    concept = CONCEPTS[0]
    prompts = prompts_naming(concept, 10)
    sunglasses = ATTRIBUTES["glasses"].index("sunglasses")
    found = answers(prompts, glasses=sunglasses)
    assert rate(found, concept, also=True) == 1.0
    assert rate(found, concept, also=False) == 0.0


def test_others_leave_out_the_concept_and_what_it_hides() -> None:
    hat = next(c for c in CONCEPTS if c.name == "hat")
    prompts = prompts_without(hat, 20)
    assert others(answers(prompts, hat=1, hair=0), prompts, hat) == 1.0
    assert others(answers(prompts, hat=1, skin=0), prompts, hat) < 1.0
