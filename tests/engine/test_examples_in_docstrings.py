"""The examples in docstrings (">>>") are true."""

from __future__ import annotations

import doctest
import importlib
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
