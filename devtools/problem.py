"""Report errors to users of `dev.py`: `Problem`, the kind of error they see, and `exit_code`."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable


class Problem(Exception):
    """An error in one sentence: what is wrong and what to do about it.

    `details` helps to find the cause (the end of a log, for example) and is shown above the sentence.
    """

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


def exit_code(work: Callable[[], int]) -> int:
    """Run a program and return its exit code; report an error as one sentence on stderr and return 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinding the stack ends started programs
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
