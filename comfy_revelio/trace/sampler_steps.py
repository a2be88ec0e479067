"""Find evaluations that a sampler makes for the current step at the noise level of a later step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_AHEAD = 2  # Heun looks ahead by one sigma, Heun++ by two
SAME_SIGMA = 1e-4
"""A sigma within this relative distance of a point of the schedule counts as that point (in some samplers, a
float32 round trip through exp(log(sigma)) moves sigma by about 1e-6)."""


def look_ahead(evaluations: Sequence[float], sigmas: Sequence[float]) -> dict[int, int]:
    """Return {evaluation: step} for evaluations that belong to an earlier step than their sigma suggests.

    evaluations: the sigma of each evaluation of a run, in order. sigmas: the schedule, decreasing.
    Heun's corrector is evaluated at the sigma where the next step begins, and that step then evaluates the
    same sigma again. So the last evaluation at a point of the schedule belongs to the step that begins there,
    and the ones before belong to an earlier step. The result is empty if the sampler does not follow the
    schedule in order, or repeats parts of it (after restarts, too many evaluations would look ahead).

    >>> look_ahead([3.0, 2.0, 2.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0])  # Heun
    {1: 0, 3: 1}
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
