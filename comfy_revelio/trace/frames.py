"""The parts of a trace: a frame for each model call, hook point and role, and a note on each dictionary."""

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
    """The codes of all tokens at one hook point in one model call, for one role."""

    hook_point: str
    step: int
    """Index in the schedule, from 0."""
    evaluation: int
    """Index of the model call within this step, from 0. Second-order samplers make several calls per step;
    Heun makes the second one at the sigma of the next step."""
    sigma: float
    """Noise level of the model call."""
    timestep: float
    """The timestep at which the model has this noise level."""
    role: str
    """"cond", "uncond", "cond2"..."""
    grid: tuple[int, ...]
    """(height, width); for videos (frames, height, width)."""
    codes: Codes
    """[B, H*W, k] or [B, F*H*W, k]."""


@dataclass(frozen=True, eq=False)
class DictionaryNote:
    """What a trace stores about the dictionary that computed its codes."""

    n_features: int
    k: int
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Label -> its features, strongest first."""
    mean_active: Tensor | None = None
    """Float32 [n_features]: the mean code of each feature over the tokens on which it fires."""
    d_model: int = 0
    """Width of the activations; 0 when unknown."""
    hook_point: str = ""
    """The dictionary's own name for its hook point."""
    aliases: tuple[str, ...] = ()
    """Other names of the recorded hook point."""

    @classmethod
    def of(cls, dictionary: Dictionary, aliases: Sequence[str] = ()) -> DictionaryNote:
        """Return a note on a dictionary. aliases: other names of the recorded hook point."""
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
        """Whether the sizes of the dictionary equal those in this note."""
        sizes = (dictionary.n_features, dictionary.k) == (self.n_features, self.k)
        return sizes and self.d_model in (0, dictionary.d_model)

    def spellings(self, name: str) -> tuple[str, ...]:
        """Return the names by which the dictionary may refer to the recorded hook point `name`."""
        known = (name, *self.aliases)
        return known if self.hook_point in ("", *known) else (self.hook_point,)

    def label(self, feature: int) -> str:
        """Return the label in whose list the feature ranks highest, or "" if no label has the feature."""
        return label_of(self.labels, feature)
