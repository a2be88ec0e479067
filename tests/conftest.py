"""Makes the engine importable as `comfy_revelio` with the repository off the import path.

On the path, the pack's nodes/ would hide ComfyUI's own nodes.py from tests that use both.
"""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINE = REPOSITORY / "comfy_revelio"

# `python -m pytest` puts the current folder there.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != REPOSITORY]


def _load_engine() -> None:
    spec = importlib.util.spec_from_file_location(
        "comfy_revelio", ENGINE / "__init__.py", submodule_search_locations=[str(ENGINE)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfy_revelio"] = module
    spec.loader.exec_module(module)


if "comfy_revelio" not in sys.modules:
    _load_engine()
