"""Compute timelines (the activity of features at each step), and write them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import RevelioError
from .reading import Reading

Measure = Literal["mean", "peak", "share"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True, eq=False)
class Timeline:
    """The activity of some features over the recorded steps of one run."""

    features: tuple[int, ...]
    labels: tuple[str, ...]
    """The label of each feature; "" if it has none."""
    steps: tuple[int, ...]
    """The recorded steps, counted from 0."""
    sigmas: tuple[float, ...]
    """The noise level of each recorded step."""
    total_steps: int
    mean: Tensor
    """Mean code over all tokens: float32 [features, steps]."""
    peak: Tensor
    """The code farthest from 0: float32 [features, steps]."""
    share: Tensor
    """Share of tokens on which the feature fires, 0..1: float32 [features, steps]."""

    def of(self, measure: Measure) -> Tensor:
        """Return the values of a measure: [features, steps]."""
        if measure not in MEASURES:
            raise RevelioError(f"Unknown measure {measure!r}; choose one of {', '.join(MEASURES)}.")
        values: Tensor = getattr(self, measure)
        return values


def timeline(reading: Reading, features: Sequence[int]) -> Timeline:
    """Compute the activity of some features at every recorded step."""
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
    """Return CSV text with a line for each run, feature and step; steps count from 1, as in the figures.

    Columns: run, feature, label, step, sigma, mean, peak, share of tokens (0..1).
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
