"""Makes the engine importable as `comfy_revelio`, and `lab`, with the repository off the import path.

On the path, the pack's nodes/ would hide ComfyUI's own nodes.py from tests that use both.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the current folder there.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != REPOSITORY]


def _load(name: str) -> None:
    """The package in the folder `name` of the repository."""
    folder = REPOSITORY / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


for package in ("comfy_revelio", "devtools", "lab"):
    if package not in sys.modules:
        _load(package)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, begin with the file that takes longest: last, it would leave the other worker idle."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name != "test_workflows.py")
