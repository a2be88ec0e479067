"""Default prompts with and without a concept, for finding the features of the concept by contrast."""

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
_JOINING = {"a", "an", "the", "some", "with", "wearing", "of", "has", "having", "in", "his", "her", "their"}
"""Words that may introduce a concept phrase but are not part of it."""


def phrases_of(text: str) -> list[str]:
    """Return the concept phrases in a user's text: the parts between commas, without leading articles.

    >>> phrases_of("a beard, wearing glasses")
    ['beard', 'glasses']
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
    """Return two lists: prompts with the concept phrases in `text`, and the same prompts without the concept.

    The second list omits a phrase of one word, and keeps only the last word of a longer phrase: prompts with
    "blue hair" are compared with prompts with "hair", to find only what "blue" adds.

    >>> with_it, without = neutral_prompts("blue hair")
    >>> with_it[1], without[1]
    ('a person with blue hair', 'a person with hair')
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
    """Split a user's text into prompts, one per line."""
    return [line.strip() for line in text.splitlines() if line.strip()]
