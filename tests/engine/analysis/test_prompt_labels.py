"""Labels from the words of prompts."""

from __future__ import annotations

import torch

from comfy_revelio.analysis import concept_between, prompt_labels
from comfy_revelio.analysis.prompt_labels import concepts_of_prompts, labels_of_prompts, phrases


def test_words_and_short_phrases_of_a_prompt() -> None:
    found = phrases("A pixel art portrait of a person, blue hair, in front of a red wall behind the house")
    assert {"pixel", "blue hair", "hair", "red", "wall"} <= found
    assert not found & {"a", "of", "portrait", "in front of red wall behind house"}
    assert phrases("") == set()


def test_the_feature_that_follows_a_word_is_named_after_it(make_dictionary) -> None:
    dictionary = make_dictionary(n=40, d=12, k=5)
    g = torch.Generator().manual_seed(1)
    prompts = {n: "a face, blue hair" if n % 3 == 0 else "a face, glasses" if n % 3 == 1 else "a face"
               for n in range(24)}  # fmt: skip
    items = torch.arange(24).repeat_interleave(6)
    rows = dictionary.b_in + torch.randn(144, 12, generator=g) * 0.1
    for number in range(0, 24, 3):  # one token of each such image points at feature 7
        rows[number * 6 + 2] += 4 * dictionary.W_enc[7] / dictionary.W_enc[7].norm()
    order = torch.randperm(144, generator=g)
    labels = labels_of_prompts(dictionary, rows[order], items[order], prompts)
    assert 7 in labels["blue hair"]
    assert 7 not in labels.get("glasses", [])
    assert "face" not in labels  # all of them say it
    assert labels_of_prompts(dictionary, rows, items, {}) == {}


def test_what_changes_with_a_word_becomes_its_concept(make_dictionary, monkeypatch) -> None:
    """One pass over maps gives what comparing the images by hand gives; strangers do not count."""
    dictionary = make_dictionary(n=40, d=12, k=5)
    x = torch.randn(10, 3, 5, 12, generator=torch.Generator().manual_seed(2))
    items = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 99, 2])
    prompts = {n: "a face, blue hair" if n % 2 else "a face, a hat" for n in range(6)}
    parts = [(x[:4], items[:4]), (x[4:], items[4:])]
    found = concepts_of_prompts(dictionary, lambda: iter(parts), prompts, ["hat", "blue hair", "face", "dog"])
    assert set(found) == {"hat", "blue hair"}  # all say face, and none a dog
    has = torch.tensor([n % 2 == 0 and n < 6 for n in items.tolist()])
    lacks = torch.tensor([n % 2 == 1 and n < 6 for n in items.tolist()])
    expected = concept_between(dictionary, [x[has]], [x[lacks]])
    assert found["hat"].features == expected.features
    assert torch.allclose(found["hat"].amount, expected.amount, atol=1e-5)
    assert torch.allclose(found["hat"].share, expected.share, atol=1e-4)
    assert concepts_of_prompts(dictionary, lambda: [], prompts, ["hat"]) == {}
    monkeypatch.setattr(prompt_labels, "_SUMS_BYTES", 1)  # one word a pass
    again = concepts_of_prompts(dictionary, lambda: iter(parts), prompts, ["hat", "blue hair", "face", "dog"])
    assert list(again) == list(found)
    assert all(torch.equal(again[name].amount, found[name].amount) for name in found)
