"""The examples in docstrings (">>>") are true, and every function of the mathematical files has one."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import comfy_revelio

_ROOT = Path(comfy_revelio.__file__).parent
MODULES = sorted(
    "comfy_revelio." + ".".join(file.relative_to(_ROOT).with_suffix("").parts)
    for file in _ROOT.rglob("*.py")
    if ">>>" in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted and not result.failed


MATHEMATICAL = (
    "dictionary/dictionary.py",
    "dictionary/codes.py",
    "steering/apply.py",
    "steering/modes.py",
    "analysis/contrast.py",
    "analysis/word_maps.py",
)


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the public functions and methods with their names."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node


@pytest.mark.parametrize("file", MATHEMATICAL)
def test_every_public_function_of_a_mathematical_file_has_an_example(file: str) -> None:
    functions = dict(_functions(ast.parse((_ROOT / file).read_text(encoding="utf-8")).body))
    missing = [name for name, node in functions.items() if ">>>" not in (ast.get_docstring(node) or "")]
    assert functions and not missing, f"no example in {file}: {', '.join(missing)}"
