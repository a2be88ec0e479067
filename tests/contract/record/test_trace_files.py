"""Traces as files: saved, listed, loaded, and strangers' files refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def files(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import folder_paths

    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return pack("comfy_revelio.host.record.trace_files")


@pytest.fixture
def trace(pack: Any, mini: SimpleNamespace, sae: Any, sample: Any) -> Any:
    model, recorder = pack("comfy_revelio.host.record.features").record(mini.model, sae())
    return recorder.trace_of(sample(model, steps=2, size=(8, 12)))


def test_a_trace_is_saved_listed_and_loaded(files: Any, trace: Any, tmp_path: Path) -> None:
    names = [files.save(trace, "runs/portrait") for _ in range(2)]
    assert names == ["runs/portrait_00001_.safetensors [output]", "runs/portrait_00002_.safetensors [output]"]
    (tmp_path / "output" / "runs" / "portrait_00001_.safetensors").rename(
        tmp_path / "input" / "given.safetensors"
    )
    os.utime(tmp_path / "input" / "given.safetensors", (1, 1))
    assert files.listing() == [names[1], "given.safetensors [input]"]
    for name in files.listing():
        assert files.check(name) is None
        loaded = files.load(name)
        assert loaded.sigmas == trace.sigmas
        for a, b in zip(loaded.frames, trace.frames, strict=True):
            assert torch.equal(a.codes.values, b.codes.values)
            assert torch.equal(a.codes.indices, b.codes.indices)


def test_only_traces_are_listed_and_loaded(files: Any, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "output" / "model.safetensors")
    (tmp_path / "input" / "junk.safetensors").write_bytes(b"\x80\x04junk")
    assert files.listing() == []
    for name in ("model.safetensors [output]", "junk.safetensors [input]"):
        assert files.check(name).endswith(".")
        with pytest.raises(ValueError, match=r"(is not a trace|not a complete)"):
            files.load(name)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors [output]",
        "/etc/hosts [input]",
        "a/../../secret.safetensors [input]",
        "",
        "nothing",
    ],
)
def test_names_from_strangers_stay_in_the_folders(files: Any, tmp_path: Path, trace: Any, name: str) -> None:
    trace.save(tmp_path / "secret.safetensors")
    assert files.check(name) is not None
    assert files.fingerprint(name) == "missing"
    with pytest.raises(ValueError, match=r"(outside ComfyUI's folders|There is no trace)"):
        files.load(name)


@pytest.mark.parametrize("prefix", ["../run", "/tmp/run", "a/../../run", "", "runs/"])
def test_nothing_is_saved_elsewhere(files: Any, trace: Any, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"(outside ComfyUI's folders|does not name a file)"):
        files.save(trace, prefix)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_fingerprint_follows_the_file(files: Any, trace: Any, tmp_path: Path) -> None:
    name = files.save(trace, "run")
    before = files.fingerprint(name)
    os.utime(tmp_path / "output" / "run_00001_.safetensors", (5, 5))
    assert before != files.fingerprint(name) != "missing"


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b"], ids=["empty", "too long", "null"])
def test_a_name_that_no_trace_can_have(files: Any, name: str) -> None:
    sentence = files.check(name)
    assert sentence.startswith("There is no trace") and len(sentence) < 400
    assert files.fingerprint(name) == "missing"
