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
    """The codes of all tokens of one hook point in one model call.

    step: index in the schedule, from 0. evaluation: nth call of the model at this step, 0 first
    (second-order samplers call it more than once, Heun's at the sigma of the step that follows).
    sigma: the call's own noise level; timestep: the model's. role: "cond", "uncond", "cond2"...
    grid: (height, width), or (frames, height, width) of a video. codes: [B, H*W, k] or [B, F*H*W, k].
    """

    hook_point: str
    step: int
    evaluation: int
    sigma: float
    timestep: float
    role: str
    grid: tuple[int, ...]
    codes: Codes


@dataclass(frozen=True, eq=False)
class DictionaryNote:
    """What a trace remembers of the dictionary that encoded it.

    labels: name -> features, strongest first. mean_active: float32 [n_features] or None.
    d_model: width of the activations; 0 where nobody noted it.
    hook_point: the place as the dictionary itself calls it. aliases: other names of the recorded place.
    """

    n_features: int
    k: int
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    mean_active: Tensor | None = None
    d_model: int = 0
    hook_point: str = ""
    aliases: tuple[str, ...] = ()

    @classmethod
    def of(cls, dictionary: Dictionary, aliases: Sequence[str] = ()) -> DictionaryNote:
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
        """How the dictionary may call the place `name` that was recorded."""
        known = (name, *self.aliases)
        return known if self.hook_point in ("", *known) else (self.hook_point,)

    def label(self, feature: int) -> str:
        """The label in which the feature ranks highest, or ""."""
        return label_of(self.labels, feature)
