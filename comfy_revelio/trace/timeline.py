"""How active features are at each step, as numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RevelioError
from .reading import Reading

MEASURES = ("mean", "peak", "share")


@dataclass(frozen=True, eq=False)
class Timeline:
    """Numbers of some features over the recorded steps of one run.

    steps: their numbers, from 0. sigmas: their noise levels. labels: of the features, "" where there is none.
    mean: over all places of the picture. peak: the value farthest from 0. share: of places, 0..1, at which
    the feature fires. Each of the three is float32 [features, steps].
    """

    features: tuple[int, ...]
    labels: tuple[str, ...]
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    total_steps: int
    mean: Tensor
    peak: Tensor
    share: Tensor

    def of(self, measure: str) -> Tensor:
        """One of the measures, [features, steps]; RevelioError for an unknown one."""
        if measure not in MEASURES:
            raise RevelioError(
                f"There is no measure {measure!r} of activity; choose one of {', '.join(MEASURES)}."
            )
        values: Tensor = getattr(self, measure)
        return values


def timeline(reading: Reading, features: Sequence[int]) -> Timeline:
    """The activity of features at every recorded step.

    Raises RevelioError for no features, and for what the trace does not hold.
    """
    if not features:
        raise RevelioError("There is no feature to follow; give at least one feature number.")
    rows = []
    for feature in features:
        flat = reading.maps(feature).flatten(1)
        peak = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]
        rows.append(torch.stack([flat.mean(1), peak, (flat != 0).float().mean(1)]))
    mean, peak, share = torch.stack(rows, dim=1)
    frames = reading.steps
    return Timeline(
        tuple(features),
        tuple(reading.note.label(feature) for feature in features),
        tuple(frame.step for frame in frames),
        tuple(frame.sigma for frame in frames),
        reading.trace.total_steps,
        mean,
        peak,
        share,
    )


def as_csv(runs: Sequence[Timeline]) -> str:
    """A line for each run, feature and step, under a header; steps are counted from 1 as in the figures.

    Columns: run, feature, label, step, sigma, mean, peak, share of places (0..1).
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("run", "feature", "label", "step", "sigma", *MEASURES))
    for number, run in enumerate(runs, start=1):
        for row, (feature, label) in enumerate(zip(run.features, run.labels, strict=True)):
            for column, (step, sigma) in enumerate(zip(run.steps, run.sigmas, strict=True)):
                values = (float(run.of(measure)[row, column]) for measure in MEASURES)
                lines.writerow((number, feature, label, step + 1, _short(sigma), *map(_short, values)))
    return text.getvalue()


def _short(value: float) -> str:
    return f"{value:.6g}"
