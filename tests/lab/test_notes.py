"""An evaluation that was stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_revelio.host.mini import config
from lab.evaluate.notes import Notes


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "evaluation.json.partial"
    assert Notes(file).once("hat", lambda: {"rate": 0.5}) == {"rate": 0.5}
    again = Notes(file)
    assert again.once("hat", lambda: pytest.fail("measured twice")) == {"rate": 0.5}
    assert again.once("beard", lambda: 1) == 1
    assert Notes(file).found == {"hat": {"rate": 0.5}, "beard": 1}


def test_notes_of_other_weights_and_broken_ones_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "evaluation.json.partial"
    (tmp_path / "weights" / "mini").mkdir(parents=True)
    weights = tmp_path / "weights" / "sae.safetensors"
    weights.write_bytes(b"one")
    monkeypatch.setattr(config, "WEIGHTS_DIR", tmp_path / "weights" / "mini")
    Notes(file).once("hat", lambda: 1)
    assert Notes(file).found == {"hat": 1}
    weights.write_bytes(b"two")
    assert Notes(file).found == {}
    for text in ("{", "[]", '{"of": 3}'):
        file.write_text(text)
        assert Notes(file).found == {}


def test_without_a_file_they_stay_in_memory() -> None:
    notes = Notes()
    assert [notes.once("hat", lambda: 1), notes.once("hat", lambda: 2)] == [1, 1]
