"""Choosing features the way a user writes them."""

from __future__ import annotations

import pytest
import torch

from comfy_revelio import RevelioError
from comfy_revelio.dictionary import Codes, Concept
from comfy_revelio.steering import Intervention, Selection, features_in_trace, parse_selection
from comfy_revelio.trace import DictionaryNote, Frame, Trace

LABELS = {"glasses": [3, 1], "Red Hair": [7], "ratio 2:1": [9]}


@pytest.mark.parametrize(
    ("text", "features", "weights", "label"),
    [
        ("12", (12,), (1.0,), ""),
        ("12, 7:0.5", (12, 7), (1.0, 0.5), ""),
        ("12; 7:-2\n 3 ", (12, 7, 3), (1.0, -2.0, 1.0), ""),
        ("glasses", (3, 1), (1.0, 1.0), "glasses"),
        ("  GLASSES:2 , red hair", (3, 1, 7), (2.0, 2.0, 1.0), "glasses, Red Hair"),
        ("ratio 2:1", (9,), (1.0,), "ratio 2:1"),
        ("ratio 2:1:3", (9,), (3.0,), "ratio 2:1"),
        ("glasses, 3:0.25", (3, 1), (0.25, 1.0), "glasses"),
        ("12 = -1\n#7=0.5", (12, 7), (-1.0, 0.5), ""),
        ("glasses = 2\nratio 2:1 = 3", (3, 1, 9), (2.0, 2.0, 3.0), "glasses, ratio 2:1"),
        ("", (), (), ""),
        (" , ,", (), (), ""),
    ],
)
def test_what_people_write(make_dictionary, text, features, weights, label) -> None:
    assert parse_selection(text, make_dictionary(labels=LABELS)) == Selection(features, weights, label)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("40", "0 to 39"),
        ("-1", "0 to 39"),
        ("3, 99999999999999999999", "0 to 39"),
        ("3:x", "weight"),
        ("3 = ", "weight"),
        ("#-3", "Unknown feature"),
        ("#40", "0 to 39"),
        ("3:nan", "weight"),
        ("3:inf", "weight"),
        ("hat", r"hat.*glasses, Red Hair"),
        ("1.5", "Unknown feature"),
        ("3 4", "Unknown feature"),
        ("--3", "Unknown feature"),
        (":2", "Unknown feature"),
    ],
)
def test_mistakes_are_named(make_dictionary, text, word) -> None:
    with pytest.raises(RevelioError, match=word):
        parse_selection(text, make_dictionary(labels=LABELS))


def test_without_labels_the_sentence_says_so(make_dictionary) -> None:
    with pytest.raises(RevelioError, match="has no labels"):
        parse_selection("glasses", make_dictionary())


def test_a_name_means_the_concept_before_the_label(make_dictionary, concept) -> None:
    sae = make_dictionary(labels=LABELS, concepts={"glasses": concept, "Mr: X": concept})
    chosen = parse_selection("Glasses:2, red hair, 12", sae, sae.concepts)
    assert chosen == Selection((7, 12), (1.0, 1.0), "glasses, Red Hair", concepts=((concept, 2.0),))
    assert parse_selection("mr: x", sae, sae.concepts).concepts == ((concept, 1.0),)
    assert parse_selection("glasses", sae).features == (3, 1)
    assert parse_selection("glasses:0", sae, sae.concepts).empty
    with pytest.raises(RevelioError, match=r"hat.*glasses, Mr: X, Red Hair"):
        parse_selection("hat", sae, sae.concepts)


class TestNamesForLater:
    """What was chosen without the dictionary at hand is looked up by whoever has it."""

    def test_they_are_looked_up_once(self, make_dictionary, concept) -> None:
        sae = make_dictionary(labels=LABELS, concepts={"glasses": concept})
        text = "12, Glasses:-2, ratio 2:1:0.5, 9:3"
        later = parse_selection(text, make_dictionary(labels=LABELS), look_up=False)
        assert later.named == (("Glasses", -2.0), ("ratio 2:1", 0.5)) and not later.empty
        found = later.resolved(sae, sae.concepts)
        assert found.concepts == ((concept, -2.0),) and not found.named
        assert dict(zip(found.features, found.weights, strict=True)) == {9: 3.0, 12: 1.0}
        assert later.resolved(sae).shown == [3, 1, 9, 12]  # where no concepts are known, labels
        assert found.resolved(sae) is found
        with pytest.raises(RevelioError, match="Unknown feature 'hat'"):
            Selection((), named=(("hat", 1.0),)).resolved(sae)

    def test_they_keep_their_weights_until_then(self, make_dictionary, concept) -> None:
        assert Selection((), named=(("glasses", 0.0),)).empty
        with pytest.raises(RevelioError, match="finite"):
            Selection((), named=(("glasses", float("inf")),))
        mixed = Selection((3,), named=(("glasses", -2.0),), source="a")
        assert Selection((4,), named=(("glasses", 1.0),)).with_others(mixed).named == (("glasses", 1.0),)
        (up, _), (down, strength) = mixed.by_sign(1.5)
        assert (up.features, up.named) == ((3,), ())
        assert (down.features, down.named, strength) == ((), (("glasses", 2.0),), -1.5)
        sae = make_dictionary(labels=LABELS, concepts={"glasses": concept})
        assert Intervention(sae, down, strength).selection.concepts == ((concept, 2.0),)
        assert Intervention(sae, down, strength, mode="scale").selection.features == (3, 1)


def test_impossible_selections_are_refused(concept) -> None:
    for features, weights in [((1, 1), ()), ((1, 2), (1.0,)), ((1,), (float("nan"),))]:
        with pytest.raises(RevelioError):
            Selection(features, weights)
    with pytest.raises(RevelioError, match="finite"):
        Selection((), concepts=((concept, float("nan")),))


def test_features_of_another_hook_point_are_refused() -> None:
    Selection((1,)).check_source("middle_block.1")
    Selection((1,), source="middle_block.1").check_source("middle_block.1")
    with pytest.raises(
        RevelioError, match=r"found at output_blocks\.1\.1, but this SAE reads middle_block\.1"
    ):
        Selection((1,), source="output_blocks.1.1").check_source("middle_block.1")


class TestSigns:
    def test_weights_above_0_stay_in_one_part(self) -> None:
        selection = Selection((3, 4), (1.0, 0.5), source="middle_block.1")
        assert selection.by_sign(-2.0) == [(selection, -2.0)]

    def test_weights_below_0_turn_the_strength(self, concept) -> None:
        selection = Selection((3, 4, 5), (1.0, -0.5, 0.0), source="a", concepts=((concept, -4.0),))
        (up, up_strength), (down, down_strength) = selection.by_sign(2.0)
        assert (up.features, up.weights, up.concepts, up_strength) == ((3,), (1.0,), (), 2.0)
        assert (down.features, down.weights, down_strength) == ((4,), (0.5,), -2.0)
        assert down.concepts == ((concept, 4.0),)
        assert up.source == down.source == "a"

    def test_all_below_0_is_one_part(self) -> None:
        ((part, strength),) = Selection((3,), (-1.5,)).by_sign(1.0)
        assert (part.weights, strength) == ((1.5,), -1.0)

    def test_two_selections_together(self, concept) -> None:
        written = Selection((3, 4), (1.0, 2.0), label="a")
        connected = Selection((4, 9), (5.0, 6.0), source="middle_block.1", concepts=((concept, -1.0),))
        both = written.with_others(connected)
        assert dict(zip(both.features, both.weights, strict=True)) == {4: 2.0, 9: 6.0, 3: 1.0}
        assert (both.source, both.concepts) == ("middle_block.1", ((concept, -1.0),))
        assert written.with_others(None) is written

    def test_features_of_two_places_do_not_join(self) -> None:
        here, there = Selection((3,), source="a"), Selection((4,), source="b")
        with pytest.raises(RevelioError, match="found at b, but this SAE reads a"):
            here.with_others(there)
        assert here.with_others(Selection((), source="b")).features == (3,)


class TestLookingAtATrace:
    """A trace of two places: what is looked at is of the place that the features come from."""

    @pytest.fixture
    def trace(self) -> Trace:
        codes = Codes(torch.zeros(1, 6, 2, dtype=torch.int64), torch.zeros(1, 6, 2), 40)
        frames = tuple(Frame(name, 0, 0, 1.0, 1.0, "cond", (2, 3), codes) for name in ("a", "b"))
        return Trace(frames, {"a": DictionaryNote(40, 2, LABELS), "b": DictionaryNote(40, 2)}, 1, (1.0, 0.0))

    def test_the_place_of_the_features(self, trace) -> None:
        assert features_in_trace(trace, "12, 5", Selection((5, 6), source="b")) == ("b", [12, 5, 6])
        assert features_in_trace(trace, "glasses, 5", Selection((6, 3))) == ("a", [3, 1, 5, 6])
        assert features_in_trace(trace, "") == ("a", [])
        with pytest.raises(RevelioError, match="has no labels"):  # those of a are not those of b
            features_in_trace(trace, "glasses", Selection((5,), source="b"))

    def test_a_place_that_was_not_recorded(self, trace) -> None:
        with pytest.raises(RevelioError, match=r"features belong to c, but this trace was recorded at a, b"):
            features_in_trace(trace, "3", Selection((5,), source="c"))
        with pytest.raises(RevelioError, match="trace is empty"):
            features_in_trace(Trace((), {}, 1, (1.0, 0.0)), "3", Selection((5,), source="c"))

    def test_concepts_are_seen_by_what_carries_them(self, trace, concept) -> None:
        other = Concept((9, 4), concept.amount[:, :2], concept.share[:, :2], concept.reader)
        chosen = Selection((1,), source="b", concepts=((concept, -2.0), (other, 1.0)))
        assert features_in_trace(trace, "", chosen) == ("b", [1, 4, 9, 0, 17])
