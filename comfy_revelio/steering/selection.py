"""Which features: chosen by number, by label or concept, or found by an analysis."""

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
    """What can be chosen from: a dictionary, or what a trace remembers of one."""

    @property
    def n_features(self) -> int: ...

    @property
    def labels(self) -> Mapping[str, Sequence[int]]: ...


@dataclass(frozen=True)
class Selection:
    """Chosen features and concepts, and their weights; what a REVELIO_FEATURES socket carries.

    weights: one finite factor per feature; 1 is the feature's own strength.
    concepts: (concept, weight); a concept brings its features and where they change.
    label: what the features stand for, if known.
    source: the hook point whose dictionary they belong to; empty when nobody said.
    named: (name, weight) of what was chosen where its dictionary was not at hand; see `resolved`.
    """

    features: tuple[int, ...]
    weights: tuple[float, ...] = ()
    label: str = ""
    source: str = ""
    concepts: tuple[tuple[Concept, float], ...] = ()
    named: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.features))
        if len(self.weights) != len(self.features):
            raise RevelioError(
                f"{len(self.features)} features need as many weights, not {len(self.weights)}."
            )
        if len(set(self.features)) != len(self.features):
            raise RevelioError("A selection names every feature once; remove the repeated ones.")
        if not all(math.isfinite(weight) for weight in self._all_weights):
            raise RevelioError("The weight of a feature must be a finite number.")

    @property
    def empty(self) -> bool:
        """Whether nothing is chosen, or everything with weight 0."""
        return not any(self._all_weights)

    @property
    def _all_weights(self) -> tuple[float, ...]:
        return (*self.weights, *(weight for _, weight in (*self.concepts, *self.named)))

    def with_others(self, others: Selection | None) -> Selection:
        """Both together; what both name has the weight that it has here. Other features keep their source."""
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
        """The same with `named` looked up as `parse_selection` does; what has a weight already keeps it."""
        if not self.named:
            return self
        text = ", ".join(f"{name}:{weight!r}" for name, weight in self.named)
        found = parse_selection(text, dictionary, concepts)
        return replace(self, named=()).with_others(replace(found, source=self.source))

    @property
    def shown(self) -> list[int]:
        """The features to look at: those named, then those of the concepts, the strongest of each first."""
        carriers = chain.from_iterable(zip_longest(*(concept.features for concept, _ in self.concepts)))
        return list(dict.fromkeys((*self.features, *(f for f in carriers if f is not None))))

    def by_sign(self, strength: float) -> list[tuple[Selection, float]]:
        """This selection at a strength, in parts without negative weights: what comes in, what goes out.

        Putting in and taking out are different changes (see `Intervention`), so that a weight below 0 has to
        turn the strength's sign and not only the change's.
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
                f"The selected features were found at {self.source}, but this SAE reads {hook_point}: their "
                "numbers mean other things there; connect the SAE that they were recorded with."
            )


def parse_selection(
    text: str,
    dictionary: Vocabulary,
    concepts: Mapping[str, Concept] | None = None,
    *,
    look_up: bool = True,
) -> Selection:
    """Read features as a user writes them: "1203", "1203, 77:0.5", "#1203 = -1", "glasses:2, 31".

    Between them stand commas, semicolons or line ends. A name is one of the concepts, else a label of the
    dictionary, whatever its case; a label stands for all features under it. ":number" or "= number" gives a
    weight. Where something is named twice, the later weight holds. Empty text is an empty selection.
    look_up: False leaves the names to whoever steers, as `named`, for only the dictionary itself knows its
    concepts. Raises RevelioError for unknown names and features out of range.
    """
    concepts = concepts or {}
    names = list(dict.fromkeys((*concepts, *dictionary.labels)))
    chosen: dict[int, float] = {}
    whole: dict[str, float] = {}
    named: dict[str, float] = {}
    found: list[str] = []
    for part in (part.strip() for part in text.replace("\n", ",").replace(";", ",").split(",")):
        if not part:
            continue
        name, weight = _split_weight(part, names)
        if re.fullmatch(r"[+-]?\d+|#\d+", name):
            number = int(name.removeprefix("#"))
            check_feature(number, dictionary.n_features)
            chosen[number] = weight
            continue
        if not look_up:
            named[name] = weight
            continue
        known = _find(name, names, dictionary.n_features)
        found.append(known)
        if known in concepts:
            whole[known] = weight
        else:
            chosen.update(dict.fromkeys(dictionary.labels[known], weight))
    return Selection(
        tuple(chosen),
        tuple(chosen.values()),
        ", ".join(found),
        concepts=tuple((concepts[name], weight) for name, weight in whole.items()),
        named=tuple(named.items()),
    )


def features_in_trace(trace: Trace, text: str, connected: Selection | None = None) -> tuple[str, list[int]]:
    """Which features of a trace to look at, and at which of its places: (hook point, features).

    The place is where the connected features come from, or the first recorded one where nobody said. Features
    written as text come first. No features means that nothing was chosen.
    Raises RevelioError when that place was not recorded, and what `parse_selection` raises.
    """
    source = "" if connected is None else connected.source
    if source and trace.frames and source not in trace.hook_points:
        raise RevelioError(
            f"The connected features are of {source}, but this trace was recorded at "
            f"{', '.join(trace.hook_points)}; connect the trace that they were found in."
        )
    place = trace.hook_point(source)
    note = trace.dictionaries[place]
    found = [] if connected is None else connected.resolved(note).shown
    return place, list(dict.fromkeys(parse_selection(text, note).shown + found))


def _split_weight(part: str, names: Sequence[str]) -> tuple[str, float]:
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


def _find(name: str, names: Sequence[str], n_features: int) -> str:
    for known in names:
        if known.lower() == name.lower():
            return known
    raise RevelioError(
        f"Unknown feature {name!r}: give numbers from 0 to {n_features - 1}"
        + (f" or one of the labels {_listed(names)}." if names else "; this dictionary has no labels.")
    )


def _listed(names: Sequence[str]) -> str:
    """The first names; an index may bring hundreds."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
