"""How the bundled SAEs are labelled: which pictures are compared, and which features tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def saes(pack: Callable[[str], ModuleType]) -> Any:
    return import_module("lab.train.saes")


@pytest.fixture(scope="module")
def avatars(pack: Callable[[str], ModuleType]) -> Any:
    return import_module("lab.data.attributes")


def test_a_pair_differs_by_its_word_alone(saes: Any, avatars: Any) -> None:
    shots = saes.paired_shots(12)
    bases = [shot for shot in shots if shot.base < 0]
    assert len(bases) == 12
    for shot in shots:
        if shot.base >= 0:
            base = shots[shot.base]
            assert base.base < 0
            assert shot.seed == base.seed
            assert shot.text.startswith(f"{base.text}, ")
            labels = avatars.labels_for("model", shot.seed, split="train")
            style = avatars.value_name("style", labels["style"])
            assert shot.value in avatars.STYLES[style][shot.attribute]
    asked = {(shot.attribute, shot.value) for shot in shots if shot.base >= 0}
    assert asked == {(a, v) for a in saes.PARTS for v in avatars.ATTRIBUTES[a] if v != "none"}


def test_pairs_count_only_where_the_word_did_what_it_says(saes: Any, avatars: Any) -> None:
    glasses = avatars.NAMES.index("glasses")
    shots, rows = [], []
    for number in range(saes.FEWEST_PAIRS + 2):
        shots.append(saes.Shot("a face", number))
        shots.append(saes.Shot("a face, glasses", number, "glasses", "glasses", 2 * number))
        rows += torch.zeros(2, len(avatars.NAMES), dtype=torch.int64).unbind()
        rows[-1][glasses] = 1
    rows[1][glasses] = 0  # the word did nothing
    rows[2][glasses] = 1  # it had glasses without the word
    (with_it, without) = saes.pair_contrasts(shots, torch.stack(rows))["glasses"]
    assert with_it.tolist() == [2 * n + 1 for n in range(2, saes.FEWEST_PAIRS + 2)]
    assert without.tolist() == [2 * n for n in range(2, saes.FEWEST_PAIRS + 2)]
    assert saes.pair_contrasts(shots[: 2 * saes.FEWEST_PAIRS], torch.stack(rows)) == {}


def test_what_every_picture_has_is_compared_between_pictures(saes: Any, avatars: Any) -> None:
    values = torch.zeros(4, len(avatars.NAMES), dtype=torch.int64)
    values[:, avatars.NAMES.index("background")] = torch.tensor([0, 1, 1, 0])
    found = saes.image_contrasts(values)
    assert [side.tolist() for side in found["yellow background"]] == [[1, 2], [0, 3]]
    assert "glasses" not in found
    assert not any(label.endswith("skin") for label in found)  # the same in all of them


def test_labels_name_the_features_that_fire_with_it(saes: Any, pack: Callable[[str], ModuleType]) -> None:
    torch.manual_seed(0)
    width = 6
    make = pack("comfy_revelio.dictionary")
    dictionary = make.Dictionary(
        W_enc=torch.eye(width),
        b_enc=torch.zeros(width),
        W_dec=torch.eye(width),
        b_in=torch.zeros(width),
        b_out=torch.zeros(width),
        activation=make.Activation("topk_relu", 2),
    )
    maps = torch.rand(3, 20, 2, 5, width) * 0.1  # [steps, items, H, W, width]
    maps[1, 10:, 1, 3, 4] = 2.0  # feature 4: one cell at one step of the second half
    pictures = torch.arange(20)
    peaks = saes.peaks_of(dictionary, maps.half())
    contrasts = {"glasses": (pictures[10:], pictures[:10]), "red hair": (pictures[8:], pictures[:8])}
    assert saes.label_by_contrast(peaks, contrasts) == {"glasses": [4], "red hair": [4]}
    # who cannot tell the two apart gives the feature to the one that it follows better
    assert saes.label_by_contrast(peaks, contrasts, one_each=True) == {"glasses": [4]}


def test_a_concept_is_what_the_pictures_of_its_pairs_have_more(
    saes: Any, avatars: Any, pack: Callable[[str], ModuleType]
) -> None:
    width = 6
    eye, zero = torch.eye(width), torch.zeros(width)
    make = pack("comfy_revelio.dictionary")
    dictionary = make.Dictionary(eye, zero, eye, zero, zero, make.Activation("topk_relu", width))
    maps = torch.rand(3, 40, 2, 5, width) * 0.1  # [steps, items, H, W, width]
    maps[:, 20:, 1, 3, 4] = 2.0
    values = torch.zeros(40, len(avatars.NAMES), dtype=torch.int64)
    values[1::2, avatars.NAMES.index("style")] = 1
    maps[:, 1::2, ..., 0] += 3.0  # by which the two styles are told apart
    pictures = torch.arange(40)
    pairs = {"glasses": (pictures[20:], pictures[:20])}
    found = saes.concepts_of_pairs(dictionary, maps.half(), values, pairs, 1)["glasses"]
    assert found.features == (4,) and found.amount.shape == (2, 1, 2, 5)
    where = torch.zeros(2, 5)
    where[1, 3] = 1.95
    assert torch.allclose(found.amount[:, 0], where.expand(2, 2, 5), atol=0.05)
