"""The tokens that a text encoder receives for a prompt, and which of them are content.

Content tokens are those of the user's text, not start, end or padding. Text encoders read a prompt in
sections (77 tokens for CLIP); functions that return one list for a prompt join its sections end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..comfy_types import Clip
from .layers import TextLayer

Sections = Sequence[Sequence[tuple[Any, ...]]]
"""One prompt's tokens for one encoder: sections of (token, weight) pairs."""

EMBEDDING = "(embedding)"
"""The text shown in place of a textual inversion's token."""


def content_mask(sections: Sections, special: Mapping[str, Any], length: int) -> Tensor:
    """Return which positions are content: bool [sections, length].

    special: the encoder's "start", "end" and "pad" tokens. A section's content ends at the first end token,
    because CLIP-L is also padded with it. Language models have no end token; some are padded on the left.
    """
    content = torch.zeros(len(sections), length, dtype=torch.bool)
    start, end, pad = special.get("start"), special.get("end"), special.get("pad")
    for row, section in enumerate(sections):
        for position, (token, *_) in enumerate(section[:length]):
            if isinstance(token, Integral):
                if token == end:
                    break
                if token == start or (end is None and token == pad):
                    continue
            content[row, position] = True  # a token, or a row of a textual inversion
    return content


def content_of_prompt(clip: Clip, prompt: str, encoder: str) -> Tensor:
    """Return the `content_mask` of a prompt for one encoder of `clip`: bool [sections, T]."""
    sections = sections_of(clip.tokenize(prompt), encoder)
    special = getattr(clip.cond_stage_model, encoder).special_tokens
    return content_mask(sections, special, max((len(section) for section in sections), default=0))


def spelled_tokens(clip: Clip, prompt: str, encoder: str) -> list[list[str]]:
    """Return each section's tokens as the encoder's vocabulary spells them, such as "glass" and "es</w>"."""
    names = getattr(getattr(clip.tokenizer, encoder, None), "inv_vocab", {})
    return [
        [
            str(names.get(int(token), "")) if isinstance(token, Integral) else EMBEDDING
            for token, *_ in section
        ]
        for section in sections_of(clip.tokenize(prompt), encoder)
    ]


def readable_tokens(clip: Clip, prompt: str, layer: TextLayer, length: int) -> list[str]:
    """Return the token at each position of a prompt in the layer's encoder, without the marks of word ends.

    length: positions per section. Start, end and padding tokens keep the tokenizer's names for them, such as
    <|endoftext|>.
    """
    names = getattr(getattr(clip.tokenizer, layer.encoder, None), "inv_vocab", {})
    words: list[str] = []
    for section in sections_of(clip.tokenize(prompt), layer.encoder):
        row = [_readable(token, names) for token, *_ in section[:length]]
        words += row + [""] * (length - len(row))
    return words


def _readable(token: Any, names: Mapping[int, str]) -> str:
    if not isinstance(token, Integral):
        return EMBEDDING
    name = names.get(int(token), f"token {int(token)}")
    return name.removesuffix("</w>").replace("\u2581", " ").replace("\u0120", " ").strip() or name


def sections_of(tokens: Any, encoder: str) -> Sections:
    """Return the sections of a tokenized prompt for an encoder, or () if it has none.

    Tokenizers call an encoder by its full name ("clip_l"), without "clip_", or up to its first "_".
    """
    if not isinstance(tokens, dict):
        return tokens
    for name in (encoder, encoder.removeprefix("clip_"), encoder.split("_")[0]):
        if name in tokens:
            sections: Sections = tokens[name]
            return sections
    return ()
