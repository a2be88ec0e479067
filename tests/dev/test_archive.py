"""What the registry's archive holds: all that ComfyUI needs, and nothing that only developers need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "LICENSE",
    "README.md",
    "__init__.py",
    "comfy_revelio",
    "locales",
    "nodes",
    "pyproject.toml",
    "requirements.txt",
    "sae_weights",
    "web",
    "workflows",
}


def tracked() -> list[str]:
    """The files that git knows, of which the archive is made."""
    command = ["git", "-C", str(ROOT), "ls-files"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def left_out() -> list[str]:
    """The patterns of .comfyignore, each from the top: others could hit anywhere."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert all(pattern.startswith("/") for pattern in patterns)
    return [pattern.strip("/") for pattern in patterns]


def test_everything_at_the_top_is_shipped_or_left_out() -> None:
    top = {file.partition("/")[0] for file in tracked()}
    assert top - SHIPPED == set(left_out()) & top
    assert not SHIPPED & set(left_out())


def test_the_mark_of_a_typed_package_is_shipped() -> None:
    assert "comfy_revelio/py.typed" in tracked()


def test_the_citation_has_the_version_of_the_package() -> None:
    found = [
        re.search(r'^version(?: =|:) "?([\d.]+)"?$', (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        for name in ("pyproject.toml", "CITATION.cff")
    ]
    assert found[0] is not None and found[1] is not None
    assert found[0][1] == found[1][1]
