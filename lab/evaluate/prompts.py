"""The prompts and concepts on which Revelio Mini and its steering are measured, and how verdicts are counted.

This module only scores images; `lab/evaluate/measure.py` generates them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.attributes import ATTRIBUTES, HIDDEN, STYLES, index_of, labels_for, reserved_by, value_name
from ..data.captions import caption


@dataclass(frozen=True)
class Prompt:
    """An avatar's caption, its labels, the attributes that the caption mentions, and the image's seed."""

    text: str
    labels: dict[str, int]
    mentioned: frozenset[str]
    seed: int


@dataclass(frozen=True)
class Concept:
    """Something to remove from images or to add to them."""

    name: str
    """The phrase that a user would type."""
    attribute: str
    value: str
    also: tuple[str, ...] = ()
    """Other values that also count as the concept when removal is measured."""
    hides: tuple[str, ...] = ()
    """The attributes that the concept covers up (a hat hides the hair)."""


CONCEPTS = (
    Concept("glasses", "glasses", "glasses", also=("sunglasses",)),
    Concept("beard", "beard", "beard"),
    Concept("hat", "hat", "hat", hides=("hair",)),
    Concept("blue hair", "hair", "blue"),
    Concept("pink hair", "hair", "pink"),
)


def held_out_prompts(count: int) -> list[Prompt]:
    """Return the first `count` prompts that name a combination of values never seen in training."""
    found: list[Prompt] = []
    number = 0
    while len(found) < count:
        prompt = _prompt(number, labels_for("check", number, split="held_out"))
        if prompt.mentioned.issuperset(reserved_by(prompt.labels)):
            found.append(prompt)
        number += 1
    return found


def prompts_naming(concept: Concept, count: int, *, first: int = 0) -> list[Prompt]:
    """Return prompts that mention the concept, for avatars that have it."""
    wanted = index_of(concept.attribute, concept.value)
    return _collect(
        count,
        first,
        fits=lambda labels: labels[concept.attribute] == wanted,
        accept=lambda prompt: concept.attribute in prompt.mentioned,
    )


def prompts_without(concept: Concept, count: int, *, first: int = 0) -> list[Prompt]:
    """Return prompts that do not mention the concept, for avatars without it in styles that can draw it."""
    wanted, nothing = (
        index_of(concept.attribute, concept.value),
        index_of(concept.attribute, ATTRIBUTES[concept.attribute][0]),
    )

    def fits(labels: dict[str, int]) -> bool:
        style = value_name("style", labels["style"])
        there = labels[concept.attribute]
        absent = (
            there == nothing if "none" in ATTRIBUTES[concept.attribute] else there not in (wanted, HIDDEN)
        )
        return absent and concept.value in STYLES[style][concept.attribute]

    return _collect(
        count, first, fits=fits, accept=lambda _: True, silent=(concept.attribute, *concept.hides)
    )


def _collect(
    count: int,
    first: int,
    *,
    fits: Callable[[dict[str, int]], bool],
    accept: Callable[[Prompt], bool],
    silent: Sequence[str] = (),
) -> list[Prompt]:
    found: list[Prompt] = []
    number = 1_000_000 + first
    while len(found) < count:
        labels = labels_for("check", number, split="any")
        if fits(labels):
            prompt = _prompt(number, labels, silent)
            if accept(prompt):
                found.append(prompt)
        number += 1
    return found


def _prompt(number: int, labels: dict[str, int], silent: Sequence[str] = ()) -> Prompt:
    words = caption(labels, np.random.default_rng([7, number]), without=silent)
    return Prompt(words.text, dict(labels), words.mentioned, number)


def accuracies(
    found: torch.Tensor, prompts: Sequence[Prompt], *, leave_out: Sequence[str] = ()
) -> dict[str, float]:
    """Return, for each prompted attribute, the share of images in which the judge sees the prompted value.

    found: the judge's values int64 [n, attributes].
    """
    result = {}
    for column, name in enumerate(ATTRIBUTES):
        rows = [
            i
            for i, prompt in enumerate(prompts)
            if name in prompt.mentioned and prompt.labels[name] != HIDDEN
        ]
        if rows and name not in leave_out:
            right = [int(found[i, column]) == prompts[i].labels[name] for i in rows]
            result[name] = sum(right) / len(right)
    return result


def chance(prompts: Sequence[Prompt]) -> dict[str, float]:
    """For each attribute, return the accuracy of always answering the value that prompts name most often."""
    result = {}
    for name in ATTRIBUTES:
        values = Counter(p.labels[name] for p in prompts if name in p.mentioned and p.labels[name] != HIDDEN)
        if values:
            result[name] = max(values.values()) / sum(values.values())
    return result


def rate(found: torch.Tensor, concept: Concept, *, also: bool) -> float:
    """Return the share of images in which the judge sees the concept; with `also`, similar values count."""
    values = (concept.value, *(concept.also if also else ()))
    wanted = torch.tensor([index_of(concept.attribute, value) for value in values])
    column = list(ATTRIBUTES).index(concept.attribute)
    return torch.isin(found[:, column], wanted).float().mean().item()


def others(found: torch.Tensor, prompts: Sequence[Prompt], concept: Concept) -> float:
    """Return the mean accuracy over mentioned attributes except the concept's own and those it hides."""
    result = accuracies(found, prompts, leave_out=(concept.attribute, *concept.hides))
    return sum(result.values()) / max(1, len(result))


def mean(values: Sequence[float]) -> float:
    return float(sum(values) / max(1, len(values)))
