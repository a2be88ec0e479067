"""Steering a concept of the prompt through a real CLIP, with an SAE that knows one word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

LAYER = "layers.3"


@pytest.fixture
def concept(pack: Any) -> Any:
    return pack("comfy_revelio.host.text.concept")


@pytest.fixture
def word_sae(pack: Any, mini: SimpleNamespace) -> Any:
    """An SAE of layer 3 whose feature 1 fires on the word glasses, and feature 0 on every word."""
    text = pack("comfy_revelio.host.text.encoder_taps")
    layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
    hidden, keep = text.text_hidden(
        mini.clip, ["glasses", "hat", "portrait", "person", "drawing", "face"], layer
    )
    words = torch.stack([row[kept][-1] for row, kept in zip(hidden, keep, strict=True)])
    others = words[1:].mean(0)
    word = nn.functional.normalize(words[0] - others, dim=0)
    common = nn.functional.normalize(others, dim=0)
    common = nn.functional.normalize(common - (common @ word) * word, dim=0)
    threshold = (words[0] @ word + (words[1:] @ word).max()) / 2
    directions = torch.stack([common, word])
    make = pack("comfy_revelio.dictionary")
    dictionary = make.Dictionary(
        directions.clone(),
        torch.tensor([100.0, -float(threshold)]),
        directions.clone(),
        torch.zeros(192),
        torch.zeros(192),
        make.Activation("topk_relu", 2),
        provenance=make.Provenance(LAYER),
        extras=make.Extras(labels={"spectacles": [1]}),
    )
    return pack("comfy_revelio.host.sae_files").handle(dictionary, "words.safetensors")


def encode(clip: Any, prompt: str) -> Tensor:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]


def steer(
    concept: Any,
    clip: Any,
    sae: Any,
    phrase: str,
    strength: float,
    method: str = "contrast",
    negative: str = "auto",
    **more: str,
) -> Any:
    prompts = concept.ConceptPrompts(phrase, **more)
    return concept.steer_concept(clip, sae, prompts, strength, method, negative=negative)


class TestContrast:
    def test_finds_and_removes_the_word(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        positive, negative, found = steer(concept, mini.clip, word_sae, "glasses", -1.0)
        assert negative is mini.clip
        assert "| #1      | spectacles |" in found
        assert "#0" not in found
        assert not torch.equal(encode(positive, "glasses"), encode(mini.clip, "glasses"))
        assert torch.equal(encode(positive, "hat"), encode(mini.clip, "hat"))
        assert torch.equal(encode(positive, ""), encode(mini.clip, ""))

    def test_removal_is_error_preserving_ablation(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any, pack: Any
    ) -> None:
        text = pack("comfy_revelio.host.text.encoder_taps")
        layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
        positive, _, _ = steer(concept, mini.clip, word_sae, "glasses", -2.0)
        (before, _), (after, _) = (
            text.text_hidden(clip, ["glasses"], layer) for clip in (mini.clip, positive)
        )
        codes = word_sae.dictionary.encode(before).of(1)
        assert (codes > 0).any()
        expected = before - 2.0 * codes[..., None] * word_sae.dictionary.W_dec[1]
        assert torch.allclose(after, expected, atol=1e-4)

    def test_addition_touches_the_words_only(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any, pack: Any
    ) -> None:
        text = pack("comfy_revelio.host.text.encoder_taps")
        layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
        positive, _, _ = steer(concept, mini.clip, word_sae, "glasses", 1.0)
        (before, keep), (after, _) = (
            text.text_hidden(clip, ["round hat"], layer) for clip in (mini.clip, positive)
        )
        changed = (before != after).any(-1)
        assert torch.equal(changed, keep)

    def test_strength_0_is_the_same_clip(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        for method in ("contrast", "paper"):
            positive, negative, _ = steer(concept, mini.clip, word_sae, "glasses", 0.0, method)
            assert positive is mini.clip
            assert negative is mini.clip

    def test_own_prompts(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        _, _, found = steer(
            concept,
            mini.clip,
            word_sae,
            "",
            -1.0,
            with_it="glasses\na face, glasses\n\n",
            without="hat\nface",
        )
        assert "1 feature found" in found

    def test_nothing_found_is_said(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        with pytest.raises(ValueError, match=r'No feature .* "hat"'):
            steer(concept, mini.clip, word_sae, "hat", -1.0)

    def test_nothing_asked_is_said(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        with pytest.raises(ValueError, match="no concept to look for"):
            steer(concept, mini.clip, word_sae, "  ", -1.0)

    @pytest.mark.parametrize("strength", [float("nan"), float("inf")])
    def test_strength_must_be_a_number(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any, strength: float
    ) -> None:
        with pytest.raises(ValueError, match="finite number"):
            steer(concept, mini.clip, word_sae, "glasses", strength)


class TestPaper:
    def test_formula(self, mini: SimpleNamespace, concept: Any, word_sae: Any, pack: Any) -> None:
        """x + W_dec(strength * ENC(x_C)) at all 77 positions; the negative prompt is mirrored."""
        text = pack("comfy_revelio.host.text.encoder_taps")
        layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
        dictionary = word_sae.dictionary
        (phrase, _) = text.text_hidden(mini.clip, ["glasses"], layer)
        code = torch.relu((phrase[0] - dictionary.b_in) @ dictionary.W_enc.T + dictionary.b_enc)
        delta = -0.5 * code @ dictionary.W_dec
        positive, negative, _ = steer(concept, mini.clip, word_sae, "glasses", -0.5, "paper")
        prompt = ", ".join(["a portrait with a long beard"] * 16)  # two sections
        before, _ = text.text_hidden(mini.clip, [prompt], layer)
        assert len(before) > 1
        for clip, sign in ((positive, 1.0), (negative, -1.0)):
            after, _ = text.text_hidden(clip, [prompt], layer)
            assert torch.allclose(after, before + sign * delta, atol=1e-3)

    def test_the_source_stays(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        before = encode(mini.clip, "(glasses:1.2)")
        positive, negative, _ = steer(concept, mini.clip, word_sae, "glasses", -0.5, "paper")
        results = [encode(clip, "(glasses:1.2)") for clip in (positive, negative, mini.clip)]
        assert torch.equal(results[2], before)
        assert not torch.equal(results[0], results[1])


class TestWeights:
    """CLIPTextEncode with (words:1.3): it scales the difference of the steered prompt to the empty one."""

    @pytest.mark.parametrize("method", ["contrast", "paper"])
    @pytest.mark.parametrize("extra", ["", ", a portrait with a long beard" * 16], ids=["short", "long"])
    def test_weights(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any, method: str, extra: str
    ) -> None:
        positive, negative, _ = steer(
            concept, mini.clip, word_sae, "glasses", -1.0, method, negative="mirrored"
        )
        weighted, plain = f"(glasses:1.3) and a (hat:0.6){extra}", f"glasses and a hat{extra}"
        weights = torch.tensor(
            [[weight for _, weight in section] for section in mini.clip.tokenize(weighted)["l"]]
        )
        assert weights.unique().tolist() == pytest.approx([0.6, 1.0, 1.3])
        empty = through_the_node(mini.clip, "").repeat(1, len(weights), 1)
        for clip in (positive, negative):
            steered = through_the_node(clip, plain)
            expected = empty + weights.reshape(1, -1, 1) * (steered - empty)
            found = through_the_node(clip, weighted)
            assert torch.allclose(found, expected, atol=1e-4)
            assert not torch.allclose(found, through_the_node(mini.clip, weighted), atol=1e-3)


def through_the_node(clip: Any, prompt: str) -> Tensor:
    from nodes import CLIPTextEncode

    return CLIPTextEncode().encode(clip, prompt)[0][0][0]


class TestPrompts:
    @pytest.fixture
    def prompts(self, pack: Any) -> Any:
        return pack("comfy_revelio.steering.contrast_prompts")

    def test_pairs_differ_by_the_phrase(self, prompts: Any) -> None:
        with_it, without = prompts.neutral_prompts("glasses")
        assert len(with_it) == len(without) >= 12
        assert all("glasses" in prompt for prompt in with_it)
        assert not any("glasses" in prompt for prompt in without)

    def test_the_kind_of_thing_stays(self, prompts: Any) -> None:
        with_it, without = prompts.neutral_prompts("blue hair")
        assert all("blue hair" in prompt for prompt in with_it)
        assert all("hair" in prompt and "blue" not in prompt for prompt in without)

    @pytest.mark.parametrize(
        ("text", "phrases"),
        [
            ("a beard", ["beard"]),
            ("wearing the glasses, ", ["glasses"]),
            ("blue hair, hat", ["blue hair", "hat"]),
        ],
    )
    def test_phrases(self, prompts: Any, text: str, phrases: list[str]) -> None:
        assert prompts.phrases_of(text) == phrases


class TestChoices:
    def test_the_negative_prompt(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        prompts = concept.ConceptPrompts("glasses")

        def change(negative: str, strength: float) -> tuple[Tensor, Any]:
            plus, other, _ = concept.steer_concept(
                mini.clip, word_sae, prompts, strength, negative=negative, tokens="all"
            )
            return encode(plus, "round hat"), other

        assert change("none", 1.0)[1] is mini.clip
        assert change("auto", 1.0)[1] is mini.clip
        plus, same = change("same", 1.0)
        assert torch.equal(encode(same, "round hat"), plus)
        # removing from the positive prompt is adding to the negative one
        assert torch.equal(encode(change("mirrored", -1.0)[1], "round hat"), plus)

    def test_the_papers_negative_prompt(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        prompts = concept.ConceptPrompts("glasses")
        plus, none, _ = concept.steer_concept(mini.clip, word_sae, prompts, -0.5, "paper", negative="none")
        _, same, _ = concept.steer_concept(mini.clip, word_sae, prompts, -0.5, "paper", negative="same")
        assert none is mini.clip
        assert torch.equal(encode(same, ""), encode(plus, ""))

    def test_content_tokens_only(self, mini: SimpleNamespace, concept: Any, word_sae: Any, pack: Any) -> None:
        text = pack("comfy_revelio.host.text.encoder_taps")
        layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")
        prompts = concept.ConceptPrompts("glasses")
        for method in ("paper", "contrast"):
            plus, _, _ = concept.steer_concept(mini.clip, word_sae, prompts, 0.7, method, tokens="content")
            (before, keep), (after, _) = (
                text.text_hidden(clip, ["round hat"], layer) for clip in (mini.clip, plus)
            )
            assert torch.equal((before != after).any(-1), keep)

    def test_several_concepts_of_the_paper_add_up(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any, pack: Any
    ) -> None:
        text = pack("comfy_revelio.host.text.encoder_taps")
        layer = text.resolve_layer(mini.clip, LAYER, 192, "the SAE")

        def after(phrase: str, strength: float) -> Tensor:
            clip, _, _ = steer(concept, mini.clip, word_sae, phrase, strength, "paper")
            return text.text_hidden(clip, ["a portrait"], layer)[0]

        plain = text.text_hidden(mini.clip, ["a portrait"], layer)[0]
        both = after("glasses; hat, round:-2", 0.5)
        expected = after("glasses", 0.5) + after("hat, round", -1.0) - plain
        assert torch.allclose(both, expected, atol=1e-3)

    def test_several_concepts_by_contrast_are_looked_for_one_by_one(
        self, mini: SimpleNamespace, concept: Any, word_sae: Any
    ) -> None:
        _, _, found = steer(concept, mini.clip, word_sae, "glasses; a glasses:-2", -1.0)
        assert found.count('1 feature found for "glasses"') == 2
        with pytest.raises(ValueError, match=r'No feature .* "hat"'):
            steer(concept, mini.clip, word_sae, "glasses, hat", -1.0)

    def test_choices_that_do_not_exist(self, mini: SimpleNamespace, concept: Any, word_sae: Any) -> None:
        prompts = concept.ConceptPrompts("glasses")
        for wrong in ({"negative": "maybe"}, {"tokens": "some"}, {"method": "magic"}):
            with pytest.raises(ValueError, match="choose one of"):
                concept.steer_concept(mini.clip, word_sae, prompts, -1.0, **wrong)
