"""The attributes: what is sampled, what is held out, what the seeds promise."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from comfy_revelio.errors import RevelioError
from lab.data import attributes
from lab.data.attributes import ATTRIBUTES, HIDDEN, NAMES, STYLES, is_held_out, labels_for, sample_labels
from lab.data.drawing import BACKGROUND, CLOTHES, HAIR, SKETCHERS, SKIN


@pytest.fixture(scope="module")
def train() -> list[dict[str, int]]:
    return [labels_for("model", index) for index in range(20_000)]


def test_at_least_eight_attributes_and_every_style_is_drawable() -> None:
    assert len(ATTRIBUTES) >= 8
    assert tuple(STYLES) == ATTRIBUTES["style"] == tuple(SKETCHERS)
    for table, name in ((HAIR, "hair"), (SKIN, "skin"), (BACKGROUND, "background"), (CLOTHES, "clothes")):
        assert tuple(table) == ATTRIBUTES[name]
    for style, values in STYLES.items():
        assert tuple(SKETCHERS[style].moods) == values["mood"]
        assert bool(SKETCHERS[style].beards) == ("beard" in values["beard"])
        assert bool(SKETCHERS[style].hats) == ("hat" in values["hat"])
        assert bool(SKETCHERS[style].sunglasses) == ("sunglasses" in values["glasses"])


def test_samples_stay_within_what_the_style_can_draw(train: list[dict[str, int]]) -> None:
    for labels in train[:3000]:
        style = ATTRIBUTES["style"][labels["style"]]
        for name, allowed in STYLES[style].items():
            if labels[name] == HIDDEN:
                assert not allowed or (name == "hair" and labels["hat"] == 1)
            else:
                assert ATTRIBUTES[name][labels[name]] in allowed


def test_training_never_meets_a_held_out_combination(train: list[dict[str, int]]) -> None:
    assert not any(is_held_out(labels) for labels in train)
    held_out = [labels_for("check", index, split="held_out") for index in range(400)]
    assert all(is_held_out(labels) for labels in held_out)
    assert {labels["hat"] for labels in held_out} == {0, 1}
    assert {labels["glasses"] for labels in held_out} == {0, 1, 2}


def test_both_kinds_occur_in_any() -> None:
    share = np.mean([is_held_out(labels_for("check", index, split="any")) for index in range(3000)])
    assert 0.04 < share < 0.2


def test_about_a_tenth_of_the_combinations_is_held_out() -> None:
    supported = sum(len(values["hair"]) * len(values["glasses"]) for values in STYLES.values())
    assert 0.08 <= len(attributes.held_out_triples()) / supported <= 0.12


def test_every_value_and_every_possible_pair_occurs_in_training(train: list[dict[str, int]]) -> None:
    seen = {
        (a, labels[a], b, labels[b])
        for labels in train
        for a, b in combinations(NAMES, 2)
        if labels[a] != HIDDEN and labels[b] != HIDDEN
    }
    possible = set()
    for style, allowed in STYLES.items():
        values = {"style": (style,), **allowed}
        for a, b in combinations(NAMES, 2):
            for x, y in product(values[a], values[b]):
                if (a, b) != ("hair", "hat") or y == "none":
                    possible.add((a, ATTRIBUTES[a].index(x), b, ATTRIBUTES[b].index(y)))
    assert possible <= seen


def test_parts_are_common_enough_to_learn(train: list[dict[str, int]]) -> None:
    table = np.stack([attributes.to_array(labels) for labels in train])
    for name in ("glasses", "beard", "hat"):
        column = table[:, NAMES.index(name)]
        for value in range(1, len(ATTRIBUTES[name])):
            assert (column == value).mean() > 0.08


def test_labels_depend_on_namespace_and_number_alone() -> None:
    assert labels_for("judge", 7) == labels_for("judge", 7)
    assert any(labels_for("judge", index) != labels_for("model", index) for index in range(5))
    assert attributes.seed_text("model", 1) != attributes.seed_text("judge", 1)


def test_arrays_and_dicts_are_the_same_labels() -> None:
    labels = sample_labels(np.random.default_rng(0))
    array = attributes.to_array(labels)
    assert array.shape == (len(NAMES),) and array.dtype == np.int16
    assert attributes.to_dict(array) == labels
    assert is_held_out(array) == is_held_out(labels)


def test_wrong_names_are_told_with_the_right_ones() -> None:
    with pytest.raises(RevelioError, match="sunglasses"):
        attributes.index_of("glasses", "monocle")
    with pytest.raises(RevelioError, match="held_out"):
        sample_labels(np.random.default_rng(0), split="test")
    with pytest.raises(RevelioError, match="judge"):
        attributes.seed_text("nobody", 0)
