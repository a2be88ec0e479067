"""`dev.py test`: lint, format, types, and pytest last."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .base import PACK_FOLDER, link_pack
from .places import ROOT, Places
from .problem import Problem
from .process import call

PAGE_FILES = ("web/*.js", "web/explorer/*.{js,css}", "tests/web/*.mjs", "locales/*/main.json")


def everything(places: Places) -> int:
    """All checks, also after one has failed; raises Problem naming those which did."""
    failed = [name for name, check in CHECKS if check(places) != 0]
    failed += ["tests"] * (pytest(places, []) != 0)
    if failed:
        raise Problem(f"Not passed: {', '.join(failed)}.")
    return 0


def pytest(places: Places, arguments: Sequence[str]) -> int:
    """Its own executable and not `python -m pytest`, which would put the repository on the import path."""
    print("\npytest", flush=True)
    return call([places.scripts / "pytest", *arguments], env=places.variables(), cwd=ROOT)


def _lint(places: Places) -> int:
    print("\nruff check", flush=True)
    return call([places.scripts / "ruff", "check", "."], env=places.variables(), cwd=ROOT)


def _format(places: Places) -> int:
    print("\nruff format --check", flush=True)
    return call([places.scripts / "ruff", "format", "--check", "."], env=places.variables(), cwd=ROOT)


def _tool_types(places: Places) -> int:
    print("\nmypy: tools", flush=True)
    return _mypy(places, "dev.py", "devtools", "lab", "examples")


def _pack_types(places: Places) -> int:
    """The pack as ComfyUI sees it: one package, whatever the folder of the checkout is called."""
    print("\nmypy: pack", flush=True)
    linked = places.dev / "types"
    link_pack(linked / PACK_FOLDER)
    packages = [f"--package={PACK_FOLDER}.{name}" for name in ("comfy_revelio", "nodes")]
    return _mypy(places, *packages, path=linked)


def _mypy(places: Places, *what: str, path: Path = ROOT) -> int:
    """Check from the folder `path`, where the packages to check are found."""
    fixed = [
        "--config-file",
        ROOT / "pyproject.toml",
        "--cache-dir",
        places.dev / "mypy",
        "--no-error-summary",
    ]
    return call([places.scripts / "mypy", *fixed, *what], env=places.variables(), cwd=path)


def _page_types(places: Places) -> int:
    """The browser code against the types of ComfyUI's frontend, beside which it is linked."""
    print("\ntsc: pages", flush=True)
    link_pack(places.pages / "web", ROOT / "web")
    shutil.copy(ROOT / "devtools" / "pages" / "tsconfig.json", places.pages)
    compiler = places.pages / "node_modules" / "typescript" / "bin" / "tsc"
    return call(["node", compiler, "--project", places.pages], env=places.variables(), cwd=places.pages)


def _page_format(places: Places) -> int:
    print("\nprettier --check: pages", flush=True)
    prettier = places.pages / "node_modules" / "prettier" / "bin" / "prettier.cjs"
    options = ["--check", "--config", ROOT / "devtools" / "pages" / "prettier.json"]
    return call(["node", prettier, *options, *PAGE_FILES], env=places.variables(), cwd=ROOT)


def _page_tests(places: Places) -> int:
    print("\nnode --test: pages", flush=True)
    files = sorted((ROOT / "tests" / "web").glob("*.test.mjs"))
    return call(["node", "--test", *files], env=places.variables(), cwd=ROOT)


CHECKS = (
    ("lint", _lint),
    ("format", _format),
    ("types of the tools", _tool_types),
    ("types of the pack", _pack_types),
    ("types of the pages", _page_types),
    ("format of the pages", _page_format),
    ("tests of the pages", _page_tests),
)
