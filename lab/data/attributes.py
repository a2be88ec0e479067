"""What an avatar can look like: the attributes, their values, and the values that each style can draw.

Labels are a dict ``{attribute: class index}`` or an int array ``[n_attributes]`` in the order of
``ATTRIBUTES``. -1 means "not visible in this image", such as the hair colour under a hat, or the clothes in
a style that draws none.
If a style cannot draw a part, the label of that part is always "none".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations, product

import numpy as np

from comfy_revelio.errors import RevelioError

Labels = Mapping[str, int]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "style": (
        "flat cartoon",
        "pixel art",
        "ink sketch",
        "goofy cartoon",
        "comic book",
        "storybook",
        "doodle",
        "line art",
    ),
    "hair": ("black", "brown", "blonde", "red", "blue", "green", "pink", "gray"),
    "skin": ("light", "medium", "dark"),
    "background": ("white", "yellow", "orange", "red", "pink", "purple", "blue", "green"),
    "glasses": ("none", "glasses", "sunglasses"),
    "beard": ("none", "beard"),
    "hat": ("none", "hat"),
    "mood": ("smile", "sad", "surprised"),
    "clothes": ("red", "yellow", "green", "blue", "purple", "black"),
}
NAMES: tuple[str, ...] = tuple(ATTRIBUTES)
HIDDEN = -1
SPLITS = ("train", "held_out", "any")
NAMESPACES = ("model", "judge", "check")

# For each style: the attributes of which it cannot draw all values, with the values that it can draw. An
# attribute without values is always labelled -1.
_LIMITS: dict[str, dict[str, tuple[str, ...]]] = {
    "flat cartoon": {},
    "pixel art": {},
    "ink sketch": {},
    "goofy cartoon": {"beard": ("none",), "hat": ("none",), "mood": ("smile", "sad"), "clothes": ()},
    "comic book": {"glasses": ("none", "glasses"), "hat": ("none",)},
    "storybook": {"glasses": ("none",), "hat": ("none",)},
    "doodle": {"beard": ("none",), "hat": ("none",), "clothes": ()},
    "line art": {"hat": ("none",), "clothes": ()},
}
STYLES: dict[str, dict[str, tuple[str, ...]]] = {
    style: {name: limits.get(name, values) for name, values in ATTRIBUTES.items() if name != "style"}
    for style, limits in _LIMITS.items()
}

# How often an avatar gets a part that its style can draw.
_GLASSES_RATE = {"none": 0.55, "glasses": 0.25, "sunglasses": 0.20}
_BEARD_RATE = 0.45
_HAT_RATE = 0.35
_HELD_OUT_SHARE = 0.1
# Some combinations of (style, hair, glasses) are reserved for evaluation. For avatars whose hat hides the
# hair, combinations of (style, background, glasses) are reserved instead.
_TRIPLE = ("hair", "glasses")
_TRIPLE_UNDER_HAT = ("background", "glasses")


def value_name(attribute: str, index: int) -> str:
    """Return the name of a class index, "hidden" for -1."""
    return "hidden" if index == HIDDEN else ATTRIBUTES[attribute][index]


def index_of(attribute: str, value: str) -> int:
    """Return the class index of a value, given by its name."""
    values = ATTRIBUTES.get(attribute)
    if values is None:
        raise RevelioError(f"Unknown attribute {attribute!r}; use one of: {', '.join(ATTRIBUTES)}.")
    if value not in values:
        raise RevelioError(f"Unknown value {value!r} of {attribute}; use one of: {', '.join(values)}.")
    return values.index(value)


def to_array(labels: Labels) -> np.ndarray:
    """Return the labels as ``int16 [n_attributes]`` in the order of ATTRIBUTES, -1 for missing attributes."""
    return np.array([labels.get(name, HIDDEN) for name in NAMES], dtype=np.int16)


def to_dict(labels: Labels | Sequence[int] | np.ndarray) -> dict[str, int]:
    """Return labels in either form (dict or array) as a dict."""
    if isinstance(labels, Mapping):
        return {name: int(labels.get(name, HIDDEN)) for name in NAMES}
    if len(labels) != len(NAMES):
        raise RevelioError(f"Labels have {len(labels)} entries, but there are {len(NAMES)} attributes.")
    return {name: int(index) for name, index in zip(NAMES, labels, strict=True)}


def _rank(*words: str) -> str:
    return hashlib.sha256("/".join(("revelio mini held-out", *words)).encode()).hexdigest()


def _reserve(triples: Iterable[tuple[str, str, str]]) -> frozenset[tuple[str, str, str]]:
    """Return the 10% of ``triples`` with the lowest hashes.

    A triple is skipped if reserving it would remove one of its pairs of values from training altogether.
    """
    everything = sorted(triples, key=lambda triple: _rank(*triple))
    left: dict[tuple[int, int, str, str], int] = {}

    def pairs(triple: tuple[str, str, str]) -> list[tuple[int, int, str, str]]:
        return [(i, j, triple[i], triple[j]) for i, j in combinations(range(3), 2)]

    for triple in everything:
        for pair in pairs(triple):
            left[pair] = left.get(pair, 0) + 1
    chosen: set[tuple[str, str, str]] = set()
    for triple in everything:
        if len(chosen) >= round(_HELD_OUT_SHARE * len(everything)):
            break
        if min(left[pair] for pair in pairs(triple)) < 2:
            continue
        for pair in pairs(triple):
            left[pair] -= 1
        chosen.add(triple)
    return frozenset(chosen)


def _supported(attributes: tuple[str, str], *, need_hat: bool) -> list[tuple[str, str, str]]:
    return [
        (style, first, second)
        for style, values in STYLES.items()
        if not need_hat or "hat" in values["hat"]
        for first, second in product(values[attributes[0]], values[attributes[1]])
    ]


@cache
def held_out_triples() -> frozenset[tuple[str, str, str]]:
    """Return the reserved (style, hair, glasses) combinations."""
    return _reserve(_supported(_TRIPLE, need_hat=False))


@cache
def held_out_triples_under_hat() -> frozenset[tuple[str, str, str]]:
    """Return the reserved (style, background, glasses) combinations for avatars whose hat hides the hair."""
    return _reserve(_supported(_TRIPLE_UNDER_HAT, need_hat=True))


def is_held_out(labels: Labels | Sequence[int] | np.ndarray) -> bool:
    """Whether these labels contain a combination that training omits because evaluation reserves it."""
    known = to_dict(labels)
    under_hat = known["hair"] == HIDDEN
    parts = _TRIPLE_UNDER_HAT if under_hat else _TRIPLE
    if known["style"] == HIDDEN or any(known[name] == HIDDEN for name in parts):
        return False
    triple = tuple(value_name(name, known[name]) for name in ("style", *parts))
    return triple in (held_out_triples_under_hat() if under_hat else held_out_triples())


def reserved_by(labels: Labels) -> tuple[str, ...]:
    """Return the attributes whose combination decides whether an avatar is held out."""
    return ("style", *(_TRIPLE_UNDER_HAT if to_dict(labels)["hair"] == HIDDEN else _TRIPLE))


def _sample(rng: np.random.Generator) -> dict[str, int]:
    style = ATTRIBUTES["style"][rng.integers(len(ATTRIBUTES["style"]))]
    allowed = STYLES[style]
    labels = {"style": index_of("style", style)}
    for name, values in allowed.items():
        if not values:
            labels[name] = HIDDEN
            continue
        if name == "glasses":
            weights = np.array([_GLASSES_RATE[value] for value in values])
        elif name in ("beard", "hat"):
            rate = _BEARD_RATE if name == "beard" else _HAT_RATE
            weights = np.array([1 - rate, rate][: len(values)])
        else:
            weights = np.ones(len(values))
        labels[name] = index_of(name, values[rng.choice(len(values), p=weights / weights.sum())])
    if labels["hat"] == index_of("hat", "hat"):
        labels["hair"] = HIDDEN
    return labels


def sample_labels(rng: np.random.Generator, *, split: str = "train") -> dict[str, int]:
    """Draw the labels of one avatar. ``split``: "train", "held_out" or "any" (both)."""
    if split not in SPLITS:
        raise RevelioError(f"Unknown split {split!r}; use one of: {', '.join(SPLITS)}.")
    while True:
        labels = _sample(rng)
        if split == "any" or is_held_out(labels) == (split == "held_out"):
            return labels


def seed_text(namespace: str, index: int) -> str:
    """Return the seed of avatar ``index`` of a namespace; two namespaces never share a seed."""
    if namespace not in NAMESPACES:
        raise RevelioError(f"Unknown namespace {namespace!r}; use one of: {', '.join(NAMESPACES)}.")
    if index < 0:
        raise RevelioError(f"Avatar numbers must be 0 or more, not {index}.")
    return f"{namespace}/{index}"


def generator(seed: str, purpose: str) -> np.random.Generator:
    """Return a random generator that depends only on seed and purpose and is the same on every machine."""
    digest = hashlib.sha256(f"revelio mini/{purpose}/{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def labels_for(namespace: str, index: int, *, split: str = "train") -> dict[str, int]:
    """Return the labels of avatar ``index``; the same arguments always give the same labels."""
    return sample_labels(generator(seed_text(namespace, index), f"labels/{split}"), split=split)
