"""The one kind of error that a user of `dev.py` sees, and how it is reported."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable


class Problem(Exception):
    """An error in one sentence: what is wrong and what to do about it.

    `details` is what helps to find the cause, such as the end of a log; it is shown above the sentence.
    """

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


def exit_code(work: Callable[[], int]) -> int:
    """Run a whole program; an error becomes one sentence on stderr and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that all started programs end
    try:
        return work()
    except Problem as problem:
        if problem.details:
            print(problem.details, file=sys.stderr)
        return _fail(str(problem))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail("The disk is full: free some space and try again.")
        return _fail(f"{error.strerror or error}: {error.filename}." if error.filename else f"{error}.")
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def _fail(sentence: str) -> int:
    sys.stdout.flush()
    print(f"error: {sentence}", file=sys.stderr)
    return 1
