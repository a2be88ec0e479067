"""The words of a prompt, and where each of them stands in the conditioning that a CLIP makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RevelioError
from .text import tokens_of

_CLIPS = ("l", "h", "g")
_BEGINNINGS = ("\u2581", "\u0120")  # how tokenizers other than CLIP's mark a space before a word
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts in which a token is a word

_SPECIAL = re.compile(r"<\|.*\|>|<[a-z_]+>")  # such as <|im_end|>


@dataclass(frozen=True)
class PromptWords:
    """words: in lower case, in order, one that is said twice twice. columns: of each, the positions in the
    conditioning. length: positions that the conditioning has."""

    words: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    length: int


def prompt_words(clip: Any, prompt: str, length: int) -> PromptWords:
    """The words of `prompt`, whose conditioning has `length` positions.

    Weights such as (word:1.2), start, end, padding, punctuation and the template that some text encoders put
    around a prompt are no words; long prompts go on in their next section. Where two encoders stand behind
    each other (Stable Diffusion 3) a word has positions in both. Raises RevelioError for a CLIP whose
    positions are not known.
    """
    found: dict[int, tuple[str, list[int]]] = {}
    for encoder, start, whole in _parts(clip, prompt, length):
        for number, (word, positions) in enumerate(_spoken(clip, prompt, encoder)):
            columns = [start + position for position in positions]
            if not columns or min(columns) < 0 or max(columns) >= length:
                continue
            # the encoders of one prompt split it alike, unless it has other scripts or signs in it
            same = found.get(number) if not whole else None
            if same is not None and same[0] == word:
                same[1].extend(columns)
            elif whole:
                found[number] = (word, columns)
    listed = [found[number] for number in sorted(found)]
    return PromptWords(tuple(w for w, _ in listed), tuple(tuple(c) for _, c in listed), length)


def _parts(clip: Any, prompt: str, length: int) -> list[tuple[str, int, bool]]:
    """The encoders whose states make up the conditioning: name, first position, does it name the words."""
    keys = list(clip.tokenize(prompt))
    model = clip.cond_stage_model
    clips = [f"clip_{key}" for key in _CLIPS if key in keys and getattr(model, f"clip_{key}", None)]
    others = [key for key in keys if key not in _CLIPS and getattr(model, key, None)]
    if clips and not others:
        return [(clips[0], 0, True)]
    if len(others) == 1 and others[0] == "t5xxl" and {"l", "g"} <= set(keys):
        ahead = 0
        if clips:
            spelled, _ = tokens_of(clip, prompt, clips[0])
            ahead = sum(len(section) for section in spelled)
        return [*((name, 0, True) for name in clips[:1]), ("t5xxl", ahead, not clips)]
    if len(others) == 1:
        spelled, _ = tokens_of(clip, prompt, others[0])
        cropped = sum(len(section) for section in spelled) - length  # a template ahead is cut off
        return [(others[0], -max(cropped, 0), True)]
    raise RevelioError(
        f"Words cannot be found in the conditioning of this CLIP ({', '.join(keys)}): it is not known where "
        "its text encoders stand; use a model of another family."
    )


def _spoken(clip: Any, prompt: str, encoder: str) -> list[tuple[str, list[int]]]:
    """The words as an encoder gets them, with their positions, sections end to end."""
    spelled, keep = tokens_of(clip, prompt, encoder)
    tokenizer = getattr(getattr(clip.tokenizer, encoder, None), "tokenizer", None)
    decode = getattr(tokenizer, "convert_tokens_to_string", "".join)

    def to_text(tokens: list[str]) -> str:
        text = str(decode(tokens)).replace("</w>", " ")  # versions of transformers differ in what they leave
        for mark in _BEGINNINGS:
            text = text.replace(mark, " ")
        return text

    said = prompt.lower()
    found: list[tuple[str, list[int]]] = []
    start = 0
    for row, section in enumerate(spelled):
        kept = keep[row].tolist()
        for word, positions in words_in(section, kept, to_text):
            if word in said:
                found.append((word, [start + position for position in positions]))
        start += len(section)
    return found


def words_in(
    tokens: Sequence[str], keep: Sequence[bool], to_text: Callable[[list[str]], str]
) -> list[tuple[str, list[int]]]:
    """Tokens as a vocabulary spells them, put together to words in lower case, with their positions.

    CLIP marks the end of a word (</w>), others the space before one. Signs between words belong to none.
    """
    found: list[tuple[str, list[int]]] = []
    open_: list[int] = []

    def close() -> None:
        if open_ and (text := to_text([tokens[position] for position in open_]).strip().lower()):
            found.append((text.strip("".join(c for c in text if not c.isalnum())), list(open_)))
        open_.clear()

    for position, token in enumerate(tokens):
        text = to_text([token]).strip() if keep[position] and not _SPECIAL.fullmatch(token) else ""
        if not any(letter.isalnum() for letter in text):
            close()
            continue
        alone = bool(_NO_SPACES.search(text))
        if alone or token.startswith(_BEGINNINGS) or not text[0].isalnum():
            close()
        open_.append(position)
        if alone or token.endswith("</w>"):
            close()
    close()
    return found
