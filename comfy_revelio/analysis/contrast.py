"""Finding the features of a concept by contrast: generations with it against without it.

For each generation, each feature's maximum over all tokens (and steps); m+ and m- are the means of
that over the generations with and without the concept. Features are ranked by m+ - m- among those
whose score = (m+ - m-) / (m+ + m- + eps) is high enough. Runs of any number: what is kept is
one sum per feature and, if asked for, one map per feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionary import Codes
from ..errors import RevelioError
from ..steering.concept import rank_contrast
from ..trace import Trace


@dataclass(frozen=True)
class ContrastedFeature:
    """One feature told apart by a contrast. score: -1..1."""

    feature: int
    score: float
    mean_with: float
    mean_without: float

    @property
    def difference(self) -> float:
        return self.mean_with - self.mean_without


class FeaturePeaks:
    """Running means, over generations, of each feature's maximum over tokens, and its mean map.

    grid: (height, width) to also keep mean maps [n, height, width] on; None for no maps.
    """

    def __init__(
        self, n_features: int, *, grid: tuple[int, int] | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.n_features = n_features
        self.grid = grid
        self.items = 0
        self._peaks = torch.zeros(n_features, dtype=torch.float32, device=device)
        self._maps = None if grid is None else torch.zeros(n_features, grid[0] * grid[1], device=device)
        self._layers = 0

    def add(self, codes: Codes | Iterable[Codes]) -> None:
        """Count generations: codes [items, ..., tokens, k], or one such for each step of theirs.

        All steps of a generation must come in one call: its maximum is taken over them.
        """
        steps = [codes] if isinstance(codes, Codes) else list(codes)
        if not steps:
            return
        best: Tensor | None = None
        for step in steps:
            self._check(step)
            peaks = step.peaks().to(self._peaks.device)
            best = peaks if best is None else torch.maximum(best, peaks)
            self._add_to_maps(step)
        assert best is not None
        self._peaks += best.sum(0)
        self.items += len(best)

    def add_trace(self, trace: Trace, hook_point: str, role: str = "cond") -> None:
        """Count the batch items of a trace, over all its recorded steps."""
        self.add([frame.codes for frame in trace.steps(hook_point, role)])

    def mean_peak(self) -> Tensor:
        """Mean over generations of each feature's maximum: float32 [n]."""
        if not self.items:
            raise RevelioError("There are no generations to compare; give at least one on each side.")
        return self._peaks / self.items

    def mean_map(self) -> Tensor:
        """Mean value of each feature in each cell: float32 [n, height, width]."""
        if self._maps is None or self.grid is None:
            raise RevelioError("No maps were kept; give the grid when the counting starts.")
        return (self._maps / max(1, self._layers)).reshape(-1, *self.grid)

    def _check(self, codes: Codes) -> None:
        if codes.n_features != self.n_features:
            raise RevelioError(
                f"These codes are of a dictionary with {codes.n_features} features, not {self.n_features}."
            )
        if len(codes.shape) < 2:
            raise RevelioError(
                f"Codes to compare must be [items, tokens, k], not {list(codes.indices.shape)}."
            )

    def _add_to_maps(self, codes: Codes) -> None:
        if self._maps is None:
            return
        cells, device = self._maps.shape[1], self._maps.device
        if codes.shape[-1] != cells:
            raise RevelioError(f"Codes of {codes.shape[-1]} tokens do not lie on the grid {self.grid}.")
        cell = torch.arange(cells, device=device)[:, None]
        where = (codes.indices.to(device) * cells + cell).flatten()
        self._maps.view(-1).index_add_(0, where, codes.values.to(device).flatten())
        self._layers += codes.shape[:-1].numel()


def contrast(
    with_concept: FeaturePeaks | Codes | Trace | Iterable[Codes | Trace],
    without_concept: FeaturePeaks | Codes | Trace | Iterable[Codes | Trace],
    *,
    hook_point: str = "",
    role: str = "cond",
    count: int = 16,
    min_score: float = 0.0,
) -> list[ContrastedFeature]:
    """The features that tell generations with a concept from those without, strongest first.

    Each side is running means already taken, or codes [items, ..., tokens, k], or traces, or any
    number of these; they are gone through once. hook_point and role choose what is read of traces.
    """
    return rank(
        _gathered(with_concept, hook_point, role),
        _gathered(without_concept, hook_point, role),
        count=count,
        min_score=min_score,
    )


def rank(
    with_concept: FeaturePeaks, without_concept: FeaturePeaks, *, count: int = 16, min_score: float = 0.0
) -> list[ContrastedFeature]:
    """At most `count` features by m+ - m-, among those with m+ > m- and score > min_score."""
    if with_concept.n_features != without_concept.n_features:
        raise RevelioError("The two sides come from different dictionaries; record both with the same one.")
    found = rank_contrast(
        with_concept.mean_peak().cpu(), without_concept.mean_peak().cpu(), count=count, min_score=min_score
    )
    columns = (found.features, found.scores, found.mean_with, found.mean_without)
    return [ContrastedFeature(*row) for row in zip(*columns, strict=True)]


def _gathered(
    side: FeaturePeaks | Codes | Trace | Iterable[Codes | Trace], hook_point: str, role: str
) -> FeaturePeaks:
    if isinstance(side, FeaturePeaks):
        return side
    peaks: FeaturePeaks | None = None
    for part in [side] if isinstance(side, Codes | Trace) else side:
        if isinstance(part, Trace):
            frames = part.steps(hook_point or _only_hook_point(part), role)
            steps = [frame.codes for frame in frames]
        else:
            steps = [part]
        peaks = peaks or FeaturePeaks(steps[0].n_features)
        peaks.add(steps)
    if peaks is None:
        raise RevelioError("There are no generations to compare; give at least one on each side.")
    return peaks


def _only_hook_point(trace: Trace) -> str:
    if len(trace.hook_points) != 1:
        raise RevelioError(
            f"Say which hook point to compare: {', '.join(trace.hook_points) or 'none recorded'}."
        )
    return trace.hook_points[0]
