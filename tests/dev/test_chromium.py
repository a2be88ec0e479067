"""Finding a Chromium for the browser tests, or installing one where that is simple."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools import chromium
from devtools.problem import Problem


def test_one_on_the_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "chromium-browser"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.ensure_chromium() == program


def test_debian_as_root_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    installed = Path("/usr/bin/chromium")
    monkeypatch.setattr(chromium, "find_chromium", lambda: installed if len(commands) == 2 else None)
    monkeypatch.setattr(chromium, "_may_use_apt", lambda: True)
    monkeypatch.setattr(chromium, "install", lambda title, command, log, **_: commands.append(command))
    assert chromium.ensure_chromium() == installed
    assert commands == [["apt-get", "update"], ["apt-get", "install", "-y", "chromium"]]


def test_elsewhere_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "find_chromium", lambda: None)
    monkeypatch.setattr(chromium, "_may_use_apt", lambda: False)
    with pytest.raises(Problem, match="need Chromium or Chrome on the PATH: install one"):
        chromium.ensure_chromium()
