"""Makes `devtools` importable by its own name without putting the repository on the import path."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "devtools"

if "devtools" not in sys.modules:
    spec = importlib.util.spec_from_file_location("devtools", FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["devtools"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["devtools"])
