"""The captions: varied, right, and of a small vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from comfy_revelio.errors import RevelioError
from lab.data.attributes import ATTRIBUTES, HIDDEN, labels_for, sample_labels
from lab.data.captions import canonical_caption, caption, phrases, vocabulary


def _words(text: str) -> list[str]:
    return text.replace(",", "").split()


def test_vocabulary_is_small_and_lower_case() -> None:
    words = vocabulary()
    assert len(words) < 250
    assert all(word.isascii() and word.isalpha() and word == word.lower() for word in words)


def test_captions_use_the_vocabulary_only() -> None:
    rng = np.random.default_rng(1)
    words = vocabulary()
    for index in range(2000):
        assert set(_words(caption(labels_for("check", index), rng).text)) <= words


def test_captions_vary() -> None:
    labels = labels_for("check", 3)
    rng = np.random.default_rng(2)
    assert len({caption(labels, rng).text for _ in range(200)}) > 190


def test_the_same_generator_state_gives_the_same_caption() -> None:
    labels = labels_for("check", 4)
    assert caption(labels, np.random.default_rng(5)) == caption(labels, np.random.default_rng(5))


def test_attributes_are_left_out_as_often_as_meant() -> None:
    rng = np.random.default_rng(3)
    rates: dict[str, list[bool]] = {}
    for index in range(6000):
        labels = labels_for("check", index)
        mentioned = caption(labels, rng).mentioned
        for name, value in labels.items():
            if value != HIDDEN:
                rates.setdefault(f"{name} {ATTRIBUTES[name][value] == 'none'}", []).append(name in mentioned)
    means = {key: np.mean(found) for key, found in rates.items()}
    for name in ("style", "hair", "skin", "background", "mood"):
        assert 0.83 < means[f"{name} False"] < 0.9
    for name in ("glasses", "beard", "hat"):
        assert 0.9 < means[f"{name} False"] < 0.96
        assert 0.12 < means[f"{name} True"] < 0.18


def test_nothing_wrong_is_said() -> None:
    """Words that belong to one value of an attribute never stand in the caption of another value."""
    rng = np.random.default_rng(4)
    owned = {
        "glasses": {
            "glasses": {"eyeglasses", "spectacles", "reading", "clear"},
            "sunglasses": {"sunglasses", "shades"},
        },
        "beard": {"beard": {"bearded", "facial"}},
        "hat": {"hat": {"headwear"}},
        "mood": {
            "smile": {"smile", "smiling", "happy", "cheerful"},
            "sad": {"sad", "frown", "frowning", "unhappy"},
            "surprised": {"surprised", "astonished", "shocked", "amazed"},
        },
        "skin": {"light": {"pale", "fair", "light"}, "medium": {"tan", "olive", "medium"}, "dark": {"deep"}},
        "hair": {
            "gray": {"gray", "grey", "silver"},
            "blonde": {"blonde", "blond"},
            "brown": {"brown", "brunette"},
        },
    }
    for index in range(3000):
        labels = labels_for("check", index)
        said = caption(labels, rng)
        text = f" {said.text} ".replace("sunglasses", "SUN").replace(" fairy ", " ")
        words = set(text.replace("SUN", "sunglasses").replace(",", " ").split())
        for name, values in owned.items():
            for value, own in values.items():
                if labels[name] == HIDDEN or ATTRIBUTES[name][labels[name]] != value:
                    assert not words & own, (said.text, name, value)


def test_mentioned_attributes_are_named_and_others_are_not() -> None:
    rng = np.random.default_rng(6)
    for index in range(500):
        labels = labels_for("check", index)
        said = caption(labels, rng)
        for name in said.mentioned:
            assert labels[name] != HIDDEN
        if "background" not in said.mentioned:
            assert not {"background", "backdrop", "wall"} & set(_words(said.text))
        if "hair" not in said.mentioned:
            assert not {"hair", "haired"} & set(_words(said.text.replace("facial hair", "")))
        if "glasses" not in said.mentioned:
            assert "glasses" not in said.text


@pytest.mark.parametrize("name", ["glasses", "beard", "hat", "hair"])
def test_without_leaves_an_attribute_out(name: str) -> None:
    rng = np.random.default_rng(7)
    for index in range(300):
        labels = labels_for("check", index)
        said = caption(labels, rng, without={name})
        assert name not in said.mentioned
        value = labels[name]
        if value != HIDDEN and ATTRIBUTES[name][value] != "none":
            assert phrases(name, ATTRIBUTES[name][value])[0] not in canonical_caption(labels, without={name})


def test_canonical_caption_is_fixed() -> None:
    labels = sample_labels(np.random.default_rng(0)) | {
        "style": 1,
        "hair": 4,
        "skin": 2,
        "background": 0,
        "glasses": 1,
        "beard": 1,
        "hat": 0,
        "mood": 0,
        "clothes": 0,
    }
    assert canonical_caption(labels) == (
        "pixel art portrait, blue hair, dark skin, glasses, a beard, a smile, red clothes, white background"
    )


def test_every_value_has_a_wording() -> None:
    for name, values in ATTRIBUTES.items():
        for value in values:
            assert len(phrases(name, value)) >= 2
    with pytest.raises(RevelioError, match="blonde"):
        phrases("hair", "violet")
    with pytest.raises(RevelioError, match="background"):
        caption(labels_for("check", 0), np.random.default_rng(0), without={"nose"})
