"""Estimate how long the demo still takes: known times of its steps, scaled to this machine's speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One part of the demo and how long it takes."""

    name: str
    seconds: float
    """How long the step takes on the reference machine, with 2 cores and nothing else running."""
    scales: bool = True
    """Whether the step takes longer on a slower machine; False for a fixed time or a wait for disks."""


class Estimate:
    """Estimates the time left for a list of steps that run in order.

    The scale is the time that the finished steps took divided by their `seconds`; 1 if none has finished.
    A step that takes longer than expected raises the scale even before it ends.
    clock: returns seconds, as `time.monotonic` does.
    """

    def __init__(self, steps: Sequence[Step], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = list(steps)
        self._clock = clock
        self._started = clock()
        self._step_started = self._started
        self._current: Step | None = None
        self._took = 0.0
        self._cost = 0.0

    @property
    def current(self) -> str:
        """The name of the current step; empty between steps."""
        return self._current.name if self._current else ""

    @property
    def elapsed(self) -> float:
        """Seconds since this object was created."""
        return self._clock() - self._started

    @property
    def scale(self) -> float:
        """How many times as long the work takes here as on the reference machine."""
        finished = self._took / self._cost if self._cost else 1.0
        if self._current is None or not self._current.scales:
            return finished
        cost = self._cost + self._current.seconds
        return max(finished, (self._took + self._in_step()) / cost) if cost else finished

    def begin(self, name: str) -> None:
        """Start the next step called `name`; any steps before it are skipped."""
        self.end()
        while self._steps:
            step = self._steps.pop(0)
            if step.name == name:
                self._current, self._step_started = step, self._clock()
                return
        raise ValueError(f"No step {name!r} is left.")

    def end(self) -> None:
        """End the current step, if there is one, and count its time."""
        if self._current is not None and self._current.scales:
            self._took += self._in_step()
            self._cost += self._current.seconds
        self._current = None

    def left(self) -> float:
        """Return the estimated seconds until the last step is done."""
        scale = self.scale
        left = sum(step.seconds * (scale if step.scales else 1.0) for step in self._steps)
        if self._current is not None:
            needs = self._current.seconds * (scale if self._current.scales else 1.0)
            left += max(needs - self._in_step(), 0.0)
        return left

    def share(self) -> float:
        """Return the share of the total time that has passed, 0..1."""
        whole = self.elapsed + self.left()
        return self.elapsed / whole if whole else 1.0

    def _in_step(self) -> float:
        return self._clock() - self._step_started


def duration(seconds: float) -> str:
    """Write a time as people say it: 40 s, 2 min 10 s, 12 min."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 297.5:
        minutes, rest = divmod(10 * round(seconds / 10), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{round(seconds / 60)} min"
