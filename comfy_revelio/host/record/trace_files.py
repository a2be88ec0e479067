"""Trace files: save traces in ComfyUI's output folder; list and load those in output and input."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import folder_paths

from ...errors import RevelioError
from ...trace import Trace, save_load

EXTENSION = ".safetensors"
OUTPUT, INPUT = " [output]", " [input]"
"""ComfyUI's suffixes for the folder that a file is in, as in "name [output]"."""


def save(trace: Trace, prefix: str) -> str:
    """Save a trace in the output folder and return the name by which `load` finds it.

    prefix: as for Save Image, may contain folders, %year% and the like; the next free number is appended.
    Raises RevelioError if the prefix leads out of the output folder or the file cannot be written.
    """
    wanted = prefix.strip()
    if not wanted or wanted.endswith(("/", "\\")):
        raise RevelioError(f"{prefix!r} does not name a file; write a name such as revelio/trace.")
    root = folder_paths.get_output_directory()
    _check_inside(root, wanted)
    try:
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(wanted, root)
    except OSError as problem:
        raise RevelioError(
            f"Nothing can be saved as {wanted!r} in the output folder ({problem.strerror}); choose another "
            "name."
        ) from None
    file = f"{name}_{number:05}_{EXTENSION}"
    trace.save(Path(folder) / file)
    return Path(subfolder, file).as_posix() + OUTPUT


def listing() -> list[str]:
    """Return the names of all saved traces, newest first."""
    found: list[tuple[float, str]] = []
    for mark in (OUTPUT, INPUT):
        root = _root(mark)
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder, file)
                if file.endswith(EXTENSION) and _problem(path) is None:
                    name = path.relative_to(root).as_posix() + mark
                    with suppress(OSError):  # the file was deleted just now
                        found.append((path.stat().st_mtime, name))
    return [name for _, name in sorted(found, reverse=True)]


def path_of(name: str) -> Path:
    """Return the path of the trace "name [output]" or "name [input]"; raise RevelioError if missing."""
    mark = next((mark for mark in (OUTPUT, INPUT) if name.endswith(mark)), "")
    root = _root(mark or INPUT)
    relative = name.removesuffix(mark)
    if relative:
        _check_inside(root, relative)
    path = Path(root, relative)
    if not relative or not os.path.isfile(path):  # Path.is_file would raise for a name that is too long
        raise RevelioError(
            f'There is no trace "{name[:200]}"; save one with Save Trace, or put its file into the input '
            "folder, and choose it from the list."
        )
    return path


def check(name: str) -> str | None:
    """Return None if `name` is a trace, else a sentence that explains why it is not."""
    try:
        return _problem(path_of(name))
    except RevelioError as problem:
        return str(problem)


def fingerprint(name: str) -> str:
    """Return a fingerprint (size and modification time) that changes whenever the file does."""
    try:
        stat = path_of(name).stat()
    except (RevelioError, OSError):
        return "missing"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def load(name: str) -> Trace:
    """Load the saved trace called `name`; raise RevelioError if it is missing, broken or not a trace."""
    return Trace.load(path_of(name))


def _root(mark: str) -> str:
    return folder_paths.get_output_directory() if mark == OUTPUT else folder_paths.get_input_directory()


def _check_inside(root: str, relative: str) -> None:
    """Refuse a name that leads out of the folder `root`, because a workflow may come from a stranger."""
    full = os.path.abspath(os.path.join(root, relative))
    if os.path.isabs(relative) or not full.startswith(os.path.abspath(root) + os.sep):
        raise RevelioError(f"{relative!r} is outside ComfyUI's folders; choose a name inside them.")


def _problem(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError as problem:
        return f"{path.name} cannot be read ({problem.strerror}); check the file."
    return _problem_of(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _problem_of(path: str, _size: int, _modified: int) -> str | None:
    """Return why the file is not a trace, or None if it is; cached, as every page load asks for all files."""
    try:
        save_load.check_file(path)
    except RevelioError as problem:
        return str(problem)
    return None
