"""Trace files: saved to ComfyUI's output folder, listed from the output and the input folder."""

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
"""ComfyUI's suffixes for the folder that a file is in: "name [output]"."""


def save(trace: Trace, prefix: str) -> str:
    """Save a trace under the next free number of `prefix` in the output folder; returns its name for `load`.

    prefix: as for Save Image, with folders, %year% and the like. Raises RevelioError when it leads out of the
    output folder or cannot be written.
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
    """Names of all traces, newest first."""
    found: list[tuple[float, str]] = []
    for mark in (OUTPUT, INPUT):
        root = _root(mark)
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder, file)
                if file.endswith(EXTENSION) and _problem(path) is None:
                    name = path.relative_to(root).as_posix() + mark
                    with suppress(OSError):  # deleted just now
                        found.append((path.stat().st_mtime, name))
    return [name for _, name in sorted(found, reverse=True)]


def path_of(name: str) -> Path:
    """The file of a trace called "name [output]" or "name [input]"; RevelioError when there is none."""
    mark = next((mark for mark in (OUTPUT, INPUT) if name.endswith(mark)), "")
    root = _root(mark or INPUT)
    relative = name.removesuffix(mark)
    if relative:
        _check_inside(root, relative)
    path = Path(root, relative)
    if not relative or not os.path.isfile(path):  # Path.is_file raises where a name is too long
        raise RevelioError(
            f'There is no trace "{name[:200]}"; save one with Save Trace, or put its file into the input '
            "folder, and choose it from the list."
        )
    return path


def check(name: str) -> str | None:
    """None when `name` is a trace, else a sentence that says why not."""
    try:
        return _problem(path_of(name))
    except RevelioError as problem:
        return str(problem)


def fingerprint(name: str) -> str:
    """Changes when the file does: its size and modification time."""
    try:
        stat = path_of(name).stat()
    except (RevelioError, OSError):
        return "missing"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def load(name: str) -> Trace:
    """The saved trace called `name`; RevelioError when it is missing, broken or not a trace."""
    return Trace.load(path_of(name))


def _root(mark: str) -> str:
    return folder_paths.get_output_directory() if mark == OUTPUT else folder_paths.get_input_directory()


def _check_inside(root: str, relative: str) -> None:
    """Refuse names that lead out of ComfyUI's folder: workflows come from strangers."""
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
    """Why the file is not a trace; remembered until it changes, as every page load builds the list."""
    try:
        save_load.check_file(path)
    except RevelioError as problem:
        return str(problem)
    return None
