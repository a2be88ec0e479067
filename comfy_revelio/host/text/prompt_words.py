"""The words of a prompt, and where each of them stands in the conditioning that a CLIP makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from ...errors import RevelioError
from .encoder_taps import EMBEDDING, tokens_of

_CLIPS = ("l", "h", "g")
_BEGINNINGS = ("\u2581", "\u0120")  # how tokenizers other than CLIP's mark a space before a word
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts in which a token is a word

_PART = "\ufffd"  # what a token becomes that holds only some bytes of a letter
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
    found: list[tuple[str, list[int]]] = []
    for encoder, start, names in _parts(clip, prompt, length):
        spoken = [
            (word, [start + position for position in positions])
            for word, positions in _spoken(clip, prompt, encoder)
        ]
        spoken = [(word, own) for word, own in spoken if min(own) >= 0 and max(own) < length]
        if names:
            found = spoken
            continue
        # where this encoder takes words apart in another way, they keep the first one's positions alone
        both = SequenceMatcher(None, [w for w, _ in found], [w for w, _ in spoken], autojunk=False)
        for one, other, count in both.get_matching_blocks():
            for n in range(count):
                found[one + n][1].extend(spoken[other + n][1])
    return PromptWords(tuple(w for w, _ in found), tuple(tuple(c) for _, c in found), length)


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

    whole = [token for section in spelled for token in section]
    empty = [token for section in tokens_of(clip, "", encoder)[0] for token in section]
    ahead = _alike(whole, empty)
    behind = _alike(whole[ahead:][::-1], empty[ahead:][::-1])
    own = range(ahead, len(whole) - behind)  # what stands around it is the encoder's template
    found: list[tuple[str, list[int]]] = []
    start = 0
    for row, section in enumerate(spelled):
        kept = [kept and start + n in own for n, kept in enumerate(keep[row].tolist()[: len(section)])]
        for word, positions in words_in(section, kept, to_text):
            found.append((word, [start + position for position in positions]))
        start += len(section)
    return found


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens two rows have in common before they differ."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def words_in(
    tokens: Sequence[str], keep: Sequence[bool], to_text: Callable[[list[str]], str]
) -> list[tuple[str, list[int]]]:
    """Tokens as a vocabulary spells them, put together to words in lower case, with their positions.

    CLIP marks the end of a word (</w>), others the space before one. Signs between words belong to none.
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
        part = _PART in text  # of a letter: only with its neighbours it can be read
        if not part and not any(letter.isalnum() for letter in text):
            close()
            continue
        alone = bool(_NO_SPACES.search(text))
        if alone or token.startswith(_BEGINNINGS) or not (part or text[0].isalnum()):
            close()
        open_.append(position)
        if alone or token.endswith("</w>"):
            close()
    close()
    return found
