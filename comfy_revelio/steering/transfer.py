"""Transfer what one generation shows inside a mask to another generation, as in RIEBench (arXiv 2410.22366).

The features that distinguish the masked part of the source are added to the target with the values that they
had in the source at the same timestep, and features that distinguish the target's masked part are removed:

    score = source / sum(source) - target / sum(target)          mean codes [N] inside the masks
    F+, F- = the features with the highest scores, and those with the lowest
    h <- h + s (values of F+ in the source) W_dec[F+] - s (values of F- in the target) W_dec[F-]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError, checked_choice
from ..hookpoints.mask_on_grid import mask_on_grid
from ..hookpoints.resize_maps import maps_on_grid
from .intervention import SIDES, Side, TokenContext, check_amount, checked_mask, in_range, side_of
from .saeuron import quantile

if TYPE_CHECKING:
    from ..trace import Frame, Trace

Method = Literal["adaptive", "plain"]
METHODS: tuple[Method, ...] = get_args(Method)
Spread = Literal["place", "mean", "quantile"]
SPREADS: tuple[Spread, ...] = get_args(Spread)
Scores = Literal["first", "mean"]
SCORES: tuple[Scores, ...] = get_args(Scores)
QUANTILE = 0.95
_HALF_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class Transfer:
    """A transfer of features from one generation, the source, to another, the target, at one hook point."""

    dictionary: Dictionary
    hook_point: str
    source: Trace
    source_mask: Tensor
    """[h, w] or [1, h, w]: a cell of the grid counts if at least half of it is white."""
    target: Trace | None = None
    """Trace of an unsteered run of the target; None removes no features."""
    target_mask: Tensor | None = None
    """Like source_mask; None uses source_mask."""
    strength: float = 1.0
    """A strength of 1 adds the values of the source unscaled."""
    count: int = 80
    """Number of features in F+, and in F-."""
    method: Method = "adaptive"
    """"plain" removes the values of F- in the target's trace; "adaptive" removes the values of F- in the
    current generation, times sum ||W_dec[F+]|| / sum ||W_dec[F-]||."""
    spread: Spread = "place"
    """"place" adds each cell's values at the same place; "mean" and "quantile" (0.95) reduce the
    values inside the source mask to one per feature, and add it to every cell of the target mask."""
    scores: Scores = "first"
    """"first" takes the scores from the first recorded step, "mean" from all steps together."""
    source_item: int = 0
    target_item: int = 0
    start_percent: float = 0.0
    end_percent: float = 1.0
    role: Side = "cond"
    added: tuple[int, ...] = field(init=False)
    """F+, the highest score first."""
    removed: tuple[int, ...] = field(init=False)
    """F-, the lowest score first."""
    _source_frames: list[Frame] = field(init=False)
    _target_frames: list[Frame] = field(init=False)
    _maps: dict[object, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        checked_choice("method", self.method, METHODS)
        checked_choice("spread", self.spread, SPREADS)
        checked_choice("scores", self.scores, SCORES)
        checked_choice("role", self.role, SIDES)
        check_amount(self.strength, self.start_percent, self.end_percent)
        if self.count < 1:
            raise RevelioError(f"The number of features to transfer must be at least 1, not {self.count}.")
        source_mask = checked_mask(self.source_mask)[:1]
        target_mask = source_mask if self.target_mask is None else checked_mask(self.target_mask)[:1]
        source_frames = self._frames(self.source, self.source_item, "source")
        source = self._activity(source_frames, self.source_item, source_mask, "source")
        target_frames, target = [], None
        if self.target is not None:
            target_frames = self._frames(self.target, self.target_item, "target")
            target = self._activity(target_frames, self.target_item, target_mask, "target")
        added, removed = transferred_features(source, target, self.count)
        for name, value in (
            ("source_mask", source_mask),
            ("target_mask", target_mask),
            ("added", added),
            ("removed", removed),
            ("_source_frames", source_frames),
            ("_target_frames", target_frames),
        ):
            object.__setattr__(self, name, value)

    @property
    def active(self) -> bool:
        """Whether the transfer can change anything at all."""
        return self.strength != 0.0 and self.start_percent < self.end_percent

    @torch.no_grad()
    def delta(self, tokens: Tensor, context: TokenContext) -> Tensor | None:
        """Return the change to the tokens [B, T, D] as float32 [B or 1, T, D]; None if nothing changes."""
        acts = self.role in ("both", side_of(context.role))
        if not (self.active and acts and in_range(context.percent, self.start_percent, self.end_percent)):
            return None
        dictionary, timestep = self.dictionary, context.timestep
        dz = self.strength * self._source_values(context, tokens.device)
        change = dictionary.contribution(dz[None], self.added, tokens, timestep=timestep)
        if self.removed:
            dz = self.strength * self._target_values(tokens, context)
            change = change - dictionary.contribution(dz, self.removed, tokens, timestep=timestep)
        return change

    def _activity(self, frames: list[Frame], item: int, mask: Tensor, which: str) -> Tensor:
        """Return the mean code of every feature [N] inside the mask, over the steps used for the scores."""
        used = frames[:1] if self.scores == "first" else frames
        total = torch.zeros(self.dictionary.n_features)
        for frame in used:
            codes = frame.codes[item][cells_of(mask, frame.grid)]
            total.scatter_add_(0, codes.indices.flatten(), codes.values.flatten() / codes.shape[0])
        if not float(total.abs().sum()):
            raise RevelioError(f"No feature fires inside the mask of the {which}; paint another part.")
        return total / len(used)

    def _frames(self, trace: Trace, item: int, which: str) -> list[Frame]:
        """Return the trace's frames at the hook point; raise if they do not fit this transfer."""
        frames = trace.steps(self.hook_point)
        if any(len(frame.grid) != 2 for frame in frames):
            raise RevelioError(
                f"The {which} is a video, but features can only be transferred between images."
            )
        if frames[0].codes.n_features != self.dictionary.n_features:
            raise RevelioError(
                f"The trace of the {which} was recorded with a dictionary of {frames[0].codes.n_features} "
                f"features, but this one has {self.dictionary.n_features}; connect the SAE that recorded it."
            )
        if not all(0 <= item < frame.codes.shape[0] for frame in frames):
            count = frames[0].codes.shape[0]
            raise RevelioError(f"The {which} has no image {item}; choose from 0 to {count - 1}.")
        return frames

    def _source_values(self, context: TokenContext, device: torch.device) -> Tensor:
        """Return the values of F+ that strength 1 adds at this timestep: [T, M] on the target's grid."""
        frame = _nearest_frame(self._source_frames, context.timestep)
        key = ("source", frame.step, context.grid, device)
        if key not in self._maps:
            inside = cells_of(self.source_mask, frame.grid)
            values = _values(frame, self.source_item, self.added)
            if self.spread == "place":
                maps = _on_grid(values * inside[:, None], frame.grid, context.grid)
            else:
                assert self.target_mask is not None
                maps = cells_of(self.target_mask, context.grid)[:, None] * self._summary(values[inside])
            self._maps[key] = maps.to(device)
        return self._maps[key]

    def _target_values(self, tokens: Tensor, context: TokenContext) -> Tensor:
        """Return the values of F- that strength 1 removes at this timestep: [B or 1, T, M]."""
        assert self.target_mask is not None
        if self.method == "plain":
            frame = _nearest_frame(self._target_frames, context.timestep)
            key = ("target", frame.step, context.grid, tokens.device)
            if key not in self._maps:
                inside = cells_of(self.target_mask, frame.grid)
                values = _values(frame, self.target_item, self.removed)
                if self.spread != "place":
                    values = self._summary(values[inside]).expand_as(values)
                maps = _on_grid(values * inside[:, None], frame.grid, context.grid)
                self._maps[key] = maps[None].to(tokens.device)
            return self._maps[key]
        codes = self.dictionary.encode(tokens, timestep=context.timestep)
        values = codes.of_many(self.dictionary.feature_index(self.removed))
        inside = cells_of(self.target_mask, context.grid).to(tokens.device)
        if self.spread != "place":
            values = (values * inside[:, None]).sum(dim=1, keepdim=True) / inside.sum()
        return self._length_ratio() * values * inside[:, None]

    def _summary(self, values: Tensor) -> Tensor:
        """Reduce the values [cells, M] of some cells to one value per feature: [M]."""
        return values.mean(0) if self.spread == "mean" else quantile(values, QUANTILE)

    def _length_ratio(self) -> float:
        """Return sum ||W_dec[F+]|| / sum ||W_dec[F-]||, so that as much is removed as is added."""
        if "ratio" not in self._maps:
            lengths = [self.dictionary.directions(f).norm(dim=1).sum() for f in (self.added, self.removed)]
            self._maps["ratio"] = (lengths[0] / lengths[1].clamp(min=1e-12)).cpu()
        return float(self._maps["ratio"])


def transferred_features(
    source: Tensor, target: Tensor | None, count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (F+, F-): the `count` features with the highest and with the lowest scores, from mean codes [N].

    Without a target, the scores are source / sum(source), and F- is empty.

    >>> transferred_features(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 2.0]), 1)
    ((0,), (2,))
    """
    scores = source / source.sum()
    if target is not None:
        scores = scores - target / target.sum()
    order = scores.argsort(descending=True, stable=True).tolist()
    count = min(count, len(order) // 2 if target is not None else len(order))
    return tuple(order[:count]), tuple(reversed(order[-count:])) if target is not None else ()


def cells_of(mask: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return bool [T]: whether a mask [1, h, w] covers at least half of each cell of the grid.

    If the mask is too small to cover half of any cell, the cells that it touches count instead.
    """
    shares = mask_on_grid(mask, grid, [0])[0]
    inside = shares >= _HALF_COVERED
    if not bool(inside.any()):
        inside = shares > 0
    if not bool(inside.any()):
        raise RevelioError("The mask of a transfer is all black; use white for the part to transfer.")
    return inside


def _nearest_frame(frames: list[Frame], timestep: float) -> Frame:
    return min(frames, key=lambda frame: abs(frame.timestep - timestep))


def _values(frame: Frame, item: int, features: tuple[int, ...]) -> Tensor:
    """Return the values of the features at each cell: [T, M]."""
    return frame.codes[item].of_many(torch.tensor(features, dtype=torch.int64))


def _on_grid(values: Tensor, grid: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Resize values [T, M] from one grid to another."""
    return values if grid == wanted else maps_on_grid(values.T.reshape(-1, *grid), wanted)
