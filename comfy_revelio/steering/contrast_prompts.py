"""Prompts with and without a concept, for finding its features by contrast when the user gives none."""

from __future__ import annotations

_WITH_OBJECT = (
    "a portrait of a person with {}",
    "a person with {}",
    "a face with {}",
    "an avatar with {}",
    "a drawing of somebody with {}",
    "somebody with {}, plain background",
)
_AS_APPENDIX = (
    "{}",
    "a portrait, {}",
    "{}, portrait",
    "a picture of {}",
    "a drawing of a person, {}",
    "an illustration, {}, simple style",
)
_BARE = (
    "a portrait of a person",
    "a person",
    "a face",
    "an avatar",
    "a drawing of somebody",
    "somebody, plain background",
    "a picture",
    "a portrait",
    "portrait",
    "a picture of something",
    "a drawing of a person",
    "an illustration, simple style",
)
# Words that join a phrase to a sentence; they are not part of the concept and do not make it longer.
_JOINING = {"a", "an", "the", "some", "with", "wearing", "of", "has", "having", "in", "his", "her", "their"}


def phrases_of(text: str) -> list[str]:
    """The concept phrases in what a user wrote: parts between commas, without leading articles.

    "a beard, wearing glasses" -> ["beard", "glasses"].
    """
    phrases = []
    for part in text.replace("\n", ",").split(","):
        words = part.split()
        while len(words) > 1 and words[0].lower() in _JOINING:
            words = words[1:]
        if words:
            phrases.append(" ".join(words))
    return phrases


def neutral_prompts(text: str) -> tuple[list[str], list[str]]:
    """Prompts with the concept phrases in `text`, and the same prompts without what the phrases add.

    A phrase of one word is left out of the second list. Of a longer phrase its last word stays, so that
    "blue hair" is told from "hair" and only what "blue" adds is found.
    """
    with_it: list[str] = []
    without: list[str] = []
    for phrase in phrases_of(text):
        templates = (*_WITH_OBJECT, *_AS_APPENDIX)
        with_it += [template.format(phrase) for template in templates]
        kind = phrase.split()[-1]
        without += list(_BARE) if kind == phrase else [template.format(kind) for template in templates]
    return with_it, without


def lines_of(text: str) -> list[str]:
    """The prompts that a user gave, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]
