"""Change a prompt's hidden states to add or remove concepts, by contrast or as in Concept Steerers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..dictionary import Dictionary
from ..errors import RevelioError
from .contrast_prompts import phrases_of
from .prompt_concept import ConceptFeatures

Negative = Literal["auto", "none", "mirrored", "same"]
NEGATIVES: tuple[Negative, ...] = get_args(Negative)
TokenScope = Literal["auto", "content", "all"]
TOKENS: tuple[TokenScope, ...] = get_args(TokenScope)
_WEIGHT = re.compile(r"(?P<phrase>.*?):\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*")


@dataclass(frozen=True, eq=False)
class TextChange:
    """A change to hidden states [B, T, D] in three parts: scaled, added and shifted.

    A part whose `..._content` is True changes only the prompt's own tokens, not start, end and padding.
    """

    scaled: Mapping[int, float] = field(default_factory=dict)
    """Feature number -> c: the code changes by dz = c z where the feature fires."""
    added: Mapping[int, float] = field(default_factory=dict)
    """Feature number -> a: the code changes by dz = a."""
    shifted: Tensor | None = None
    """[T', D], added position by position; in a longer prompt, the positions after T' do not change."""
    scaled_content: bool = False
    added_content: bool = True
    shifted_content: bool = False

    @torch.no_grad()
    def apply(self, hidden: Tensor, keep: Tensor, dictionary: Dictionary) -> Tensor:
        """Return the changed hidden states in their original dtype; the same object if nothing changes.

        keep: bool [B, T], True for the prompt's own tokens.
        """
        total = hidden.new_zeros((), dtype=torch.float32)
        if self.scaled:
            index = dictionary.feature_index(list(self.scaled)).to(hidden.device)
            dz = dictionary.encode(hidden).of_many(index) * _row(self.scaled, hidden)
            scaled = dictionary.contribution(dz, index, hidden)
            total = total + _filtered(scaled, keep, self.scaled_content)
        if self.added:
            added = dictionary.contribution(_row(self.added, hidden), list(self.added), hidden)
            total = total + _filtered(added.expand(hidden.shape), keep, self.added_content)
        if self.shifted is not None:
            shift = fitted(self.shifted, hidden.shape[1]).to(hidden.device)
            total = total + _filtered(shift.expand(hidden.shape), keep, self.shifted_content)
        return hidden if total.ndim == 0 else hidden + total.to(hidden.dtype)


def contrast_change(
    found: Sequence[tuple[ConceptFeatures, float]], tokens: TokenScope = "auto"
) -> TextChange:
    """Return the change for concepts found by contrast. found: pairs of a concept and its strength.

    A strength below 0 scales a concept's features down where they fire (-1: off); a strength above 0 adds
    strength times their mean. A feature of several concepts takes the strongest change. tokens: "content"
    changes only the prompt's own tokens, "all" every position; "auto" adds at the prompt's own tokens and
    removes wherever features fire.

    >>> hat = ConceptFeatures((7,), (1.0,), (2.0,), (0.0,))
    >>> contrast_change([(hat, 0.5)]).added, contrast_change([(hat, -1.0)]).scaled
    ({7: 1.0}, {7: -1.0})
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


def paper_change(shift: Tensor, tokens: TokenScope = "auto") -> TextChange:
    """Return the change of Concept Steerers: `shift` [T, D] at all positions, or only at the prompt's own."""
    return TextChange(shifted=shift, shifted_content=tokens == "content")


def weighted_phrases(text: str, *, commas: bool) -> list[tuple[str, float]]:
    """Return the concepts in a user's text, each with its weight.

    Semicolons and line ends separate concepts; with `commas`, commas do too, and leading articles are cut.

    >>> weighted_phrases("glasses; blue hair:-0.5", commas=False)
    [('glasses', 1.0), ('blue hair', -0.5)]
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
    """Cut `shift` [T, D] to `length` positions, or pad it with zeros to that length.

    >>> fitted(torch.ones(1, 2), 2).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    return functional.pad(shift[:length], (0, 0, 0, max(0, length - len(shift))))


def _row(values: Mapping[int, float], like: Tensor) -> Tensor:
    return torch.tensor(list(values.values()), dtype=torch.float32, device=like.device)


def _filtered(change: Tensor, keep: Tensor, content: bool) -> Tensor:
    return torch.where(keep.to(change.device)[..., None], change, 0.0) if content else change
