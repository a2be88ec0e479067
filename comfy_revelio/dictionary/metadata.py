"""Metadata of a dictionary: the activations it was trained on, and what its features mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import checked_choice
from ..hookpoints.point import Captured
from .concept import Concept
from .feature_stats import FeatureStats

CAPTURED: tuple[Captured, ...] = get_args(Captured)
Pooling = Literal["token", "spatial_mean"]
POOLING: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True)
class Provenance:
    """The activations that a dictionary was trained on, and the layout of the dictionary's file."""

    hook_point: str = ""
    """Name of the hook point; "" if the file does not name a hook point."""
    captured: Captured = "output"
    """What was recorded: the module's "output", or "diff" = output - input."""
    pooling: Pooling = "token"
    """"token" if the activations were single tokens, "spatial_mean" if they were averaged over space."""
    source_format: str = "revelio"
    """Layout of the file from which the dictionary was read."""
    model_family: str = ""

    def __post_init__(self) -> None:
        checked_choice("captured", self.captured, CAPTURED)
        checked_choice("pooling", self.pooling, POOLING)


@dataclass(frozen=True, eq=False)
class Extras:
    """Training metrics of a dictionary, and the labels, concepts and statistics of its features."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Training metrics by name, such as explained_variance."""
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Label -> numbers of the features with this label, strongest first."""
    concepts: Mapping[str, Concept] = field(default_factory=dict)
    """Concept name -> the features that carry the concept, and how and where the concept changes them."""
    stats: FeatureStats | None = None


def label_of(labels: Mapping[str, Sequence[int]], feature: int) -> str:
    """Return the label that ranks the feature highest, or "" if no label has the feature.

    >>> label_of({"hat": [3, 4], "red hat": [4]}, 4)
    'red hat'
    """
    ranks = [(list(chosen).index(feature), label) for label, chosen in labels.items() if feature in chosen]
    return min(ranks)[1] if ranks else ""
