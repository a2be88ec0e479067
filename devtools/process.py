"""Start other programs: commands that the user sees, and long installations that write to a log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .problem import Problem

TAIL_LINES = 25


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, or "" if there is no log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def call(command: Sequence[object], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run a command in the foreground, return its exit code; if the call is interrupted, end the command.

    command: program and arguments, each given as text or as a path.
    """
    process = _start(command, env=env, cwd=cwd)
    try:
        return process.wait()
    except BaseException as reason:
        _end(process, reason)
        raise


def call_quietly(
    command: Sequence[object], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str]:
    """Run a command as `call` does, but without showing its output; return (exit code, output)."""
    process = _start(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        printed, _ = process.communicate()
    except BaseException as reason:
        _end(process, reason)
        raise
    return process.returncode, printed.decode("utf-8", errors="replace")


def install(
    title: str,
    command: Sequence[object],
    log: Path,
    *,
    on_failure: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command, write its output to `log`, and print when it starts and how long it took.

    Raises Problem with the sentence `on_failure`, or with the actual reason if the log contains it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{title} ...", flush=True)
    started = time.monotonic()
    with log.open("wb") as out:
        process = _start(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            code = process.wait()
        except BaseException as reason:
            _end(process, reason)
            raise
    if code != 0:
        raise Problem(_reason(log) or f"{on_failure} (exit code {code}); the log is {log}.", tail(log, 10))
    print(f"  done in {time.monotonic() - started:.0f} s", flush=True)


def _reason(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    if "No space left on device" in text or "ENOSPC" in text or "not enough space on the disk" in text:
        return f"The disk is full: free some space and try again; the log is {log}."
    return ""


def _start(command: Sequence[object], **options: object) -> subprocess.Popen[bytes]:
    sys.stdout.flush()
    try:
        return subprocess.Popen([str(part) for part in command], **options)  # type: ignore[call-overload]
    except FileNotFoundError:
        raise Problem(f"The program {command[0]} was not found; is it installed?") from None
    except PermissionError:
        raise Problem(f"The program {command[0]} cannot be started; is it an executable file?") from None


def _end(process: subprocess.Popen[bytes], reason: BaseException) -> None:
    """End a program whose caller can no longer wait for it."""
    if not isinstance(reason, KeyboardInterrupt):  # Ctrl-C has reached the program too: let it clean up
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
