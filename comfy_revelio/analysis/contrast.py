"""Find the features that distinguish one run from another, or the inside of a mask from its outside.

The effect size of a feature, at one hook point and one step, is

    d  = (m+ - m-) / (sp + s0)
    sp = sqrt((S+ + S-) / (w+ + w- - 2))
    s0 = sqrt(mean of (S+ + S- + (m+ - m-)^2 w+ w- / (w+ + w-)) / (w+ + w- - 1) over the features that fire)

m+ and m- are the means of the feature's value on the two sides, with and without the concept; S+ and S- are
the sums of squared distances from these means, w+ and w- the numbers of samples. sp is the pooled standard
deviation, as in Cohen's d. s0 is the typical variation of a feature at that hook point, over both sides
together. It is the constant of Significance Analysis of Microarrays (Tusher, Tibshirani and Chu, 2001):
without s0, features that hardly fire would win, because they hardly vary, and one image on each side could
not be compared. d has no unit, so hook points and steps can be compared with each other.

When runs are compared, each image is a sample; its value is the feature's maximum over the image's tokens.
When parts of an image are compared, each token is a sample.

Shapes: P images of a run, T tokens, N features, K active features, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionary import Codes
from ..errors import RevelioError
from ..hookpoints.mask_on_grid import mask_on_grid
from ..steering.intervention import checked_mask
from ..trace import DictionaryNote, Frame, Trace

_TINY = 1e-12


class Spread:
    """The mean and spread of every feature's values over samples, which are added a few at a time.

    >>> spread = Spread(1)
    >>> spread.add(torch.tensor([[1.0], [3.0]]))
    >>> spread.weight, spread.mean.tolist(), spread.scatter.tolist()
    (2.0, [2.0], [2.0])
    """

    def __init__(self, n_features: int) -> None:
        self.weight = 0.0
        """Number of samples so far, each counted with its weight."""
        # float64, because the scatter is a small difference between these large sums
        self._sums_N = torch.zeros(n_features, dtype=torch.float64)
        self._squares_N = torch.zeros(n_features, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Add samples [P, N] of weight 1.

        >>> spread = Spread(2)
        >>> spread.add(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        >>> spread.weight, spread.mean.tolist()
        (2.0, [2.0, 2.0])
        """
        values_PN = values.double().cpu()
        self.weight += len(values_PN)
        self._sums_N += values_PN.sum(0)
        self._squares_N += values_PN.square().sum(0)

    def add_tokens(self, codes: Codes, weights: Tensor) -> None:
        """Add every token of codes [P, T] as a sample; weights [P, T] are the samples' weights, 0 to 1.

        >>> spread, codes = Spread(2), Codes(torch.tensor([[[1], [1]]]), torch.tensor([[[4.0], [1.0]]]), 2)
        >>> spread.add_tokens(codes, torch.tensor([[1.0, 0.5]]))
        >>> spread.weight, spread.mean.tolist()  # (4 + 0.5) / 1.5
        (1.5, [0.0, 3.0])
        """
        values_PTK, weights_PT = codes.values.double().cpu(), weights.double().cpu()
        features = codes.indices.cpu().flatten()
        weighted_PTK = weights_PT[..., None] * values_PTK
        self.weight += float(weights_PT.sum())
        # A feature that does not fire has the value 0, so only the K active ones add to the sums.
        self._sums_N.index_add_(0, features, weighted_PTK.flatten())
        self._squares_N.index_add_(0, features, (weighted_PTK * values_PTK).flatten())

    @property
    def mean(self) -> Tensor:
        """m, the mean of each feature: float64 [N]; 0 if there are no samples.

        >>> spread = Spread(2)
        >>> spread.add(torch.tensor([[1.0, 0.0], [3.0, 5.0]]))
        >>> spread.mean.tolist()
        [2.0, 2.5]
        """
        return self._sums_N / max(self.weight, _TINY)

    @property
    def scatter(self) -> Tensor:
        """S, the sum of each feature's squared distances from its mean: float64 [N].

        >>> spread = Spread(1)
        >>> spread.add(torch.tensor([[1.0], [3.0], [5.0]]))
        >>> spread.scatter.tolist()  # the mean is 3
        [8.0]
        """
        return (self._squares_N - self.weight * self.mean.square()).clamp(min=0)  # rounding may go below 0

    def without(self, part: Spread) -> Spread:
        """Return the spread of all samples except those of `part`, which must all be in this spread.

        >>> whole, part = Spread(1), Spread(1)
        >>> whole.add(torch.tensor([[1.0], [3.0], [8.0]]))
        >>> part.add(torch.tensor([[8.0]]))
        >>> whole.without(part).mean.tolist()
        [2.0]
        """
        rest = Spread(len(self._sums_N))
        rest.weight = self.weight - part.weight
        rest._sums_N, rest._squares_N = self._sums_N - part._sums_N, self._squares_N - part._squares_N
        return rest


def effect_size(with_it: Spread, without: Spread) -> Tensor:
    """Return d of every feature, as defined above: float32 [N]; 0 for features that never fire.

    >>> high, low = Spread(2), Spread(2)
    >>> high.add(torch.tensor([[3.0, 0.0], [5.0, 0.0]]))
    >>> low.add(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    >>> [round(d, 4) for d in effect_size(high, low).tolist()]  # 2 / (sqrt(2) + sqrt(8 / 3)), and 0
    [0.6563, 0.0]
    """
    count = with_it.weight + without.weight
    difference_N = with_it.mean - without.mean
    within_N = with_it.scatter + without.scatter
    between_N = difference_N.square() * with_it.weight * without.weight / max(count, _TINY)
    variance_N = (within_N + between_N) / max(count - 1, _TINY)
    # Two samples have no pooled deviation; s0 alone then sets the scale.
    pooled_N = within_N / (count - 2) if count > 2 else torch.zeros_like(within_N)
    fires_N = (with_it._squares_N + without._squares_N) > 0
    s0 = variance_N[fires_N].mean().sqrt() if fires_N.any() else variance_N.new_zeros(())
    return (difference_N / (pooled_N.sqrt() + s0).clamp(min=_TINY)).float()


@dataclass(frozen=True)
class FoundFeature:
    """A feature, with its effect at the step where it distinguishes the two sides best."""

    hook_point: str
    feature: int
    label: str
    effect: float
    """Effect size d."""
    step: int
    """Step of the schedule, from 0."""
    mean_with: float
    mean_without: float
    """Means of the feature's value on the two sides at that step."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Effect sizes, and means on both sides, at one hook point: float32 [S, N], for S compared steps."""

    steps: tuple[int, ...]
    effect: Tensor
    mean_with: Tensor
    mean_without: Tensor


@dataclass(frozen=True, eq=False)
class Findings:
    """What distinguishes two sides, over all hook points and steps."""

    effects: Mapping[str, Effects]
    """Hook point -> its effect sizes."""
    total_steps: int
    """Number of steps of the schedule."""
    notes: Mapping[str, DictionaryNote]
    """Hook point -> what is known about its dictionary."""

    def best(self, count: int, hook_point: str = "") -> list[FoundFeature]:
        """Return the `count` features with the highest effect sizes, among all hook points or at one.

        Each feature is listed once, at its best step. Features with no effect size above 0 are left out.

        >>> d = torch.tensor([[0.0, 1.5, 2.0], [0.0, 3.0, 0.5]])
        >>> findings = Findings({"mid": Effects((0, 1), d, d, d)}, 2, {"mid": DictionaryNote(3, k=1)})
        >>> [(found.feature, found.effect, found.step) for found in findings.best(3)]
        [(1, 3.0, 1), (2, 2.0, 0)]
        """
        if hook_point and hook_point not in self.effects:
            raise RevelioError(
                f"Hook point {hook_point!r} was not compared; choose one of {', '.join(self.effects)}."
            )
        found = []
        for name in [hook_point] if hook_point else self.effects:
            here = self.effects[name]
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
        return sorted(found, key=lambda feature: -feature.effect)[:count]


def find_features(
    with_it: Trace, without: Trace | None = None, *, mask: Tensor | None = None, role: str = "cond"
) -> Findings:
    """Return the effect sizes of all features at every hook point and step that was recorded.

    With two traces, their images are compared, whose numbers may differ; a mask limits the comparison to its
    area. With one trace, the inside of the mask is compared with the outside.
    mask: [height, width] or [P, height, width] in 0..1, of any size.

    >>> codes = Codes(torch.tensor([[[2], [3]]]), torch.ones(1, 2, 1), n_features=4)
    >>> frame = Frame("mid", 0, 0, 1.0, 999.0, "cond", (1, 2), codes)
    >>> trace = Trace((frame,), {"mid": DictionaryNote(4, k=1)}, total_steps=1, sigmas=(1.0, 0.0))
    >>> [found.feature for found in find_features(trace, mask=torch.tensor([[1.0, 0.0]])).best(5)]
    [2]
    """
    if mask is not None:
        mask = checked_mask(mask)
    if without is None and mask is None:
        raise RevelioError(
            "There is nothing to compare with; connect a second trace without the concept, or a mask that "
            "shows where the concept is in this trace."
        )
    names = _common_hook_points(with_it, without)
    effects = {name: _effects(name, with_it, without, mask, role) for name in names}
    return Findings(effects, with_it.total_steps, with_it.dictionaries)


def check_same_steps(with_it: Trace, without: Trace) -> None:
    """Raise RevelioError if the schedules of two runs cannot be compared step by step.

    >>> twenty, thirty = (Trace((), {}, total_steps=steps, sigmas=()) for steps in (20, 30))
    >>> check_same_steps(twenty, thirty)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    comfy_revelio.errors.RevelioError: The two runs have 20 and 30 steps; ...
    """
    if with_it.total_steps != without.total_steps:
        raise RevelioError(
            f"The two runs have {with_it.total_steps} and {without.total_steps} steps; give both samplers "
            "the same number, so that they can be compared step by step."
        )


def _common_hook_points(with_it: Trace, without: Trace | None) -> list[str]:
    """Return the hook points that both traces recorded; raise if their SAEs or schedules differ."""
    if without is None:
        names = list(with_it.hook_points)
    else:
        names = [name for name in with_it.hook_points if name in without.hook_points]
        check_same_steps(with_it, without)
    if not names:
        raise RevelioError(
            "The two traces have no hook point in common; record both with the same SAEs."
            if without is not None and with_it.frames and without.frames
            else "A trace is empty: its sampler made no step with the recorded model; sample at least once."
        )
    for name in names:
        sizes = {trace.dictionaries[name].n_features for trace in (with_it, without) if trace is not None}
        if len(sizes) > 1:
            raise RevelioError(
                f"The two traces recorded {name} with different SAEs; record both with the same one."
            )
    return names


def _effects(name: str, with_it: Trace, without: Trace | None, mask: Tensor | None, role: str) -> Effects:
    """Return the effect sizes at one hook point, for the steps that both runs recorded."""
    frames = {frame.step: frame for frame in with_it.steps(name, role)}
    others = None if without is None else {frame.step: frame for frame in without.steps(name, role)}
    steps = tuple(step for step in frames if others is None or step in others)
    if not steps:
        raise RevelioError(f"The two runs recorded no step of {name} in common; record the same steps.")
    rows = []
    for step in steps:
        n = frames[step].codes.n_features
        high, low = Spread(n), Spread(n)
        if others is None:
            assert mask is not None
            _add_sides(high, low, frames[step], mask)
        else:
            high.add(_peaks(frames[step], mask))
            low.add(_peaks(others[step], mask))
        rows.append((effect_size(high, low), high.mean.float(), low.mean.float()))
    return Effects(steps, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _peaks(frame: Frame, mask: Tensor | None) -> Tensor:
    """Return each feature's maximum over each image's tokens inside the mask: [P, N]."""
    codes = frame.codes
    if mask is not None:
        inside_PT = mask_on_grid(mask.cpu(), frame.grid, range(frame.codes.shape[0]))
        codes = Codes(codes.indices, codes.values * inside_PT[..., None], codes.n_features)
    return codes.peaks()


def _add_sides(inside: Spread, outside: Spread, frame: Frame, mask: Tensor) -> None:
    """Add every token to both sides, weighted by the shares of its area inside and outside the mask."""
    weights_PT = mask_on_grid(mask.cpu(), frame.grid, range(frame.codes.shape[0]))
    for side, share_PT in ((inside, weights_PT), (outside, 1 - weights_PT)):
        if float(share_PT.sum()) < _TINY:
            raise RevelioError(
                "The mask is all white or all black in the image; paint the part that shows the concept "
                "white and leave the rest black."
            )
        side.add_tokens(frame.codes, share_PT)
