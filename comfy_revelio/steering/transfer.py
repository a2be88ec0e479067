"""Putting what one generation has inside a mask into another, as RIEBench does it (with arXiv 2410.22366).

The features that tell the masked part of the source from that of the target are put in with the values that
they had in the source at the same timestep, and those that tell the target are taken out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..dictionary import Dictionary
from ..errors import RevelioError
from ..hookpoints.grids import maps_on_grid, mask_on_grid
from .intervention import ROLES, TokenContext, checked_mask, checked_percents, side_of
from .saeuron import quantile

if TYPE_CHECKING:
    from ..trace import Frame, Trace

METHODS = ("adaptive", "plain")
SPREADS = ("place", "mean", "quantile")
SCORES = ("first", "mean")
QUANTILE = 0.95
_HALF_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class Transfer:
    """What goes from one generation into another at one hook point.

    source, target: traces of both, the target's of an unsteered run; None takes nothing out.
    source_mask, target_mask: [h, w] or [1, h, w]; a cell of the grid counts when half of it is white. The
        target's is the source's where it is None.
    count: F+, the features of the highest, and F-, those of the lowest score, which is the feature's share of
        all activity in the source's mask minus its share in the target's.
    scores: "first" scores the first recorded step, "mean" all of them together.
    method: "plain" takes out what F- did in the target's trace. "adaptive" takes out what they do in the
        generation at hand, times sum|w| of F+ / sum|w| of F-.
    spread: "place" puts each cell's own values back where they were; "mean" and "quantile" (0.95) put one
        value for the whole source mask on all of the target's.
    strength: 1 puts in what was there. start_percent, end_percent, role: as for an Intervention.
    Raises RevelioError, on construction, for anything that does not fit.
    """

    dictionary: Dictionary
    hook_point: str
    source: Trace
    source_mask: Tensor
    target: Trace | None = None
    target_mask: Tensor | None = None
    strength: float = 1.0
    count: int = 80
    method: str = "adaptive"
    spread: str = "place"
    scores: str = "first"
    source_item: int = 0
    target_item: int = 0
    start_percent: float = 0.0
    end_percent: float = 1.0
    role: str = "cond"
    put_in: tuple[int, ...] = field(init=False)
    taken_out: tuple[int, ...] = field(init=False)
    _source_frames: list[Frame] = field(init=False)
    _target_frames: list[Frame] = field(init=False)
    _maps: dict[object, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        known = {"method": METHODS, "spread": SPREADS, "scores": SCORES, "role": ROLES[:3]}
        for what, choices in known.items():
            if (value := getattr(self, what)) not in choices:
                raise RevelioError(f"Unknown {what} {value!r}; choose one of {', '.join(choices)}.")
        if not math.isfinite(self.strength):
            raise RevelioError(f"The strength must be a finite number, not {self.strength}.")
        checked_percents(self.start_percent, self.end_percent)
        if self.count < 1:
            raise RevelioError(f"At least one feature must be transferred, not {self.count}.")
        object.__setattr__(self, "source_mask", checked_mask(self.source_mask)[:1])
        other = self.source_mask if self.target_mask is None else checked_mask(self.target_mask)[:1]
        object.__setattr__(self, "target_mask", other)
        frames = self._frames(self.source, self.source_item, "source")
        object.__setattr__(self, "_source_frames", frames)
        source = self._activity(frames, self.source_item, self.source_mask, "source")
        frames = [] if self.target is None else self._frames(self.target, self.target_item, "target")
        object.__setattr__(self, "_target_frames", frames)
        target = self._activity(frames, self.target_item, other, "target") if frames else None
        chosen = transferred_features(source, target, self.count)
        object.__setattr__(self, "put_in", chosen[0])
        object.__setattr__(self, "taken_out", chosen[1])

    @property
    def active(self) -> bool:
        return self.strength != 0.0 and self.start_percent < self.end_percent

    @torch.no_grad()
    def delta(self, tokens: Tensor, context: TokenContext) -> Tensor | None:
        """The change of tokens [B, T, d], float32 [B or 1, T, d]; None where nothing applies."""
        acts = self.role == "both" or side_of(context.role) == self.role
        within = self.start_percent <= context.percent and (
            context.percent < self.end_percent or self.end_percent == 1.0
        )
        if not (self.active and acts and within):
            return None
        dictionary, time = self.dictionary, context.timestep
        values = self.strength * self._source_values(context, tokens.device)
        change = dictionary.contribution(values[None], self.put_in, tokens, timestep=time)
        if self.taken_out:
            out = self.strength * self._target_values(tokens, context)
            change = change - dictionary.contribution(out, self.taken_out, tokens, timestep=time)
        return change

    def _activity(self, frames: list[Frame], item: int, mask: Tensor, which: str) -> Tensor:
        """Mean code of every feature [n] inside the mask, of the steps that are scored."""
        used = frames[:1] if self.scores == "first" else frames
        total = torch.zeros(self.dictionary.n_features)
        for frame in used:
            codes = frame.codes[item][cells_of(mask, frame.grid)]
            total.scatter_add_(0, codes.indices.flatten(), codes.values.flatten() / codes.shape[0])
        if not float(total.abs().sum()):
            raise RevelioError(f"No feature fires inside the mask of the {which}; paint another part.")
        return total / len(used)

    def _frames(self, trace: Trace, item: int, which: str) -> list[Frame]:
        frames = trace.steps(self.hook_point)
        if any(len(frame.grid) != 2 for frame in frames):
            raise RevelioError(f"The {which} is a video; features are transferred between pictures only.")
        if frames[0].codes.n_features != self.dictionary.n_features:
            raise RevelioError(
                f"The trace of the {which} was recorded with a dictionary of {frames[0].codes.n_features} "
                f"features, but this one has {self.dictionary.n_features}; connect the SAE that recorded it."
            )
        if not all(0 <= item < frame.codes.shape[0] for frame in frames):
            count = frames[0].codes.shape[0]
            raise RevelioError(f"The {which} has no picture {item}; choose from 0 to {count - 1}.")
        return frames

    def _source_values(self, context: TokenContext, device: torch.device) -> Tensor:
        """What F+ get at every token of the target's grid [T, m] at this timestep, at strength 1."""
        frame = _at(self._source_frames, context.timestep)
        key = ("source", frame.step, context.grid, device)
        if key not in self._maps:
            inside = cells_of(self.source_mask, frame.grid)
            values = _values(frame, self.source_item, self.put_in)
            if self.spread == "place":
                maps = _resized(values * inside[:, None], frame.grid, context.grid)
            else:
                assert self.target_mask is not None
                there = cells_of(self.target_mask, context.grid)
                maps = there[:, None] * self._summary(values[inside])
            self._maps[key] = maps.to(device)
        return self._maps[key]

    def _target_values(self, tokens: Tensor, context: TokenContext) -> Tensor:
        """What F- lose at every token [B or 1, T, m] at this timestep, at strength 1."""
        assert self.target_mask is not None
        if self.method == "plain":
            frame = _at(self._target_frames, context.timestep)
            key = ("target", frame.step, context.grid, tokens.device)
            if key not in self._maps:
                inside = cells_of(self.target_mask, frame.grid)
                values = _values(frame, self.target_item, self.taken_out)
                if self.spread != "place":
                    values = self._summary(values[inside]).expand_as(values)
                maps = _resized(values * inside[:, None], frame.grid, context.grid)
                self._maps[key] = maps[None].to(tokens.device)
            return self._maps[key]
        live = self.dictionary.encode(tokens, timestep=context.timestep)
        features = self.dictionary.feature_index(self.taken_out)
        values = live.of_many(features)
        inside = cells_of(self.target_mask, context.grid).to(tokens.device)
        if self.spread != "place":
            values = (values * inside[:, None]).sum(dim=1, keepdim=True) / inside.sum()
        return self._ratio() * values * inside[:, None]

    def _summary(self, values: Tensor) -> Tensor:
        """One value of each feature for cells [cells, m]: [m]."""
        if self.spread == "mean":
            return values.mean(0)
        return quantile(values, QUANTILE)

    def _ratio(self) -> float:
        """Sum of the lengths of F+ over that of F-, so that as much goes out as comes in."""
        if "ratio" not in self._maps:
            lengths = [self.dictionary.directions(f).norm(dim=1).sum() for f in (self.put_in, self.taken_out)]
            self._maps["ratio"] = (lengths[0] / lengths[1].clamp(min=1e-12)).cpu()
        return float(self._maps["ratio"])


def transferred_features(
    source: Tensor, target: Tensor | None, count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(F+, F-): the `count` features of the highest and of the lowest score, from mean codes [n].

    score = source / sum(source) - target / sum(target); without a target nothing is taken out.
    """
    scores = source / source.sum()
    if target is not None:
        scores = scores - target / target.sum()
    order = scores.argsort(descending=True, stable=True).tolist()
    count = min(count, len(order) // 2 if target is not None else len(order))
    return tuple(order[:count]), tuple(reversed(order[-count:])) if target is not None else ()


def cells_of(mask: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The cells of the grid that a mask [1, h, w] means: bool [T], those that are half white or more.

    A mask too small to fill half a cell anywhere means the cells that it touches. RevelioError when black.
    """
    shares = mask_on_grid(mask, grid, [0])[0]
    inside = shares >= _HALF_COVERED
    if not bool(inside.any()):
        inside = shares > 0
    if not bool(inside.any()):
        raise RevelioError("A mask for a transfer is black all over; paint the part that is meant white.")
    return inside


def _at(frames: list[Frame], timestep: float) -> Frame:
    """The frame recorded nearest to a timestep."""
    return min(frames, key=lambda frame: abs(frame.timestep - timestep))


def _values(frame: Frame, item: int, features: tuple[int, ...]) -> Tensor:
    """What the features did at each cell: [T, m]."""
    return frame.codes[item].of_many(torch.tensor(features, dtype=torch.int64))


def _resized(values: Tensor, grid: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Values [T, m] of one grid on another."""
    if grid == wanted:
        return values
    return maps_on_grid(values.T.reshape(-1, *grid), wanted)
