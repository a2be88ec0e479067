"""Steer concepts in a text encoder, by contrasting prompts or by the formula of Concept Steerers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ...dictionary import Dictionary
from ...errors import RevelioError, checked_choice
from ...render.table import table
from ...steering import ConceptFeatures, contrast_features, paper_delta
from ...steering.contrast_prompts import lines_of, neutral_prompts
from ...steering.prompt_states import (
    NEGATIVES,
    TOKENS,
    Negative,
    TextChange,
    TokenScope,
    contrast_change,
    fitted,
    paper_change,
    weighted_phrases,
)
from ..comfy_types import Clip
from ..sae_files import SAEHandle
from .encoder_taps import HiddenFunction, TextLayer, resolve_layer, steer_text, text_hidden

Method = Literal["contrast", "paper"]
METHODS: tuple[Method, ...] = get_args(Method)

NO_CHANGE = "Strength 0: nothing is changed."


@dataclass(frozen=True)
class ConceptPrompts:
    """Concepts as the user writes them: as phrases, or one concept as prompts with and without it."""

    phrase: str
    """One or several concepts, such as "glasses, blue hair:0.5"."""
    with_it: str = ""
    """Prompts with the concept, one per line; if empty, prompts are made from the phrase."""
    without: str = ""
    """The same prompts without the concept."""


def steer_concept(
    clip: Clip,
    sae: SAEHandle,
    prompts: ConceptPrompts,
    strength: float,
    method: Method = "contrast",
    *,
    negative: Negative = "auto",
    tokens: TokenScope = "auto",
) -> tuple[Clip, Clip, str]:
    """Return (CLIP for the positive prompt, CLIP for the negative prompt, a report of what was found).

    method "contrast": comparing prompts with and without a concept finds its features. A strength below 0
    subtracts them where they fire (-1: once, -2: twice); one above 0 adds strength times their mean.
    method "paper": the formula of Concept Steerers (arXiv 2501.19066).
    Each concept's weight multiplies the strength; strength 0 changes nothing.
    negative: "none" does not steer the negative prompt, "mirrored" steers it with the opposite strength,
    "same" with the same strength; "auto" means "none" for method contrast and "mirrored" for method paper.
    tokens: "content" changes only the prompt's own tokens, "all" also start, end and padding; "auto" means
    "all", except that method contrast adds features only to content tokens.
    """
    check_choices(method, strength, tokens, negative)
    layer = resolve_layer(clip, sae.dictionary.hook_point, sae.dictionary.d_model, sae.title)
    if strength == 0:
        return clip, clip, NO_CHANGE
    plus, minus, report = find_change(clip, sae, layer, prompts, strength, method, tokens)
    if negative == "auto":
        negative = "mirrored" if method == "paper" else "none"
    other = {"none": None, "mirrored": minus, "same": plus}[negative]
    steered = [
        clip if change is None else steer_text(clip, layer, on_device(sae.dictionary, change))
        for change in (plus, other)
    ]
    return steered[0], steered[1], report


def check_choices(method: str, strength: float, tokens: str, negative: str = "auto") -> None:
    """Raise RevelioError for an unknown choice or a strength that is not finite."""
    checked_choice("method", method, METHODS)
    checked_choice("tokens", tokens, TOKENS)
    checked_choice("negative", negative, NEGATIVES)
    if not abs(strength) < float("inf"):
        raise RevelioError(f"The strength must be a finite number, not {strength}.")


def find_change(
    clip: Clip,
    sae: SAEHandle,
    layer: TextLayer,
    prompts: ConceptPrompts,
    strength: float,
    method: Method,
    tokens: TokenScope,
) -> tuple[TextChange, TextChange, str]:
    """Return (a change of the hidden states, the opposite change, a report of the features found)."""
    if method == "paper":
        return _by_paper(clip, sae, layer, prompts.phrase, strength, tokens)
    if lines_of(prompts.with_it):
        concepts = [(prompts, 1.0)]
    else:
        phrases = weighted_phrases(prompts.phrase, commas=True)
        concepts = [(ConceptPrompts(phrase, "", prompts.without), weight) for phrase, weight in phrases]
        concepts = concepts or [(prompts, 1.0)]
    found = [(find_concept(clip, sae, layer, concept), weight) for concept, weight in concepts]
    reports = [
        describe(features, concept.phrase.strip() or "the concept", sae.dictionary)
        for (features, _), (concept, _) in zip(found, concepts, strict=True)
    ]
    plus, minus = (
        contrast_change([(features, sign * strength * weight) for features, weight in found], tokens)
        for sign in (1.0, -1.0)
    )
    return plus, minus, "\n\n".join(reports)


def find_concept(clip: Clip, sae: SAEHandle, layer: TextLayer, prompts: ConceptPrompts) -> ConceptFeatures:
    """Find the features that fire in prompts with the concept but not in those without it, strongest first.

    Raises RevelioError when no concept is given or no feature is found.
    """
    phrase = prompts.phrase.strip()
    neutral = neutral_prompts(phrase)
    with_it = lines_of(prompts.with_it) or neutral[0]
    without = lines_of(prompts.without) or neutral[1]
    if not with_it or not without:
        raise RevelioError(
            "There is no concept to look for: write a phrase such as glasses, or prompts with and without "
            "it, one per line."
        )
    device = sae.dictionary.W_enc.device
    (hidden_with, content_with), (hidden_without, content_without) = (
        text_hidden(clip, lines, layer) for lines in (with_it, without)
    )
    found = contrast_features(
        sae.dictionary, hidden_with.to(device), content_with, hidden_without.to(device), content_without
    )
    if not found.features:
        raise RevelioError(
            f'No feature of {sae.title} separates prompts with "{phrase or with_it[0]}" from prompts without '
            "it; use a word that the model knows, or give your own prompts with and without the concept."
        )
    return found


def describe(found: ConceptFeatures, phrase: str, dictionary: Dictionary) -> str:
    """Describe the features found for a concept, in Markdown: a sentence and a table."""
    count = len(found.features)
    rows = [
        (f"#{feature}", dictionary.label_of(feature) or "-", f"{high:.3g}", f"{low:.3g}", f"{score:.2f}")
        for feature, score, high, low in zip(
            found.features, found.scores, found.mean_with, found.mean_without, strict=True
        )
    ]
    intro = f'{count} feature{"" if count == 1 else "s"} found for "{phrase}" at {dictionary.hook_point}:'
    return f"{intro}\n\n{table(('feature', 'label', 'with it', 'without', 'score'), rows, numbers_from=2)}"


def on_device(dictionary: Dictionary, change: TextChange) -> HiddenFunction:
    """Return a function that moves states to the dictionary's device and applies `change` there."""

    def apply(hidden: Tensor, content: Tensor) -> Tensor:
        device = dictionary.W_enc.device
        moved = hidden.to(device)
        changed = change.apply(moved, content.to(device), dictionary)
        return hidden if changed is moved else changed.to(hidden.device)

    return apply


def _by_paper(
    clip: Clip, sae: SAEHandle, layer: TextLayer, text: str, strength: float, tokens: TokenScope
) -> tuple[TextChange, TextChange, str]:
    """Prepare h + strength * ENC(h_C) W_dec (Concept Steerers, arXiv 2501.19066).

    h: the prompt's hidden states; h_C: those of the concept's phrase. As in the authors' code, ENC applies no
    top-k, and position i of h_C adds to position i of h, in every section of a long prompt. The terms of
    several concepts add up; commas are part of a phrase.
    """
    concepts = weighted_phrases(text, commas=False)
    if not concepts:
        raise RevelioError("The paper method needs a concept phrase, such as glasses.")
    dictionary = sae.dictionary
    shifts: list[Tensor] = []
    lines = []
    for phrase, weight in concepts:
        hidden, _ = text_hidden(clip, [phrase], layer)
        if len(hidden) > 1:
            raise RevelioError("The concept phrase is too long for one section of 77 tokens; shorten it.")
        concept = hidden[0].to(dictionary.W_enc.device)
        shifts.append(paper_delta(dictionary, concept, strength * weight))
        firing = int((dictionary.encode_dense(concept) > 0).any(0).sum())
        lines.append(
            f'Formula of Concept Steerers for "{phrase}": uses all {firing} features that fire in the phrase.'
        )
    longest = max(len(shift) for shift in shifts)
    total = sum((fitted(shift, longest) for shift in shifts[1:]), fitted(shifts[0], longest))
    return paper_change(total, tokens), paper_change(-total, tokens), "\n\n".join(lines)
