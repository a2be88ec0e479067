"""Selections: the features to steer or show, chosen by number, label or concept, or found by an analysis."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Protocol

from ..dictionary import Concept
from ..dictionary.codes import check_feature
from ..errors import RevelioError

if TYPE_CHECKING:
    from ..trace import Trace

_MOST_LISTED = 40


class Vocabulary(Protocol):
    """Any object with numbered features and labels: a dictionary, or a trace's note on a dictionary."""

    @property
    def n_features(self) -> int: ...

    @property
    def labels(self) -> Mapping[str, Sequence[int]]: ...


@dataclass(frozen=True)
class Selection:
    """Chosen features and concepts with their weights: the value that a REVELIO_FEATURES socket carries."""

    features: tuple[int, ...]
    weights: tuple[float, ...] = ()
    """One finite factor per feature, 1 for its usual strength; () means 1 for all features."""
    label: str = ""
    """What the features stand for, if known."""
    source: str = ""
    """The hook point whose dictionary the features belong to; "" if unknown."""
    concepts: tuple[tuple[Concept, float], ...] = ()
    """Concepts with weights; a concept lists its features and where they change."""
    named: tuple[tuple[str, float], ...] = ()
    """Names, with weights, that still have to be looked up in a dictionary; see `resolved`."""

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.features))
        if len(self.weights) != len(self.features):
            raise RevelioError(
                f"{len(self.features)} features need one weight each; got {len(self.weights)} weights."
            )
        if len(set(self.features)) != len(self.features):
            raise RevelioError("A selection may contain each feature only once; remove the repeated ones.")
        if not all(math.isfinite(weight) for weight in self._all_weights):
            raise RevelioError("The weight of a feature must be a finite number.")

    @property
    def empty(self) -> bool:
        """Whether nothing is chosen, or all weights are 0."""
        return not any(self._all_weights)

    @property
    def _all_weights(self) -> tuple[float, ...]:
        return (*self.weights, *(weight for _, weight in (*self.concepts, *self.named)))

    def with_others(self, others: Selection | None) -> Selection:
        """Merge this selection with `others`. This selection's weights win, but the source of `others` wins.

        >>> Selection((3, 5), (2.0, 1.0)).with_others(Selection((5, 8), (-1.0, 0.5))).weights
        (1.0, 0.5, 2.0)
        """
        if others is None:
            return self
        if self.features and others.features and self.source and others.source:
            others.check_source(self.source)
        features = dict(zip(others.features, others.weights, strict=True))
        features |= dict(zip(self.features, self.weights, strict=True))
        concepts = dict(others.concepts) | dict(self.concepts)
        named = dict(others.named) | dict(self.named)
        return Selection(
            tuple(features),
            tuple(features.values()),
            self.label or others.label,
            others.source or self.source,
            tuple(concepts.items()),
            tuple(named.items()),
        )

    def resolved(self, dictionary: Vocabulary, concepts: Mapping[str, Concept] | None = None) -> Selection:
        """Return this selection with `named` looked up by `parse_selection`. Existing weights win."""
        if not self.named:
            return self
        text = ", ".join(f"{name}:{weight!r}" for name, weight in self.named)
        found = parse_selection(text, dictionary, concepts)
        return replace(self, named=()).with_others(replace(found, source=self.source))

    @property
    def shown(self) -> list[int]:
        """The features to show: the chosen ones, each concept's strongest, each concept's second, ..."""
        carriers = chain.from_iterable(zip_longest(*(concept.features for concept, _ in self.concepts)))
        return list(dict.fromkeys((*self.features, *(f for f in carriers if f is not None))))

    def by_sign(self, strength: float) -> list[tuple[Selection, float]]:
        """Split this selection into parts without negative weights: pairs of a part and the part's strength.

        Adding and removing have different formulas (mode "push"), so a weight below 0 has to flip the sign of
        the strength, and not only the sign of the change.

        >>> [(part.features, s) for part, s in Selection((3, 5), (1.0, -1.0)).by_sign(-2.0)]
        [((3,), -2.0), ((5,), 2.0)]
        """
        weights = self._all_weights
        if all(weight >= 0 for weight in weights):
            return [(self, strength)]
        return [
            (self._signed(sign), sign * strength) for sign in (1, -1) if any(w * sign > 0 for w in weights)
        ]

    def _signed(self, sign: int) -> Selection:
        pairs = [(f, w * sign) for f, w in zip(self.features, self.weights, strict=True) if w * sign > 0]
        concepts = tuple((concept, w * sign) for concept, w in self.concepts if w * sign > 0)
        named = tuple((name, w * sign) for name, w in self.named if w * sign > 0)
        features, weights = tuple(f for f, _ in pairs), tuple(w for _, w in pairs)
        return Selection(features, weights, self.label, self.source, concepts, named)

    def check_source(self, hook_point: str) -> None:
        """Raise RevelioError when the features are known to belong to another dictionary's hook point."""
        if self.source and self.source != hook_point:
            raise RevelioError(
                f"The selected features were found at {self.source}, but this SAE reads {hook_point}, where "
                "their numbers mean something else; connect the SAE that they were recorded with."
            )


def parse_selection(
    text: str,
    dictionary: Vocabulary,
    concepts: Mapping[str, Concept] | None = None,
    *,
    look_up: bool = True,
) -> Selection:
    """Parse features as a user writes them, separated by commas, semicolons or line ends.

    A name is looked up among the concepts, then among the dictionary's labels, ignoring case; a label stands
    for all of its features. ":number" or "= number" gives a weight. If something is named twice, the later
    weight counts. Empty text is an empty selection. look_up: False stores names in `named`, to be looked up
    later, when the dictionary is known.

    >>> from comfy_revelio.trace import DictionaryNote
    >>> note = DictionaryNote(n_features=9, k=2, labels={"glasses": [4, 2]})
    >>> chosen = parse_selection("7, #1 = -1; Glasses:0.5", note)
    >>> chosen.features, chosen.weights, chosen.label
    ((7, 1, 4, 2), (1.0, -1.0, 0.5, 0.5), 'glasses')
    """
    concepts = concepts or {}
    names = list(dict.fromkeys((*concepts, *dictionary.labels)))
    features: dict[int, float] = {}
    chosen_concepts: dict[str, float] = {}
    named: dict[str, float] = {}
    labels: list[str] = []
    for part in (part.strip() for part in text.replace("\n", ",").replace(";", ",").split(",")):
        if not part:
            continue
        name, weight = _split_weight(part, names)
        if re.fullmatch(r"[+-]?\d+|#\d+", name):
            number = int(name.removeprefix("#"))
            check_feature(number, dictionary.n_features)
            features[number] = weight
            continue
        if not look_up:
            named[name] = weight
            continue
        known = _known_name(name, names, dictionary.n_features)
        labels.append(known)
        if known in concepts:
            chosen_concepts[known] = weight
        else:
            features.update(dict.fromkeys(dictionary.labels[known], weight))
    return Selection(
        tuple(features),
        tuple(features.values()),
        ", ".join(labels),
        concepts=tuple((concepts[name], weight) for name, weight in chosen_concepts.items()),
        named=tuple(named.items()),
    )


def features_in_trace(trace: Trace, text: str, connected: Selection | None = None) -> tuple[str, list[int]]:
    """Return (hook point, features): the hook point of the trace to show, and the features to show there.

    The hook point is that of the connected features, or the first recorded hook point if theirs is unknown.
    Features written in `text` come first. The list of features is empty if nothing was chosen.
    """
    source = "" if connected is None else connected.source
    if source and trace.frames and source not in trace.hook_points:
        raise RevelioError(
            f"The connected features belong to {source}, but this trace was recorded at "
            f"{', '.join(trace.hook_points)}; connect the trace that they were found in."
        )
    hook_point = trace.hook_point(source)
    note = trace.dictionaries[hook_point]
    found = [] if connected is None else connected.resolved(note).shown
    return hook_point, list(dict.fromkeys(parse_selection(text, note).shown + found))


def _split_weight(part: str, names: Sequence[str]) -> tuple[str, float]:
    """Split "glasses:2" into ("glasses", 2.0); a known name may itself contain a colon."""
    found = re.fullmatch(r"(.*?)\s*[:=]([^:=]*)", part)
    if found is None or part.lower() in (known.lower() for known in names):
        return part, 1.0
    try:
        weight = float(found[2])
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise RevelioError(f"The weight in {part!r} must be a number, as in 1203:0.5 or 1203 = 0.5.")
    return found[1].strip(), weight


def _known_name(name: str, names: Sequence[str], n_features: int) -> str:
    """Return the known name that equals `name`, ignoring case."""
    for known in names:
        if known.lower() == name.lower():
            return known
    raise RevelioError(
        f"Unknown feature {name!r}: give numbers from 0 to {n_features - 1}"
        + (f" or one of the labels {_listed(names)}." if names else "; this dictionary has no labels.")
    )


def _listed(names: Sequence[str]) -> str:
    """Join only the first names, because a dictionary can have hundreds of labels."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
