"""The state of one sampling run: its schedule, its roles and its progress.

A run begins when a guider starts to sample and ends when sampling returns or fails. A model call's step,
timestep and percent follow from its sigma; `roles.py` finds its role. None depends on counting calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...trace.sampler_steps import SAME_SIGMA
from .roles import Conditionings, Roles

PERCENT_BISECTIONS = 24


@dataclass(frozen=True)
class ModelCall:
    """One conditioning's part of one call of the model."""

    role: str
    """Role of the conditioning, such as "cond", "uncond" or "cond2"; see `roles.py`."""
    step: int
    """Index of the step in the schedule."""
    evaluation: int
    """How many earlier model calls had this role at this step."""
    sigma: float
    """Noise level on the sampler's scale."""
    timestep: float
    """Noise level on the network's scale."""
    percent: float
    """Progress through sampling in 0..1, on the scale of ComfyUI's start_percent and end_percent."""
    grid: tuple[int, ...]
    """(height, width) of the token grid, or (frames, height, width) for a video; (1, tokens) for text."""
    items: tuple[int, ...]
    """For each row, the index of its image in the latent batch."""
    prediction: int | None = None
    """Index of the sampler's prediction that this call is part of; None outside a sampler."""


class Run:
    """The state of one sampling run. Every run gets a new `Run`, so nothing carries over to the next run."""

    def __init__(
        self, sigmas: Sequence[float] = (), conditionings: Callable[[], Conditionings] = dict
    ) -> None:
        """sigmas: the schedule. conditionings: returns the guider's current `conds`."""
        self.sigmas = tuple(sigmas)
        self.conditionings = conditionings
        self.roles = Roles(conditionings)
        self._evaluations: dict[tuple[object, str, int], int] = {}
        self._percents: dict[float, float] = {}
        self._timesteps: dict[float, float] = {}
        self._prediction = -1
        self._predicting = False
        self._lock = threading.Lock()

    @classmethod
    def outside_sampler(cls, options: Mapping[str, Any]) -> Run:
        """Return a run for a model called outside a guider, with the schedule in `options`, if any."""
        sigmas = options.get("sample_sigmas")
        return cls(() if sigmas is None else sigmas.flatten().tolist())

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        # ModelPatcher.clone deep-copies its options (seen in ComfyUI 0.3.75); the clones share this run
        return self

    @property
    def total_steps(self) -> int:
        """Number of steps in the schedule; at least 1."""
        return max(len(self.sigmas) - 1, 1)

    def step_of(self, sigma: float) -> int:
        """Return the step of the schedule that `sigma` belongs to."""
        return step_of(sigma, self.sigmas)

    @property
    def prediction(self) -> int | None:
        """Index of the prediction that the sampler is waiting for; None outside a sampler."""
        return self._prediction if self._predicting else None

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Enclose the model calls, often several, that compute one prediction for the sampler.

        Every tap of the model enters this context, but only the outermost entry counts as a prediction.
        """
        if self._predicting:
            yield
            return
        self._prediction, self._predicting = self._prediction + 1, True
        try:
            yield
        finally:
            self._predicting = False

    def next_evaluation(self, tap: object, role: str, step: int) -> int:
        """Return how many earlier evaluations of `role` at `step` the tap saw, and count this evaluation."""
        with self._lock:
            seen = self._evaluations.get((tap, role, step), 0)
            self._evaluations[(tap, role, step)] = seen + 1
        return seen

    def percent_of(self, sigma: float, model_sampling: Any) -> float:
        """Return the progress through sampling at `sigma`, in 0..1."""
        if sigma not in self._percents:
            self._percents[sigma] = percent_of(sigma, model_sampling)
        return self._percents[sigma]

    def timestep_of(self, sigma: float, sigmas: Any, model_sampling: Any) -> float:
        """Return the network's timestep at `sigma`.

        sigmas: a one-dimensional tensor that starts with `sigma`, on the model's device.
        """
        if sigma not in self._timesteps:
            self._timesteps[sigma] = float(model_sampling.timestep(sigmas[:1]).flatten()[0])
        return self._timesteps[sigma]


def step_of(sigma: float, schedule: Sequence[float]) -> int:
    """Return the step whose interval in the schedule contains `sigma`.

    A schedule of n + 1 sigmas has n steps; step i runs from `schedule[i]` to `schedule[i + 1]`. Second-order
    samplers also evaluate at sigmas inside an interval; such a sigma belongs to that interval's step.

    >>> step_of(14.6, [14.6, 7.0, 1.0, 0.0]), step_of(9.9, [14.6, 7.0, 1.0, 0.0])
    (0, 0)
    >>> step_of(7.0, [14.6, 7.0, 1.0, 0.0])
    1
    """
    starts = schedule[:-1] or schedule  # the sigma at which each step starts
    for index, start in enumerate(starts):
        if abs(sigma - start) <= SAME_SIGMA * max(abs(start), abs(sigma)):
            return index
    for index, ends in enumerate(pairwise(schedule)):
        if min(ends) < sigma < max(ends):
            return index
    return min(range(len(starts)), key=lambda index: abs(starts[index] - sigma), default=0)


def percent_of(sigma: float, model_sampling: Any) -> float:
    """Return the percent at `sigma`, so that 0.3 here means the same as 0.3 in ComfyUI's own nodes.

    Inverts `model_sampling.percent_to_sigma` by bisection: not every sampling class has an inverse.
    """
    if sigma <= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(PERCENT_BISECTIONS):
        middle = (low + high) / 2
        if float(model_sampling.percent_to_sigma(middle)) >= sigma * (1 - SAME_SIGMA):
            low = middle
        else:
            high = middle
    return low
