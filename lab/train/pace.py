"""Set the length of a training run and its learning rate."""

from __future__ import annotations

import time

import torch


class Pace:
    """The number of steps in a run: fixed, or set from the measured speed so that the run takes `minutes`."""

    def __init__(self, steps: int, minutes: float | None, device: str, *, start: int = 0) -> None:
        self.steps, self.minutes, self.device, self.start = steps, minutes, device, start
        self._clock = 0.0

    def tick(self, step: int) -> bool:
        """Return whether this call set the number of steps; call after each step (20 to 60 are timed)."""
        if self.minutes is None or step - self.start not in (20, 60):
            return False
        if self.device != "cpu":
            torch.cuda.synchronize()
        if step - self.start == 20:
            self._clock = time.monotonic()
            return False
        seconds = (time.monotonic() - self._clock) / 40
        self.steps, self.minutes = max(step + 1, int(self.minutes * 60 / seconds)), None
        return True


def learning_rate(peak: float, step: int, steps: int, *, warm_up: int = 300, hold: float = 0.4) -> float:
    """Return the learning rate of `step`. It warms up linearly (at most a tenth of the run), stays at `peak`
    until the share `hold` of the run is done, and then falls linearly to peak / 1000."""
    share, warm_up = step / steps, min(warm_up, max(1, steps // 10))
    return peak * min(1.0, step / warm_up) * (1.0 if share < hold else max(1e-3, (1 - share) / (1 - hold)))
