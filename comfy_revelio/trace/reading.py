"""A reading: a selection from a trace (hook point, role, batch item, video frame) with its feature maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import RevelioError
from .frames import DictionaryNote, Frame

if TYPE_CHECKING:
    from .trace import Trace


@dataclass(frozen=True, eq=False)
class Reading:
    """Selects one set of feature maps from a trace."""

    trace: Trace
    hook_point: str
    role: str = "cond"
    """Which prompt's codes: "cond", "uncond", "cond2"..."""
    item: int = 0
    """Index of the image in the batch, from 0."""
    frame: int | None = None
    """Index of the video frame, from 0; None takes the strongest frame at each position."""

    @property
    def steps(self) -> list[Frame]:
        """The frames of the recorded steps, in order."""
        return self.trace._chosen(self.hook_point, None, self.item, self.role)

    @property
    def note(self) -> DictionaryNote:
        """The trace's note on the dictionary at this hook point."""
        return self.trace.dictionaries[self.hook_point]

    def maps(self, feature: int) -> Tensor:
        """Return maps that show where a feature fires: float32 [recorded steps, H, W], on the CPU."""
        maps = self.trace.feature_map(
            self.hook_point, feature, item=self.item, role=self.role, frame=self.frame
        )
        return maps.float().cpu()

    def of_second(self, other: Trace, *, same_maps: bool = True) -> Reading:
        """Make the same selection in another run's trace, or select its only image if that run has just one.

        same_maps: also require the same grid and steps, so that the maps can be subtracted.
        """
        if self.hook_point not in other.hook_points:
            known = ", ".join(other.hook_points) or "nowhere"
            raise RevelioError(
                f"The second run was recorded at {known}, the first at {self.hook_point}; record both at the "
                "same hook point."
            )
        second = replace(self, trace=other, item=0 if other.batch_size == 1 else self.item)
        if not _alike(self.note, second.note):
            raise RevelioError(
                f"The two runs were recorded at {self.hook_point} with different SAEs, whose "
                "features differ; record both with the same SAE."
            )
        if same_maps:
            _check_same_maps(self.steps, second.steps)
        return second

    def most_changed(self, second: Reading, count: int = 8) -> list[int]:
        """Return the features whose maps differ most from those of a second run, the most changed first.

        A feature's change is the largest |second - first| over the tokens, averaged over the steps, so that a
        strong change in one part of the image outweighs a slight change all over it. Features without any
        change are omitted. Only the sparse codes are added up, never a dense table of features and tokens.
        """
        change = torch.zeros(self.note.n_features)
        for first, other in zip(self.steps, second.steps, strict=True):
            keys, values = [], []
            for frame, item, sign in ((first, self.item, -1.0), (other, second.item, 1.0)):
                codes = frame.codes[item]
                token = torch.arange(len(codes.indices))[:, None]
                keys.append((token * self.note.n_features + codes.indices.cpu()).flatten())
                values.append(sign * codes.values.float().cpu().flatten())
            found, where = torch.cat(keys).unique(return_inverse=True)
            sums = torch.zeros(len(found)).scatter_add_(0, where, torch.cat(values))
            most = torch.zeros_like(change)
            change += most.scatter_reduce_(0, found % self.note.n_features, sums.abs(), "amax")
        order = change.argsort(descending=True, stable=True)[: max(0, count)]
        return [feature for feature in order.tolist() if change[feature] > 0]


def _alike(first: DictionaryNote, second: DictionaryNote) -> bool:
    """Whether two notes may be about the same dictionary."""
    if (first.n_features, first.k) != (second.n_features, second.k):
        return False
    known = first.mean_active is not None and second.mean_active is not None
    return not known or torch.equal(first.mean_active, second.mean_active)  # type: ignore[arg-type]


def _check_same_maps(first: list[Frame], second: list[Frame]) -> None:
    grids = [" x ".join(str(side) for side in frames[0].grid) for frames in (first, second)]
    if grids[0] != grids[1]:
        raise RevelioError(
            f"The maps of the two runs have different sizes, {grids[0]} and {grids[1]}; generate both "
            "images in the same size."
        )
    if [frame.step for frame in first] != [frame.step for frame in second]:
        raise RevelioError(
            f"The two runs have different steps, {len(first)} and {len(second)} of them recorded; sample "
            "both with the same number of steps."
        )
