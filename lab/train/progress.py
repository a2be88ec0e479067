"""Print lines of progress for a long run in a terminal."""

from __future__ import annotations

import time


class Progress:
    """Prints `name  step/total  rate  numbers  time left`, at most every `every` seconds."""

    def __init__(self, name: str, total: int, *, start: int = 0, every: float = 10.0) -> None:
        self.name, self.total, self.start, self.every = name, total, start, every
        self.started = self.printed = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to print a line now; ask this before computing numbers that need a GPU synchronisation."""
        return step == self.total or time.monotonic() - self.printed >= self.every

    def line(self, step: int, **numbers: float) -> None:
        self.printed = time.monotonic()
        rate = (step - self.start) / max(self.printed - self.started, 1e-9)
        left = (self.total - step) / max(rate, 1e-9)
        text = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        print(f"{self.name}  {step}/{self.total}  {rate:.1f}/s  {text}  {left:.0f} s left", flush=True)
