"""The contents of a feature index."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ...dictionary import Dictionary
from ...errors import RevelioError

LONGEST_LABEL = 60
Way = Literal["captions", "clip", "endpoint"]
WAYS: tuple[Way, ...] = get_args(Way)
"""Where labels come from."""
_PROBED_ROWS = 64


@dataclass(frozen=True)
class Label:
    """The name of a feature, and how the name was found."""

    text: str
    score: float | None
    """How sure the label is: for captions, the word's effect size; for CLIP, how many standard deviations the
    similarity is above the word's mean similarity; None for an endpoint, which gives no score."""
    by: Way

    def __post_init__(self) -> None:
        if self.by not in WAYS or (self.score is not None and not math.isfinite(self.score)):
            raise RevelioError(f"A label needs a finite score and one of {', '.join(WAYS)}; got {self.by!r}.")
        if not self.text or len(self.text) > LONGEST_LABEL or not self.text.isprintable():
            raise RevelioError(
                f"A label must be one line of 1 to {LONGEST_LABEL} characters; got {self.text[:80]!r}."
            )


@dataclass(frozen=True, eq=False)
class FeatureIndex:
    """For each of n features, its strongest examples (from different images, strongest first); m in total."""

    hook_point: str
    dictionary: str
    """`dictionary_id` of the dictionary that the index belongs to."""
    grid: tuple[int, int] | None
    """(height, width) in tokens; None for tokens without a grid."""
    items: int
    """Number of images that the examples were chosen from."""
    source: str
    """What these images are, in a few words."""
    starts: Tensor
    """int64 [n + 1]: the examples of feature f are those from starts[f] up to starts[f + 1]."""
    value: Tensor
    """float32 [m]"""
    item: Tensor
    """int64 [m]: number of the image."""
    token: Tensor
    """int32 [m]: row * width + column on the grid."""
    timestep: Tensor
    """float32 [m]"""
    mean_active: Tensor
    """float32 [n]: mean value of the feature where it fires."""
    peak: Tensor
    """float32 [n]: highest value of the feature."""
    rate: Tensor
    """float32 [n]: share of tokens where the feature fires, 0..1."""
    crops: Tensor | None = None
    """uint8 [m, side, side, 3]: the image around the token; None without images."""
    labels: Mapping[int, Label] = field(default_factory=dict)

    @property
    def n_features(self) -> int:
        return len(self.starts) - 1

    def examples(self, feature: int) -> slice:
        """Return the slice of the m examples that belongs to a feature."""
        return slice(int(self.starts[feature]), int(self.starts[feature + 1]))


def dictionary_id(dictionary: Dictionary) -> str:
    """Return 64 hexadecimal digits that identify a dictionary; they change if it is trained again.

    They are a digest of its sizes and some of its directions in float32, which is quick to compute.
    """
    n = dictionary.n_features
    rows = torch.linspace(0, n - 1, min(n, _PROBED_ROWS)).long().to(dictionary.W_dec.device)
    digest = hashlib.sha256(f"{n} {dictionary.d_model} {dictionary.k} {dictionary.activation}".encode())
    digest.update(dictionary.W_dec[rows].float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def labels_by_name(labels: Mapping[int, Label]) -> dict[str, list[int]]:
    """Return labels in the form that `Dictionary` uses: name -> features, the surest first.

    >>> labels_by_name({3: Label("hat", 2.0, "clip"), 5: Label("hat", 4.0, "clip")})
    {'hat': [5, 3]}
    """
    found: dict[str, list[int]] = {}
    for feature in sorted(labels, key=lambda f: (-(labels[f].score or 0.0), f)):
        found.setdefault(labels[feature].text, []).append(feature)
    return found
