"""Write captions in varied wordings. A caption never says anything wrong about its image.

Captions use about 120 lower-case words. Each attribute has several wordings and may be left out. Attributes
are in random order. An absent part ("no glasses") is mentioned now and then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from comfy_revelio.errors import RevelioError

from .attributes import ATTRIBUTES, HIDDEN, NAMES, Labels, index_of, to_dict, value_name


@dataclass(frozen=True)
class Caption:
    """A caption and the attributes whose values it mentions."""

    text: str
    mentioned: frozenset[str]


STYLE_NAMES: dict[str, tuple[str, ...]] = {
    "flat cartoon": ("flat cartoon", "flat design", "flat vector"),
    "pixel art": ("pixel art", "pixelated", "retro pixel"),
    "ink sketch": ("ink sketch", "ink drawing", "bold ink"),
    "goofy cartoon": ("goofy cartoon", "goofy", "silly cartoon"),
    "comic book": ("comic book", "comic", "comic strip"),
    "storybook": ("storybook", "picture book", "fairy tale"),
    "doodle": ("doodle", "doodled", "playful doodle"),
    "line art": ("line art", "fine line", "elegant line art"),
}
_COLOURS: dict[str, tuple[str, ...]] = {
    "black": ("black",),
    "brown": ("brown", "brunette"),
    "blonde": ("blonde", "blond"),
    "red": ("red",),
    "blue": ("blue",),
    "green": ("green",),
    "pink": ("pink",),
    "gray": ("gray", "grey", "silver"),
}
_SKIN: dict[str, tuple[str, ...]] = {
    "light": ("light", "pale", "fair"),
    "medium": ("medium", "tan", "olive"),
    "dark": ("dark", "deep"),
}


def _each(templates: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    return tuple(template.format(word) for word in words for template in templates)


# Phrases for each value; the first one is the canonical wording.
_PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "style": {value: tuple(f"{name} style" for name in names) for value, names in STYLE_NAMES.items()},
    "hair": {value: _each(("{} hair", "{} colored hair"), words) for value, words in _COLOURS.items()},
    "skin": {value: _each(("{} skin", "{} complexion"), words) for value, words in _SKIN.items()},
    "background": {
        value: (f"{value} background", f"{value} backdrop", f"{value} wall behind")
        for value in ATTRIBUTES["background"]
    },
    "glasses": {
        "none": ("no glasses", "without glasses", "no eyewear"),
        "glasses": (
            "glasses",
            "eyeglasses",
            "spectacles",
            "clear glasses",
            "reading glasses",
            "a pair of glasses",
        ),
        "sunglasses": ("sunglasses", "shades", "dark sunglasses", "a pair of sunglasses"),
    },
    "beard": {
        "none": ("no beard", "clean shaven", "without a beard"),
        "beard": ("a beard", "beard", "facial hair", "a bearded face"),
    },
    "hat": {
        "none": ("no hat", "without a hat", "bare head"),
        "hat": ("a hat", "hat", "headwear", "a hat on the head"),
    },
    "mood": {
        "smile": ("a smile", "smiling", "a happy face", "happy", "cheerful"),
        "sad": ("a sad face", "sad", "frowning", "a frown", "unhappy"),
        "surprised": ("a surprised face", "surprised", "astonished", "a shocked look", "an amazed look"),
    },
    "clothes": {
        value: (f"{value} clothes", f"a {value} shirt", f"{value} clothing", f"a {value} top")
        for value in ATTRIBUTES["clothes"]
    },
}
# Adjectives that can precede the person, as in "a smiling bearded man".
_ADJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "mood": {
        "smile": ("smiling", "happy", "cheerful"),
        "sad": ("sad", "unhappy", "frowning"),
        "surprised": ("surprised", "astonished", "shocked"),
    },
    "beard": {"beard": ("bearded",)},
    "hair": {
        "blonde": ("blonde",),
        "red": ("red haired",),
        "blue": ("blue haired",),
        "green": ("green haired",),
        "pink": ("pink haired",),
        "black": ("black haired",),
        "gray": ("gray haired",),
        "brown": ("brunette",),
    },
    "skin": {
        "light": ("light skinned", "fair skinned"),
        "medium": ("tan skinned", "olive skinned"),
        "dark": ("dark skinned",),
    },
}
_PICTURES = ("portrait", "avatar", "picture", "drawing", "face", "image", "character", "headshot")
_PEOPLE = ("person", "character", "face", "human")
_NOT_NOUNS = frozenset(
    ("smiling", "happy", "cheerful", "sad", "frowning", "unhappy", "surprised", "astonished", "clean shaven")
)
_WORN = ("glasses", "hat")
_PARTS = ("glasses", "beard", "hat")
_LEAVE_OUT = {"style": 0.12, "hair": 0.13, "skin": 0.15, "background": 0.13, "mood": 0.13, "clothes": 0.35}
_PRESENT_LEFT_OUT = 0.07
_ABSENT_MENTIONED = 0.15


def phrases(attribute: str, value: str) -> tuple[str, ...]:
    """Return all wordings of a value, the canonical one first."""
    index_of(attribute, value)
    return _PHRASES[attribute][value]


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _mentioned(names: dict[str, str], rng: np.random.Generator, without: Collection[str]) -> list[str]:
    chosen = []
    for attribute, value in names.items():
        if attribute in _PARTS:
            keep = _ABSENT_MENTIONED if value == "none" else 1 - _PRESENT_LEFT_OUT
        else:
            keep = 1 - _LEAVE_OUT[attribute]
        # draw a number for attributes in `without` too: the choice of the others must not change
        if rng.random() < keep and attribute not in without:
            chosen.append(attribute)
    return chosen


def _known(labels: Labels | Sequence[int] | np.ndarray) -> dict[str, str]:
    return {name: value_name(name, index) for name, index in to_dict(labels).items() if index != HIDDEN}


def _check(without: Collection[str]) -> None:
    for attribute in without:
        if attribute not in ATTRIBUTES:
            raise RevelioError(f"Unknown attribute {attribute!r}; use one of: {', '.join(NAMES)}.")


def caption(
    labels: Labels | Sequence[int] | np.ndarray, rng: np.random.Generator, *, without: Collection[str] = ()
) -> Caption:
    """Return a randomly worded caption of an avatar. ``without``: attributes that must not be mentioned."""
    _check(without)
    names = _known(labels)
    mentioned = _mentioned(names, rng, without)
    text = _list_form(names, mentioned, rng) if rng.random() < 0.45 else _sentence_form(names, mentioned, rng)
    return Caption(text, frozenset(mentioned))


def _list_form(names: dict[str, str], mentioned: Sequence[str], rng: np.random.Generator) -> str:
    """Write a list in random order, such as "pixel art portrait, blue hair, glasses, red background"."""
    rest = [name for name in mentioned if name != "style"]
    rng.shuffle(rest)
    parts = [_pick(rng, _PHRASES[name][names[name]]) for name in rest]
    picture = _pick(rng, _PICTURES)
    if "style" in mentioned:
        style = _pick(rng, STYLE_NAMES[names["style"]])
        if rng.random() < 0.25:
            parts.insert(int(rng.integers(len(parts) + 1)), f"{style} style")
        else:
            parts.insert(0, f"{style} {picture}")
    elif rng.random() < 0.5 or not parts:
        parts.insert(0, picture)
    return ", ".join(parts)


def _sentence_form(names: dict[str, str], mentioned: Sequence[str], rng: np.random.Generator) -> str:
    """Write a phrase such as "a doodle portrait of a smiling person with blue hair, red background"."""
    rest = [name for name in mentioned if name not in ("style", "background")]
    before = [name for name in rest if names[name] in _ADJECTIVES.get(name, {}) and rng.random() < 0.4][:2]
    after = [name for name in rest if name not in before]
    rng.shuffle(before)
    rng.shuffle(after)
    person = " ".join([*(_pick(rng, _ADJECTIVES[name][names[name]]) for name in before), _pick(rng, _PEOPLE)])
    worn = [name for name in after if name in _WORN and names[name] != "none"] if rng.random() < 0.5 else []
    carried = [_pick(rng, _nouns(name, names[name])) for name in after if name not in worn]
    worn_parts = [_pick(rng, _nouns(name, names[name])) for name in worn]
    clauses = []
    if carried:
        clauses.append("with " + _join(carried, rng))
    if worn_parts:
        clauses.append("wearing " + " and ".join(worn_parts))
    if rng.random() < 0.3:
        clauses.reverse()
    head = _article(person)
    if "style" in mentioned:
        style = _pick(rng, STYLE_NAMES[names["style"]])
        head = _pick(
            rng,
            (
                f"{_article(f'{style} {_pick(rng, _PICTURES)}')} of {head}",
                f"{style} of {head}",
                f"{_article(f'{style} {person}')}",
                f"{head} in {style} style",
            ),
        )
    text = " ".join([head, *clauses])
    if "background" in mentioned:
        colour = names["background"]
        text += _pick(
            rng,
            (
                f", {colour} background",
                f" on {_article(colour)} background",
                f" in front of {_article(colour)} backdrop",
                f", {colour} backdrop",
                f" against {_article(colour)} wall",
            ),
        )
    return text


def _nouns(attribute: str, value: str) -> tuple[str, ...]:
    """Return the wordings of a value that can follow "with"."""
    return tuple(p for p in _PHRASES[attribute][value] if p not in _NOT_NOUNS and not p.startswith("without"))


def _join(parts: Sequence[str], rng: np.random.Generator) -> str:
    if len(parts) == 1:
        return parts[0]
    if rng.random() < 0.5:
        return ", ".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def canonical_caption(labels: Labels | Sequence[int] | np.ndarray, *, without: Collection[str] = ()) -> str:
    """Describe the labels in canonical wording: all values in a fixed order, without absent parts.

    "pixel art portrait, blue hair, dark skin, glasses, a beard, a smile, red clothes, white background"
    """
    _check(without)
    names = {name: value for name, value in _known(labels).items() if name not in without and value != "none"}
    parts = [f"{names['style']} portrait" if "style" in names else "portrait"]
    order = ("hair", "skin", "glasses", "beard", "hat", "mood", "clothes", "background")
    return ", ".join(parts + [_PHRASES[name][names[name]][0] for name in order if name in names])


def vocabulary() -> frozenset[str]:
    """Return every word that a caption can contain."""
    words = set(
        " ".join(
            (
                *_PICTURES,
                *_PEOPLE,
                "a an with wearing and of in on front against style background",
                "backdrop wall portrait",
            )
        ).split()
    )
    for table in (_PHRASES, _ADJECTIVES):
        for values in table.values():
            for wordings in values.values():
                words |= set(" ".join(wordings).split())
    for names in STYLE_NAMES.values():
        words |= set(" ".join(names).split())
    return frozenset(words)
