"""`dev.py test`: check lint, format and types in parallel, then run pytest with two workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .base import PACK_FOLDER, link_pack
from .places import ROOT, Places
from .problem import Problem
from .process import call, call_quietly

WORKERS = 2
"""How many processes pytest uses. More would start more ComfyUI servers, each with over 1 GB of memory."""

Check = Callable[[Places], tuple[int, str]]
"""A check returns its exit code and what it printed."""

PAGE_FILES = ("web/*.js", "web/explorer/*.{js,css}", "tests/web/*.mjs", "locales/*/main.json")


def everything(places: Places) -> int:
    """Run all checks, even after one has failed; raise a Problem that names the failed checks."""
    with ThreadPoolExecutor(len(LANES)) as pool:
        failed = [name for names in pool.map(lambda lane: _run_lane(places, lane), LANES) for name in names]
    failed += ["tests"] * (_pytest_in_parallel(places) != 0)
    if failed:
        raise Problem(f"Not passed: {', '.join(failed)}.")
    return 0


def pytest(places: Places, arguments: Sequence[str]) -> int:
    """Run the executable `pytest`, since `python -m pytest` would put the repository on the import path."""
    return _pytest(places, arguments, places.variables())


def _pytest_in_parallel(places: Places) -> int:
    """Run all tests in worker processes, each with its own session fixtures and one thread.

    The tests of one file stay in one process. With two threads per worker, all tests took 30 minutes of CPU
    time instead of 20, because the tensors are small.
    """
    workers = min(WORKERS, os.cpu_count() or 1)
    arguments = [f"--numprocesses={workers}", "--dist=loadfile", "--no-loadscope-reorder", "--durations=10"]
    return _pytest(places, arguments, {"OMP_NUM_THREADS": "1", **places.variables()})


def _pytest(places: Places, arguments: Sequence[str], env: dict[str, str]) -> int:
    print("\npytest", flush=True)
    return call([places.scripts / "pytest", *arguments], env=env, cwd=ROOT)


def _run_lane(places: Places, lane: Mapping[str, Check]) -> list[str]:
    """Run checks one after another, print the output of failed checks, and return their names."""
    failed = []
    for name, check in lane.items():
        code, printed = check(places)
        print(f"{name}: failed\n{printed.rstrip()}\n" if code else f"{name}: passed", flush=True)
        failed += [name] * (code != 0)
    return failed


def _lint(places: Places) -> tuple[int, str]:
    return call_quietly([places.scripts / "ruff", "check", "."], env=places.variables(), cwd=ROOT)


def _format(places: Places) -> tuple[int, str]:
    command = [places.scripts / "ruff", "format", "--check", "."]
    return call_quietly(command, env=places.variables(), cwd=ROOT)


def _tool_types(places: Places) -> tuple[int, str]:
    return _mypy(places, "dev.py", "devtools", "lab", "scripts", "benchmarks")


def _pack_types(places: Places) -> tuple[int, str]:
    """Check the pack as ComfyUI imports it: as one package, whatever the checkout's folder is called."""
    linked = places.dev / "types"
    link_pack(linked / PACK_FOLDER)
    packages = [f"--package={PACK_FOLDER}.{name}" for name in ("comfy_revelio", "nodes")]
    return _mypy(places, *packages, path=linked)


def _mypy(places: Places, *what: str, path: Path = ROOT) -> tuple[int, str]:
    """Run mypy in the folder `path`, which contains the packages to check."""
    fixed = [
        "--config-file",
        ROOT / "pyproject.toml",
        "--cache-dir",
        places.dev / "mypy",
        "--no-error-summary",
    ]
    return call_quietly([places.scripts / "mypy", *fixed, *what], env=places.variables(), cwd=path)


def _page_types(places: Places) -> tuple[int, str]:
    """Check the browser code against the types of ComfyUI's frontend, next to which a link puts the code."""
    link_pack(places.pages / "web", ROOT / "web")
    shutil.copy(ROOT / "devtools" / "pages" / "tsconfig.json", places.pages)
    compiler = places.pages / "node_modules" / "typescript" / "bin" / "tsc"
    command = ["node", compiler, "--project", places.pages]
    return call_quietly(command, env=places.variables(), cwd=places.pages)


def _page_format(places: Places) -> tuple[int, str]:
    prettier = places.pages / "node_modules" / "prettier" / "bin" / "prettier.cjs"
    options = ["--check", "--config", ROOT / "devtools" / "pages" / "prettier.json"]
    command = ["node", prettier, *options, *PAGE_FILES]
    return call_quietly(command, env=places.variables(), cwd=ROOT)


def _page_tests(places: Places) -> tuple[int, str]:
    files = sorted((ROOT / "tests" / "web").glob("*.test.mjs"))
    return call_quietly(["node", "--test", *files], env=places.variables(), cwd=ROOT)


LANES: tuple[dict[str, Check], ...] = (
    {"mypy: tools": _tool_types, "mypy: pack": _pack_types},  # one after the other, as they share a cache
    {
        "ruff check": _lint,
        "ruff format --check": _format,
        "tsc: pages": _page_types,
        "prettier --check: pages": _page_format,
        "node --test: pages": _page_tests,
    },
)
"""The checks that run before pytest, by name. Lanes run in parallel, the checks in a lane one by one."""
