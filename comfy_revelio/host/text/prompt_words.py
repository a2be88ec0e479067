"""Find the words of a prompt, and the positions of each word in the prompt's conditioning."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from ...errors import RevelioError
from ..comfy_types import Clip
from .content_tokens import EMBEDDING, content_of_prompt, spelled_tokens

_CLIPS = ("l", "h", "g")
_BEGINNINGS = ("\u2581", "\u0120")
"""Characters with which tokenizers other than CLIP's mark a space before a word."""
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Characters of scripts without spaces between words; a token with such a character counts as a word."""
_INCOMPLETE = "\ufffd"
"""The character that tokenizers return for a token with only some bytes of a letter."""
_SPECIAL = re.compile(r"<\|.*\|>|<[a-z_]+>")
"""Special tokens, such as <|im_end|>."""


@dataclass(frozen=True)
class PromptWords:
    """A prompt's words and their positions in its conditioning."""

    words: tuple[str, ...]
    """The words in lower case and in prompt order, repeats included."""
    columns: tuple[tuple[int, ...], ...]
    """The positions of each word's tokens in the conditioning."""
    length: int
    """How many positions the conditioning has."""


def prompt_words(clip: Clip, prompt: str, length: int) -> PromptWords:
    """Return the words of `prompt`, whose conditioning has `length` positions.

    Weights such as (word:1.2), start, end, padding, punctuation and the template that some text encoders put
    around a prompt are not words; long prompts continue in the next section. If a conditioning contains the
    states of two encoders end to end (Stable Diffusion 3), a word has positions in both encoders' states.
    Raises RevelioError for a CLIP whose positions are unknown.
    """
    found: list[tuple[str, list[int]]] = []
    for encoder, start, names_words in _encoders_in(clip, prompt, length):
        placed = [
            (word, [start + position for position in positions])
            for word, positions in _words_for(clip, prompt, encoder)
        ]
        placed = [(word, own) for word, own in placed if min(own) >= 0 and max(own) < length]
        if names_words:
            found = placed
            continue
        # words that the second encoder splits differently keep only their positions in the first
        both = SequenceMatcher(None, [w for w, _ in found], [w for w, _ in placed], autojunk=False)
        for first, second, count in both.get_matching_blocks():
            for n in range(count):
                found[first + n][1].extend(placed[second + n][1])
    return PromptWords(tuple(w for w, _ in found), tuple(tuple(c) for _, c in found), length)


def _encoders_in(clip: Clip, prompt: str, length: int) -> list[tuple[str, int, bool]]:
    """For each encoder in the conditioning, return (name, first position, whether it defines the words)."""
    keys = list(clip.tokenize(prompt))
    model = clip.cond_stage_model
    clips = [f"clip_{key}" for key in _CLIPS if key in keys and getattr(model, f"clip_{key}", None)]
    others = [key for key in keys if key not in _CLIPS and getattr(model, key, None)]
    if clips and not others:
        return [(clips[0], 0, True)]
    if len(others) == 1 and others[0] == "t5xxl" and {"l", "g"} <= set(keys):
        ahead = 0
        if clips:
            ahead = sum(len(section) for section in spelled_tokens(clip, prompt, clips[0]))
        return [*((name, 0, True) for name in clips[:1]), ("t5xxl", ahead, not clips)]
    if len(others) == 1:
        total = sum(len(section) for section in spelled_tokens(clip, prompt, others[0]))
        cropped = total - length  # some encoders cut off the beginning of their template
        return [(others[0], -max(cropped, 0), True)]
    raise RevelioError(
        f"Words cannot be found in the conditioning of this CLIP ({', '.join(keys)}), because the order of "
        "its text encoders is unknown; use a model of another family."
    )


def _words_for(clip: Clip, prompt: str, encoder: str) -> list[tuple[str, list[int]]]:
    """Return an encoder's words, each with its positions, counted over all sections end to end."""
    spelled = spelled_tokens(clip, prompt, encoder)
    content = content_of_prompt(clip, prompt, encoder)
    tokenizer = getattr(getattr(clip.tokenizer, encoder, None), "tokenizer", None)
    decode = getattr(tokenizer, "convert_tokens_to_string", "".join)

    def to_text(tokens: list[str]) -> str:
        text = str(decode(tokens)).replace("</w>", " ")  # some versions of transformers keep </w>
        for mark in _BEGINNINGS:
            text = text.replace(mark, " ")
        return text

    # the encoder's template: tokens at the beginning and end that an empty prompt also has
    tokens = [token for section in spelled for token in section]
    empty = [token for section in spelled_tokens(clip, "", encoder) for token in section]
    before = _common_prefix(tokens, empty)
    after = _common_prefix(tokens[before:][::-1], empty[before:][::-1])
    own = range(before, len(tokens) - after)
    found: list[tuple[str, list[int]]] = []
    start = 0
    for row, section in enumerate(spelled):
        kept = [mark and start + n in own for n, mark in enumerate(content[row].tolist()[: len(section)])]
        for word, positions in words_in(section, kept, to_text):
            found.append((word, [start + position for position in positions]))
        start += len(section)
    return found


def _common_prefix(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many tokens two sequences share before they differ."""
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    return count


def words_in(
    tokens: Sequence[str], keep: Sequence[bool], to_text: Callable[[list[str]], str]
) -> list[tuple[str, list[int]]]:
    """Join tokens, spelled as in the vocabulary, into words; return (word in lower case, its positions).

    keep: which tokens may be part of a word. CLIP's vocabulary marks the end of a word (</w>), others mark
    the space before a word. Punctuation between words is dropped.
    """
    found: list[tuple[str, list[int]]] = []
    open_: list[int] = []

    def close() -> None:
        text = to_text([tokens[position] for position in open_]).strip().lower() if open_ else ""
        if word := text.strip("".join(c for c in text if not c.isalnum())):
            found.append((word, list(open_)))
        open_.clear()

    for position, token in enumerate(tokens):
        own = keep[position] and not _SPECIAL.fullmatch(token) and token != EMBEDDING
        text = to_text([token]).strip() if own else ""
        incomplete = _INCOMPLETE in text  # only some bytes of a letter; neighbouring tokens have the rest
        if not incomplete and not any(letter.isalnum() for letter in text):
            close()
            continue
        alone = bool(_NO_SPACES.search(text))
        if alone or token.startswith(_BEGINNINGS) or not (incomplete or text[0].isalnum()):
            close()
        open_.append(position)
        if alone or token.endswith("</w>"):
            close()
    close()
    return found
