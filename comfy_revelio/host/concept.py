"""Steering a concept in a CLIP text encoder, by contrast or by the formula of Concept Steerers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError
from ..render.table import table
from ..steering import ConceptFeatures, ablate, add, contrast_features, paper_delta
from ..steering.prompts import lines_of, neutral_prompts
from .sae_files import SAEHandle
from .text import HiddenFunction, TextLayer, resolve_layer, steer_text, text_hidden

METHODS = ("contrast", "paper")


@dataclass(frozen=True)
class ConceptPrompts:
    """A concept as the user says it: a phrase, and perhaps prompts with and without it, one a line."""

    phrase: str
    with_it: str = ""
    without: str = ""


def steer_concept(
    clip: Any, sae: SAEHandle, prompts: ConceptPrompts, strength: float, method: str = "contrast"
) -> tuple[Any, Any, str]:
    """(CLIP for the positive prompt, CLIP for the negative prompt, what was found in plain words).

    "contrast": the concept's features are found by contrasting prompts; a strength below 0 takes them out
    where they fire (-1 once, -2 twice as much), above 0 puts them in at strength times their measured mean.
    Only the positive CLIP changes. "paper": the formula of Concept Steerers (arXiv 2501.19066), added to the
    positive and subtracted from the negative prompt. Strength 0 changes nothing.
    """
    if method not in METHODS:
        raise RevelioError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if not abs(strength) < float("inf"):
        raise RevelioError(f"The strength must be a finite number, not {strength}.")
    layer = resolve_layer(clip, sae.dictionary.hook_point, sae.dictionary.d_model, sae.title)
    if strength == 0:
        return clip, clip, "Strength 0: nothing is changed."
    if method == "paper":
        return _by_paper(clip, sae, layer, prompts.phrase.strip(), strength)
    found = find_concept(clip, sae, layer, prompts)
    words = describe(found, prompts.phrase.strip() or "the concept", sae.dictionary)
    dictionary = sae.dictionary

    def change(hidden: Tensor, keep: Tensor) -> Tensor:
        if strength < 0:
            return ablate(hidden, dictionary, found.features, strength)
        return add(hidden, dictionary, found, strength, keep)

    return steer_text(clip, layer, _beside(dictionary, change)), clip, words


def find_concept(clip: Any, sae: SAEHandle, layer: TextLayer, prompts: ConceptPrompts) -> ConceptFeatures:
    """The features that fire with the concept and not without it, strongest first.

    Raises RevelioError when there is nothing to look for or nothing is found.
    """
    phrase = prompts.phrase.strip()
    neutral = neutral_prompts(phrase)
    with_it = lines_of(prompts.with_it) or neutral[0]
    without = lines_of(prompts.without) or neutral[1]
    if not with_it or not without:
        raise RevelioError(
            "There is no concept to look for: write a phrase such as glasses, or prompts with and without "
            "it, one a line."
        )
    device = sae.dictionary.W_enc.device
    (hidden_with, keep_with), (hidden_without, keep_without) = (
        text_hidden(clip, lines, layer) for lines in (with_it, without)
    )
    found = contrast_features(
        sae.dictionary, hidden_with.to(device), keep_with, hidden_without.to(device), keep_without
    )
    if not found.features:
        raise RevelioError(
            f'No feature of {sae.title} tells prompts with "{phrase or with_it[0]}" from prompts without '
            "it; use a word that the model knows, or give your own prompts with and without the concept."
        )
    return found


def describe(found: ConceptFeatures, phrase: str, dictionary: Dictionary) -> str:
    """The found features in words and a table, as Markdown, which ComfyUI's text preview shows as such."""
    count = len(found.features)
    rows = [
        (f"#{feature}", dictionary.label_of(feature) or "-", f"{high:.3g}", f"{low:.3g}", f"{score:.2f}")
        for feature, score, high, low in zip(
            found.features, found.scores, found.mean_with, found.mean_without, strict=True
        )
    ]
    intro = f'{count} feature{"" if count == 1 else "s"} found for "{phrase}" at {dictionary.hook_point}:'
    return f"{intro}\n\n{table(('feature', 'label', 'with it', 'without', 'score'), rows, numbers_from=2)}"


def _by_paper(
    clip: Any, sae: SAEHandle, layer: TextLayer, phrase: str, strength: float
) -> tuple[Any, Any, str]:
    """x + W_dec(strength * ENC(x_C)) for the positive prompt, minus it for the negative one.

    No top-k, position by position over all 77 positions with start, end and padding, as in the authors' code;
    a long prompt gets it in each of its sections.
    """
    if not phrase:
        raise RevelioError("The paper method needs a concept phrase, such as glasses.")
    hidden, _ = text_hidden(clip, [phrase], layer)
    if len(hidden) > 1:
        raise RevelioError("The concept phrase is too long for one section of 77 tokens; shorten it.")
    concept = hidden[0].to(sae.dictionary.W_enc.device)
    delta = paper_delta(sae.dictionary, concept, strength)
    firing = int((sae.dictionary.encode_dense(concept) > 0).any(0).sum())
    words = (
        f'Concept Steerers\' formula for "{phrase}": all {firing} features that fire in the phrase are used.'
    )

    def shifted(sign: float) -> HiddenFunction:
        def change(hidden: Tensor, _keep: Tensor) -> Tensor:
            return hidden + (sign * delta).to(hidden)

        return change

    return steer_text(clip, layer, shifted(1.0)), steer_text(clip, layer, shifted(-1.0)), words


def _beside(dictionary: Dictionary, change: HiddenFunction) -> HiddenFunction:
    """`change`, done where the dictionary is: hidden states of a prompt are small, weights are not."""

    def moved(hidden: Tensor, keep: Tensor) -> Tensor:
        device = dictionary.W_enc.device
        there = hidden.to(device)
        changed = change(there, keep.to(device))
        return hidden if changed is there else changed.to(hidden.device)

    return moved
