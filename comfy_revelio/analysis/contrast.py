"""Which features tell what is wanted from the rest: run from run, or inside a mask from outside.

The effect size of a feature, at one place of the model and one step, is

    d = (m+ - m-) / (s + s0)

m+ and m-: the means of its value with and without what is wanted; s: its pooled standard deviation on the two
sides, as in Cohen's d; s0: how much a feature of that place varies at all, the root mean square, over the
features that fire there, of their standard deviation over both sides together. s0 is the constant of
Significance Analysis of Microarrays (Tusher, Tibshirani and Chu, 2001): without it features that hardly fire
would win, having no deviation, and one picture on each side could not be compared. d has no unit, so places
and steps can be compared with each other.

Between runs the value of a picture is the feature's maximum over its tokens, as in the pilot that this was
tried on; within a picture each token counts by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionary import Codes
from ..errors import RevelioError
from ..hookpoints.grids import mask_on_grid
from ..steering.intervention import checked_mask
from ..trace import DictionaryNote, Frame, Trace

_TINY = 1e-12


class Spread:
    """Mean and spread of every feature over samples that come a few at a time: some sums for each feature."""

    def __init__(self, n_features: int) -> None:
        self.weight = 0.0
        """Samples so far; those with a weight count as so much of one."""
        self._sums = torch.zeros(n_features, dtype=torch.float64)
        self._squares = torch.zeros(n_features, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Samples [m, n_features] of weight 1."""
        values = values.double().cpu()
        self.weight += len(values)
        self._sums += values.sum(0)
        self._squares += values.square().sum(0)

    def add_tokens(self, codes: Codes, weights: Tensor) -> None:
        """Every token of codes [..., k] as a sample of its weight [...] from 0 to 1."""
        values, weights = codes.values.double().cpu(), weights.double().cpu()
        where = codes.indices.cpu().flatten()
        weighted = weights[..., None] * values
        self.weight += float(weights.sum())
        self._sums.index_add_(0, where, weighted.flatten())
        self._squares.index_add_(0, where, (weighted * values).flatten())

    @property
    def mean(self) -> Tensor:
        """float64 [n_features]; 0 without samples."""
        return self._sums / max(self.weight, _TINY)

    @property
    def scatter(self) -> Tensor:
        """Sum of the squared distances from the mean, float64 [n_features]."""
        return (self._squares - self.weight * self.mean.square()).clamp(min=0)

    def without(self, part: Spread) -> Spread:
        """The samples that are here and not in `part`, all of whose samples are here too."""
        rest = Spread(len(self._sums))
        rest.weight = self.weight - part.weight
        rest._sums, rest._squares = self._sums - part._sums, self._squares - part._squares
        return rest


def effect_size(with_it: Spread, without: Spread) -> Tensor:
    """d of every feature as above: float32 [n_features]; 0 for features that never fire."""
    count = with_it.weight + without.weight
    difference = with_it.mean - without.mean
    within = with_it.scatter + without.scatter
    between = difference.square() * with_it.weight * without.weight / max(count, _TINY)
    total = (within + between) / max(count - 1, _TINY)
    pooled = within / (count - 2) if count > 2 else torch.zeros_like(within)
    fires = (with_it._squares + without._squares) > 0
    typical = total[fires].mean().sqrt() if fires.any() else total.new_zeros(())
    return (difference / (pooled.sqrt() + typical).clamp(min=_TINY)).float()


@dataclass(frozen=True)
class FoundFeature:
    """A feature where and when it tells the two sides apart best.

    step: of the schedule, from 0. mean_with, mean_without: means of its values on the two sides at that step.
    """

    hook_point: str
    feature: int
    label: str
    effect: float
    step: int
    mean_with: float
    mean_without: float


@dataclass(frozen=True, eq=False)
class Effects:
    """Of one hook point, at each of its steps: effect sizes and the means on both sides, [steps, n]."""

    steps: tuple[int, ...]
    effect: Tensor
    mean_with: Tensor
    mean_without: Tensor


@dataclass(frozen=True, eq=False)
class Findings:
    """What tells two sides apart, over all hook points and steps. total_steps: of the schedule."""

    places: Mapping[str, Effects]
    total_steps: int
    notes: Mapping[str, DictionaryNote]
    """What is known of the dictionary of each hook point."""

    def best(self, count: int, hook_point: str = "") -> list[FoundFeature]:
        """The `count` features with the highest effect sizes, each once at its best step.

        Of all hook points, or of one. Features that are not higher on the first side are left out.
        """
        if hook_point and hook_point not in self.places:
            raise RevelioError(
                f"Hook point {hook_point!r} was not compared; choose one of {', '.join(self.places)}."
            )
        found = []
        for name in [hook_point] if hook_point else self.places:
            here = self.places[name]
            peaks, at = here.effect.max(dim=0)
            top = peaks.argsort(descending=True, stable=True)[: max(0, count)]
            for feature in top[peaks[top] > 0].tolist():
                row = int(at[feature])
                found.append(
                    FoundFeature(
                        name,
                        feature,
                        self.notes[name].label(feature),
                        float(peaks[feature]),
                        here.steps[row],
                        float(here.mean_with[row, feature]),
                        float(here.mean_without[row, feature]),
                    )
                )
        return sorted(found, key=lambda one: -one.effect)[:count]


def find_features(
    with_it: Trace, without: Trace | None = None, *, mask: Tensor | None = None, role: str = "cond"
) -> Findings:
    """Effect sizes of all features at every hook point and step that was recorded.

    With two traces: the pictures of the first against those of the second, of which there may be another
    number; a mask then says where in both to look. With one trace: inside the mask against outside it.
    mask: [height, width] or [pictures, height, width] in 0..1 of any size, fitted to the tokens by area.
    Raises RevelioError when there is nothing to compare with, or the traces have nothing in common.
    """
    if mask is not None:
        mask = checked_mask(mask)
    if without is None and mask is None:
        raise RevelioError(
            "There is nothing to compare with: connect a second trace without the concept, or a mask that "
            "shows where the concept is in this one."
        )
    names = _common_places(with_it, without)
    places = {name: _effects(name, with_it, without, mask, role) for name in names}
    return Findings(places, with_it.total_steps, with_it.dictionaries)


def check_same_steps(with_it: Trace, without: Trace) -> None:
    """Raise RevelioError for runs of schedules that cannot be compared step by step."""
    if with_it.total_steps != without.total_steps:
        raise RevelioError(
            f"The two runs have {with_it.total_steps} and {without.total_steps} steps; give both "
            "samplers the same number, so that step can be compared with step."
        )


def _common_places(with_it: Trace, without: Trace | None) -> list[str]:
    """The hook points that both recorded, with one dictionary and one schedule."""
    if without is None:
        names = list(with_it.hook_points)
    else:
        names = [name for name in with_it.hook_points if name in without.hook_points]
        check_same_steps(with_it, without)
    if not names:
        raise RevelioError(
            "The two traces have no hook point in common; record both with the same SAEs."
            if without is not None and with_it.frames and without.frames
            else "A trace is empty: its sampler made no step with the recorded model; sample at least one."
        )
    for name in names:
        sizes = {trace.dictionaries[name].n_features for trace in (with_it, without) if trace is not None}
        if len(sizes) > 1:
            raise RevelioError(
                f"The two traces recorded {name} with different SAEs; record both with the same one."
            )
    return names


def _effects(name: str, with_it: Trace, without: Trace | None, mask: Tensor | None, role: str) -> Effects:
    ours = {frame.step: frame for frame in with_it.steps(name, role)}
    theirs = None if without is None else {frame.step: frame for frame in without.steps(name, role)}
    steps = tuple(step for step in ours if theirs is None or step in theirs)
    if not steps:
        raise RevelioError(f"The two runs recorded no step of {name} in common; record the same steps.")
    rows = []
    for step in steps:
        n = ours[step].codes.n_features
        high, low = Spread(n), Spread(n)
        if theirs is None:
            assert mask is not None
            _add_sides(high, low, ours[step], mask)
        else:
            high.add(_peaks(ours[step], mask))
            low.add(_peaks(theirs[step], mask))
        rows.append((effect_size(high, low), high.mean.float(), low.mean.float()))
    return Effects(steps, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _peaks(frame: Frame, mask: Tensor | None) -> Tensor:
    """Each feature's maximum over the tokens of each picture, inside the mask: [items, n]."""
    codes = frame.codes
    if mask is not None:
        inside = mask_on_grid(mask.cpu(), frame.grid, range(frame.codes.shape[0]))
        codes = Codes(codes.indices, codes.values * inside[..., None], codes.n_features)
    return codes.peaks()


def _add_sides(inside: Spread, outside: Spread, frame: Frame, mask: Tensor) -> None:
    weights = mask_on_grid(mask.cpu(), frame.grid, range(frame.codes.shape[0]))
    for side, share in ((inside, weights), (outside, 1 - weights)):
        if float(share.sum()) < _TINY:
            raise RevelioError(
                "The mask is the same all over the picture; paint the part that shows the concept white and "
                "leave the rest black."
            )
        side.add_tokens(frame.codes, share)
