"""What is done to the hidden states of a prompt: one or several concepts, by contrast or by the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Dictionary
from ..errors import RevelioError
from .contrast_prompts import phrases_of
from .prompt_concept import ConceptFeatures

NEGATIVES = ("auto", "none", "mirrored", "same")
TOKENS = ("auto", "content", "all")
_WEIGHT = re.compile(r"(?P<phrase>.*?):\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*")


@dataclass(frozen=True, eq=False)
class TextChange:
    """A change of hidden states [rows, T, d].

    scaled: feature -> c, dz = c * z, where the feature fires. added: feature -> a, dz = a. shifted [T, d]:
    added position by position, as far as a prompt of another length goes.
    content: bool of each, whether only the prompt's own tokens are changed, and not start, end and padding.
    """

    scaled: Mapping[int, float] = field(default_factory=dict)
    added: Mapping[int, float] = field(default_factory=dict)
    shifted: Tensor | None = None
    scaled_content: bool = False
    added_content: bool = True
    shifted_content: bool = False

    @torch.no_grad()
    def apply(self, hidden: Tensor, keep: Tensor, dictionary: Dictionary) -> Tensor:
        """hidden with the change, in its own type; the same object where there is nothing to do.

        keep: bool [rows, T], the prompt's own tokens.
        """
        total = hidden.new_zeros((), dtype=torch.float32)
        if self.scaled:
            index = dictionary.feature_index(list(self.scaled)).to(hidden.device)
            change = dictionary.encode(hidden).of_many(index) * _row(self.scaled, hidden)
            total = total + _filtered(
                dictionary.contribution(change, index, hidden), keep, self.scaled_content
            )
        if self.added:
            put = dictionary.contribution(_row(self.added, hidden), list(self.added), hidden)
            total = total + _filtered(put.expand(hidden.shape), keep, self.added_content)
        if self.shifted is not None:
            put = fitted(self.shifted, hidden.shape[1]).to(hidden.device)
            total = total + _filtered(put.expand(hidden.shape), keep, self.shifted_content)
        return hidden if total.ndim == 0 else hidden + total.to(hidden.dtype)


def contrast_change(found: Sequence[tuple[ConceptFeatures, float]], tokens: str = "auto") -> TextChange:
    """The change for concepts found by contrast, each with its strength.

    Below 0 a concept's features are scaled down where they fire (-1: off), above 0 they are put in at
    strength times their mean. A feature of several concepts follows the strongest of them.
    tokens: "content" changes the prompt's own tokens only, "all" every position; "auto" puts in at content
    and takes out wherever the features fire.
    """
    scaled: dict[int, float] = {}
    added: dict[int, float] = {}
    for concept, strength in found:
        for feature, mean in zip(concept.features, concept.mean_with, strict=True):
            if strength < 0:
                scaled[feature] = min(scaled.get(feature, 0.0), strength)
            elif strength > 0:
                added[feature] = max(added.get(feature, 0.0), strength * mean)
    return TextChange(
        scaled, added, scaled_content=tokens == "content", added_content=tokens in ("auto", "content")
    )


def paper_change(shift: Tensor, tokens: str = "auto") -> TextChange:
    """The change of Concept Steerers: `shift` [T, d] at every position, start, end and padding too."""
    return TextChange(shifted=shift, shifted_content=tokens == "content")


def weighted_phrases(text: str, *, commas: bool) -> list[tuple[str, float]]:
    """The concepts in what a user wrote, each with its weight: "glasses; blue hair:-0.5".

    Concepts stand between semicolons or on lines of their own, and with `commas` between commas too: then
    leading articles are left out. Raises RevelioError for a weight that is no number.
    """
    found = []
    for part in re.split(r"[;\n,]" if commas else r"[;\n]", text):
        match = _WEIGHT.fullmatch(part.strip())
        phrase, weight = (match["phrase"], float(match["weight"])) if match else (part, 1.0)
        if ":" in phrase:
            raise RevelioError(f"The weight in {part.strip()!r} must be a number, as in glasses:0.5.")
        phrases = phrases_of(phrase) if commas else [" ".join(phrase.split())]
        found += [(phrase, weight) for phrase in phrases if phrase]
    return found


def fitted(shift: Tensor, length: int) -> Tensor:
    """shift [T, d] for prompts of `length` positions: cut, or zeros behind."""
    return functional.pad(shift[:length], (0, 0, 0, max(0, length - len(shift))))


def _row(values: Mapping[int, float], like: Tensor) -> Tensor:
    return torch.tensor(list(values.values()), dtype=torch.float32, device=like.device)


def _filtered(change: Tensor, keep: Tensor, content: bool) -> Tensor:
    return torch.where(keep.to(change.device)[..., None], change, 0.0) if content else change
