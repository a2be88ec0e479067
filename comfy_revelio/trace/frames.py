"""The parts of a trace: one frame per model call and hook point, one note per dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..dictionary.codes import Codes
from ..dictionary.metadata import label_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..dictionary import Dictionary


@dataclass(frozen=True, eq=False)
class Frame:
    """The codes of all tokens of one hook point in one model call."""

    hook_point: str
    step: int
    """Index in the schedule, from 0."""
    evaluation: int
    """Which call of the model at this step, from 0: second-order samplers make more than one, Heun's at the
    sigma of the step that follows."""
    sigma: float
    """The call's own noise level."""
    timestep: float
    """The model's name for that noise level."""
    role: str
    """"cond", "uncond", "cond2"..."""
    grid: tuple[int, ...]
    """(height, width), or (frames, height, width) of a video."""
    codes: Codes
    """[B, H*W, k] or [B, F*H*W, k]."""


@dataclass(frozen=True, eq=False)
class DictionaryNote:
    """What a trace keeps of the dictionary that encoded it."""

    n_features: int
    k: int
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Name -> features, strongest first."""
    mean_active: Tensor | None = None
    """Float32 [n_features]: the mean of each feature over the tokens on which it fires."""
    d_model: int = 0
    """Width of the activations; 0 when unknown."""
    hook_point: str = ""
    """The dictionary's own name for its hook point."""
    aliases: tuple[str, ...] = ()
    """Other names of the hook point that was recorded."""

    @classmethod
    def of(cls, dictionary: Dictionary, aliases: Sequence[str] = ()) -> DictionaryNote:
        """The note on a dictionary; aliases: other names of the hook point that it records."""
        stats = dictionary.stats
        means = None if stats is None else stats.mean_active.detach().float().cpu()
        labels = {name: list(features) for name, features in dictionary.labels.items()}
        return cls(
            dictionary.n_features,
            dictionary.k,
            labels,
            means,
            dictionary.d_model,
            dictionary.hook_point,
            tuple(aliases),
        )

    def fits(self, dictionary: Dictionary) -> bool:
        """Whether the dictionary has the noted sizes."""
        sizes = (dictionary.n_features, dictionary.k) == (self.n_features, self.k)
        return sizes and self.d_model in (0, dictionary.d_model)

    def spellings(self, name: str) -> tuple[str, ...]:
        """What the dictionary may call the recorded hook point `name`."""
        known = (name, *self.aliases)
        return known if self.hook_point in ("", *known) else (self.hook_point,)

    def label(self, feature: int) -> str:
        """The label in which the feature ranks highest, or ""."""
        return label_of(self.labels, feature)
