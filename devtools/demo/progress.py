"""Show the demo's progress and the time left on one line."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any, TextIO

from .estimate import Estimate, duration

ON_A_TERMINAL, ELSEWHERE = 1.0, 15.0
"""Seconds between updates: on a terminal, where one line is rewritten; elsewhere, where lines are added."""


class Progress:
    """A context manager that shows the current step of an estimate and the time left.

    stream: where to write. On a terminal, one line is rewritten; elsewhere, a line is added every 15 seconds.
    """

    def __init__(
        self, estimate: Estimate, *, stream: TextIO | None = None, interval: float | None = None
    ) -> None:
        self.estimate = estimate
        self._stream = stream or sys.stdout
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        self._interval = interval or (ON_A_TERMINAL if self._bar is not None else ELSEWHERE)
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def begin(self, name: str) -> None:
        """Start the estimate's next step called `name`."""
        with self._writing:
            self.estimate.begin(name)
        if self._bar is not None:
            self._show()

    def say(self, text: str) -> None:
        """Print a separate line above the progress."""
        with self._writing:
            if self._bar is None:
                print(text, file=self._stream, flush=True)
            else:
                self._bar.write(text, file=self._stream)

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self._show()

    def _show(self) -> None:
        with self._writing:
            if not self.estimate.current:
                return
            if self._bar is None:
                print(f"  {line(self.estimate)}", file=self._stream, flush=True)
                return
            self._bar.n = round(self.estimate.share(), 3)
            self._bar.set_description_str(self.estimate.current, refresh=False)
            self._bar.set_postfix_str(f"about {duration(self.estimate.left())} left")


def line(estimate: Estimate) -> str:
    """Describe the current step, the share that is done, and the time left."""
    return f"{estimate.current}: {estimate.share():.0%}, about {duration(estimate.left())} left"


def _bar(stream: TextIO) -> Any:
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar:24}| {postfix}"
    return tqdm(total=1.0, bar_format=form, file=stream, leave=False, dynamic_ncols=True)
