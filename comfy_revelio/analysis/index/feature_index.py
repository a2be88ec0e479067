"""What a feature index holds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...dictionary import Dictionary
from ...errors import RevelioError

LONGEST_LABEL = 60
WAYS = ("captions", "clip", "endpoint")
"""Where labels come from."""
_PROBED_ROWS = 64


@dataclass(frozen=True)
class Label:
    """What a feature is called. score: how sure, in the unit of the way; None where the way tells none.

    by: "captions", the effect size of a word in the captions; "clip", the deviations above the mean of a
    word's likeness to the crops; "endpoint", what a model answered.
    """

    text: str
    score: float | None
    by: str

    def __post_init__(self) -> None:
        if self.by not in WAYS or (self.score is not None and not math.isfinite(self.score)):
            raise RevelioError(f"A label needs a finite score and one of {', '.join(WAYS)}, not {self.by!r}.")
        if not self.text or len(self.text) > LONGEST_LABEL or not self.text.isprintable():
            raise RevelioError(
                f"A label is one line of 1 to {LONGEST_LABEL} letters, not {self.text[:80]!r}."
            )


@dataclass(frozen=True, eq=False)
class FeatureIndex:
    """The strongest examples of n features, m in all, each from another picture, strongest first.

    starts: int64 [n + 1]; the examples of feature f are those from starts[f] up to starts[f + 1].
    value: float32 [m]. item: int64 [m], the number of the picture. token: int32 [m], row * width + column on
    `grid`. timestep: float32 [m]. crops: uint8 [m, side, side, 3], the picture around the token; None where
    there were no pictures.
    mean_active, peak, rate: float32 [n], the mean value where it fires, the highest, the share of tokens.
    dictionary: `dictionary_id` of the dictionary it belongs to. items: how many images were looked at.
    source: what they are, in a few words.
    """

    hook_point: str
    dictionary: str
    grid: tuple[int, int] | None
    items: int
    source: str
    starts: Tensor
    value: Tensor
    item: Tensor
    token: Tensor
    timestep: Tensor
    mean_active: Tensor
    peak: Tensor
    rate: Tensor
    crops: Tensor | None = None
    labels: Mapping[int, Label] = field(default_factory=dict)

    @property
    def n_features(self) -> int:
        return len(self.starts) - 1

    def examples(self, feature: int) -> slice:
        """The places of a feature's examples among all."""
        return slice(int(self.starts[feature]), int(self.starts[feature + 1]))


def dictionary_id(dictionary: Dictionary) -> str:
    """Tells a dictionary from others, retrained ones of the same name too: 64 hexadecimal digits.

    A digest of its sizes and of some of its directions, in float32, so that it takes no time.
    """
    n = dictionary.n_features
    rows = torch.linspace(0, n - 1, min(n, _PROBED_ROWS)).long().to(dictionary.W_dec.device)
    digest = hashlib.sha256(f"{n} {dictionary.d_model} {dictionary.k} {dictionary.activation}".encode())
    digest.update(dictionary.W_dec[rows].float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def labels_by_name(labels: Mapping[int, Label]) -> dict[str, list[int]]:
    """Labels as dictionaries keep them: name -> features, the surest first."""
    found: dict[str, list[int]] = {}
    for feature in sorted(labels, key=lambda f: (-(labels[f].score or 0.0), f)):
        found.setdefault(labels[feature].text, []).append(feature)
    return found
