"""Arrows go down only: a room imports rooms below it, and no files import each other in a circle.

Imports are read from the source and not run, so lazy ones and those for types count too.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEVELS: Sequence[Sequence[str]] = (
    ["comfy_revelio/errors.py"],
    ["comfy_revelio/files"],
    ["comfy_revelio/hookpoints"],
    ["comfy_revelio/dictionary"],
    ["comfy_revelio/trace"],
    ["comfy_revelio/steering"],
    ["comfy_revelio/training"],
    ["comfy_revelio/analysis"],
    ["comfy_revelio/render"],
    ["comfy_revelio/host/__init__.py", "comfy_revelio/host/comfy_types.py"],
    ["comfy_revelio/host/sae_files.py", "comfy_revelio/host/standalone.py"],
    ["comfy_revelio/host/taps"],
    ["comfy_revelio/host/text", "comfy_revelio/host/steering.py", "comfy_revelio/host/transfer.py"],
    ["comfy_revelio/host/record"],
    ["comfy_revelio/host/learn", "comfy_revelio/host/mini", "comfy_revelio/host/web"],
    ["comfy_revelio/cli"],
    ["comfy_revelio/__init__.py", "comfy_revelio/__main__.py"],
    ["nodes", "devtools"],
    ["lab"],
    ["devtools/demo"],
)
"""Folders and files from bottom to top. A room may import itself and every room on the levels below. The demo
is a process of its own, which the dev command starts and which uses the lab."""

FORBIDDEN = (("nodes", "comfy_revelio/cli"), ("devtools", "comfy_revelio"), ("lab", "nodes"))
"""Further arrows that must not exist, although they go down."""

COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths",
           "latent_preview", "node_helpers", "nodes", "server"}  # fmt: skip
"""ComfyUI's own packages. In this repository nobody imports its folder `nodes` by an absolute name."""

COMFYUI_ROOMS = ("comfy_revelio/host", "nodes")
"""The rooms that may import ComfyUI."""


class Import(NamedTuple):
    importer: str
    """File with the import, relative to the root."""
    line: int
    imported: str
    """Imported file, relative to the root; the name of the package for ComfyUI's."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def layer_problems(root: Path, levels: Sequence[Sequence[str]] = LEVELS) -> list[str]:
    """One sentence for each import that runs the wrong way, and for each circle; both name files and line."""
    tops = {room.split("/")[0] for level in levels for room in level}
    imports = list(dict.fromkeys(read_imports(root, tops)))
    files = [file.relative_to(root).as_posix() for file in _sources(root, tops)]
    problems = [f"{file} belongs to no room of the table" for file in files if _level(file, levels) is None]
    problems += [f"{found}, {why}" for found in imports if (why := _objection(found, levels))]
    inside = [found for found in imports if found.imported not in COMFYUI]
    return problems + list(_circles(inside))


def read_imports(root: Path, tops: Collection[str]) -> Iterator[Import]:
    """Every import of a file of the repository, or of ComfyUI, in the top folders."""
    for file in _sources(root, tops):
        importer = file.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [(alias.name.split("."), "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = file.relative_to(root).parts[: -node.level] if node.level else ()
                module = (*parents, *(node.module.split(".") if node.module else ()))
                names = [(list(module), alias.name) for alias in node.names]
            else:
                continue
            absolute = isinstance(node, ast.Import) or node.level == 0
            for parts, name in names:
                if absolute and parts[0] in COMFYUI:
                    yield Import(importer, node.lineno, parts[0])
                elif found := _file(root, [*parts, name]) or _file(root, parts):
                    yield Import(importer, node.lineno, found)


def _sources(root: Path, tops: Collection[str]) -> list[Path]:
    return sorted(path for top in tops for path in (root / top).rglob("*.py"))


def _file(root: Path, parts: Sequence[str]) -> str | None:
    """The file of a module or package of the repository."""
    if not parts or not all(parts):
        return None
    path = root.joinpath(*parts)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file.relative_to(root).as_posix()
    return None


def _within(file: str, room: str) -> bool:
    return file == room or file.startswith(f"{room}/")


def _level(file: str, levels: Sequence[Sequence[str]]) -> tuple[int, str] | None:
    """The number of the level of a file, and its room there: the innermost one."""
    rooms = [(number, room) for number, level in enumerate(levels) for room in level if _within(file, room)]
    return max(rooms, key=lambda found: len(found[1]), default=None)


def _objection(found: Import, levels: Sequence[Sequence[str]]) -> str:
    """What is wrong with an import; "" for nothing."""
    if found.imported in COMFYUI:
        allowed = any(_within(found.importer, room) for room in COMFYUI_ROOMS)
        return "" if allowed else f"but only {' and '.join(COMFYUI_ROOMS)} may import ComfyUI"
    for room, below in FORBIDDEN:
        if _within(found.importer, room) and _within(found.imported, below):
            return f"but {room} must not import {below}"
    importer, imported = _level(found.importer, levels), _level(found.imported, levels)
    if importer is None or imported is None or importer == imported or importer[0] > imported[0]:
        return ""
    return f"but {imported[1]} is not below {importer[1]}"


def _circles(imports: Sequence[Import]) -> Iterator[str]:
    """A sentence on each circle: the shortest way back for every import, each once."""
    by_importer: dict[str, list[Import]] = {}
    for found in imports:
        by_importer.setdefault(found.importer, []).append(found)
    seen: set[frozenset[str]] = set()
    for first in imports:
        ways: dict[str, list[Import]] = {first.imported: [first]}
        queue = deque([first.imported])
        while queue and first.importer not in ways:
            for found in by_importer.get(file := queue.popleft(), []):
                if found.imported not in ways:
                    ways[found.imported] = [*ways[file], found]
                    queue.append(found.imported)
        way = ways.get(first.importer, [])
        files = {found.importer for found in way}
        if way and frozenset(files) not in seen:
            seen.add(frozenset(files))
            yield f"circle: {'; '.join(map(str, way))}"


def test_imports_of_all_rooms_are_read() -> None:
    arrows = {found[::2] for found in read_imports(ROOT, ["nodes", "lab", "devtools", "comfy_revelio"])}
    assert arrows > {
        ("nodes/steer.py", "comfy_revelio/host/steering.py"),
        ("lab/evaluate/measure.py", "comfy_revelio/host/sae_files.py"),
        ("comfy_revelio/host/steering.py", "comfy_revelio/steering/__init__.py"),
        ("comfy_revelio/host/taps/model.py", "comfy"),
        ("devtools/base.py", "devtools/places.py"),
    }


def test_arrows_go_down_only() -> None:
    problems = layer_problems(ROOT)
    assert not problems, "\n" + "\n".join(problems)


BELOW = (["low"], ["high"], ["app/cli.py", "app/host"])


def _tree(root: Path, **files: str) -> list[str]:
    """The problems of a made-up tree: `app_cli="import x"` is app/cli.py."""
    for name, source in files.items():
        file = root / f"{name.replace('_', '/', 1)}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return layer_problems(root, BELOW)


def test_imports_downwards_and_inside_a_room_are_right(tmp_path: Path) -> None:
    assert not _tree(
        tmp_path,
        low_a="import json",
        low_b="from .a import json",
        high_a="import low.a\nfrom low import b",
        app_cli="def main():\n    from high.a import low",
    )


@pytest.mark.parametrize(
    "source",
    ["from high.a import x", "import high.a", "from ..high import a", "from ..high.a import x"],
)
@pytest.mark.parametrize(
    "where",
    ["{}", "def work():\n    {}", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}"],
    ids=["at the top", "lazy", "for types"],
)
def test_an_import_upwards_names_both_files_and_the_line(tmp_path: Path, source: str, where: str) -> None:
    line = where.count("\n") + 1
    problems = _tree(tmp_path, high_a="x = 1", low_a=where.format(source))
    assert problems == [f"low/a.py:{line} imports high/a.py, but high is not below low"]


def test_rooms_of_one_level_are_apart(tmp_path: Path) -> None:
    problems = _tree(tmp_path, app_cli="x = 1", **{"app_host/x": "from ..cli import x"})
    assert problems == ["app/host/x.py:1 imports app/cli.py, but app/cli.py is not below app/host"]


@pytest.mark.parametrize("source", ["from . import b", "def work():\n    from .b import work"])
def test_a_circle_inside_a_room_names_its_files_and_lines(tmp_path: Path, source: str) -> None:
    problems = _tree(tmp_path, low_a=source, low_b="\nfrom .c import x", low_c="import low.a\nx = 1")
    line = source.count("\n") + 1
    ring = f"low/a.py:{line} imports low/b.py; low/b.py:2 imports low/c.py; low/c.py:1 imports low/a.py"
    assert problems == [f"circle: {ring}"]


@pytest.mark.parametrize(
    "source", ["import comfy.samplers", "from comfy_api.latest import io", "import nodes"]
)
def test_comfyui_is_for_the_host_only(tmp_path: Path, source: str) -> None:
    assert _tree(tmp_path, low_a=f"x = 1\n{source}") == [
        f"low/a.py:2 imports {source.split()[1].split('.')[0]}, "
        "but only comfy_revelio/host and nodes may import ComfyUI"
    ]


def test_arrows_that_must_not_exist_although_they_go_down(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "x.py").write_text("from ..nodes import y\n", encoding="utf-8")
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "y.py").write_text("", encoding="utf-8")
    problems = layer_problems(tmp_path, (["nodes"], ["lab"]))
    assert problems == ["lab/x.py:1 imports nodes/y.py, but lab must not import nodes"]


def test_a_room_inside_a_room_may_be_above_it(tmp_path: Path) -> None:
    (tmp_path / "devtools" / "demo").mkdir(parents=True)
    for name, source in (("start", "from .demo import run"), ("demo/run", "from lab import x")):
        (tmp_path / "devtools" / f"{name}.py").write_text(source, encoding="utf-8")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "x.py").write_text("", encoding="utf-8")
    problems = layer_problems(tmp_path, (["devtools"], ["lab"], ["devtools/demo"]))
    assert problems == [
        "devtools/start.py:1 imports devtools/demo/run.py, but devtools/demo is not below devtools"
    ]


def test_a_file_without_a_room_is_named(tmp_path: Path) -> None:
    assert _tree(tmp_path, app_new="", low_a="") == ["app/new.py belongs to no room of the table"]
