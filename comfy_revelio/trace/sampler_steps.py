"""Evaluations that a sampler makes at the noise of its next step while it is still taking this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_AHEAD = 2  # Heun looks at one sigma ahead, Heun++ at two
SAME_SIGMA = 1e-4
"""Relative distance below which a sigma counts as a point of the schedule (float32 round trips through
exp(log(sigma)) in some samplers move it by about 1e-6)."""


def look_ahead(evaluations: Sequence[float], sigmas: Sequence[float]) -> dict[int, int]:
    """The evaluations that belong to an earlier step than their noise says: number -> that step.

    evaluations: sigma of each evaluation of one run, in order; sigmas: the schedule, falling.
    Heun's corrector is evaluated at the sigma where the next step begins, and that step then evaluates the
    same sigma once more. So the last evaluation at a point of the schedule is the step's own, and one before
    it belongs to the step that was being taken then. Empty where the schedule is not walked through in order,
    or is gone through again (restarts): where more are early than any sampler looks ahead.
    """
    at: dict[int, list[int]] = {}
    for number, sigma in enumerate(evaluations):
        for step, point in enumerate(sigmas[:-1]):
            if abs(sigma - point) <= SAME_SIGMA * max(abs(sigma), abs(point)):
                at.setdefault(step, []).append(number)
                break
    own = {step: numbers[-1] for step, numbers in sorted(at.items())}
    if list(own.values()) != sorted(own.values()):
        return {}
    earlier: dict[int, int] = {}
    for step, numbers in at.items():
        for number in numbers[:-1]:
            begun = [other for other, first in own.items() if first < number and other < step]
            if begun:
                earlier[number] = max(begun)
    return earlier if max(Counter(earlier.values()).values(), default=0) <= MOST_AHEAD else {}
