"""Saved traces come back exactly; broken ones are refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from comfy_revelio import RevelioError, Trace
from comfy_revelio.trace import Frame, RunRecorder


def _assert_same(one: Trace, two: Trace) -> None:
    assert (one.total_steps, one.sigmas, len(one.frames)) == (two.total_steps, two.sigmas, len(two.frames))
    assert one.words == two.words
    for a, b in zip(one.frames, two.frames, strict=True):
        for name in ("hook_point", "step", "evaluation", "sigma", "timestep", "role", "grid"):
            assert getattr(a, name) == getattr(b, name)
        assert a.codes.n_features == b.codes.n_features
        assert a.codes.indices.dtype == b.codes.indices.dtype == torch.int64
        assert torch.equal(a.codes.indices, b.codes.indices)
        assert torch.equal(a.codes.values.view(torch.int32), b.codes.values.view(torch.int32))
        for name in ("scale", "shift"):
            kept, read = getattr(a.codes, name), getattr(b.codes, name)
            assert (kept is None and read is None) or torch.equal(kept, read)
    assert list(one.dictionaries) == list(two.dictionaries)
    for a, b in zip(one.dictionaries.values(), two.dictionaries.values(), strict=True):
        assert (a.n_features, a.k, a.labels) == (b.n_features, b.k, b.labels)
        assert (a.mean_active is None) == (b.mean_active is None)
        assert a.mean_active is None or torch.equal(a.mean_active, b.mean_active)


def test_a_trace_comes_back_exactly(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "run.safetensors")
    _assert_same(trace, Trace.load(tmp_path / "run.safetensors"))


def test_even_a_run_gone_wrong_can_be_kept(trace: Trace, tmp_path: Path) -> None:
    values = trace.frames[0].codes.values
    values[0, 0], values[0, 1] = float("nan"), float("inf")
    trace.save(tmp_path / "run.safetensors")
    _assert_same(trace, Trace.load(tmp_path / "run.safetensors"))


@pytest.mark.parametrize("normalise", ["layernorm", "rms"])
def test_activations_come_back_in_their_own_size(make_dictionary, tmp_path: Path, normalise: str) -> None:
    """Of a dictionary that normalises, what was recorded decodes to what was seen, after reading too."""
    sae = make_dictionary(k=40, normalise=normalise)
    recorder, x = RunRecorder(1, (1.0, 0.0)), 30 * torch.randn(2, 6, 12) + 100
    recorder.add(Frame("m", 0, 0, 1.0, 1.0, "cond", (2, 3), sae.encode(x)))
    recorder.add(Frame("m", 0, 0, 1.0, 1.0, "uncond", (2, 3), sae.encode(-x)))
    trace = recorder.finish({"m": sae})
    trace.save(tmp_path / "run.safetensors")
    read = Trace.load(tmp_path / "run.safetensors")
    _assert_same(trace, read)
    for run in (trace, read):
        assert torch.equal(sae.decode(run.frames[0].codes), sae(x))
        assert torch.equal(sae.decode(run.frames[1].codes[1]), sae(-x)[1])
    assert (
        trace.nbytes == read.nbytes == 2 * (2 * 6 * 40 * 12 + 2 * 6 * (8 if normalise == "layernorm" else 4))
    )


def test_the_words_of_a_prompt_come_back(trace: Trace, tmp_path: Path) -> None:
    frames = tuple(frame for frame in trace.frames if frame.grid == (3, 5))
    notes = {"middle_block.1": trace.dictionaries["middle_block.1"]}
    of_prompt = Trace(frames, notes, 1, (), tuple(f"wörd {n}" for n in range(15)))
    of_prompt.save(tmp_path / "prompt.safetensors")
    _assert_same(of_prompt, Trace.load(tmp_path / "prompt.safetensors"))


def test_an_empty_trace_comes_back(tmp_path: Path) -> None:
    Trace((), {}, 7, (1.0, 0.0)).save(tmp_path / "run.safetensors")
    loaded = Trace.load(tmp_path / "run.safetensors")
    assert (loaded.frames, dict(loaded.dictionaries), loaded.total_steps) == ((), {}, 7)


def _frame(name, value):
    return lambda tensors, table: table["frames"][3].__setitem__(name, value)


def _note(name, value):
    return lambda tensors, table: table["dictionaries"][0].__setitem__(name, value)


def _table(name, value):
    return lambda tensors, table: table.__setitem__(name, value)


def _tensor(name, change):
    return lambda tensors, table: tensors.__setitem__(name, change(tensors[name]))


def _no_picture(tensors, table):
    for name in ("frame.0.indices", "frame.0.values"):
        tensors[name] = tensors[name][:0].clone()


FAULTS = {
    "a tensor is missing": lambda tensors, table: tensors.pop("frame.3.values"),
    "a tensor too many": lambda tensors, table: tensors.__setitem__("surprise", torch.zeros(1)),
    "frames missing": lambda tensors, table: table.pop("frames"),
    "frames no list": _table("frames", {}),
    "frames of numbers": _table("frames", [1, 2]),
    "frames cut": lambda tensors, table: table["frames"].pop(),
    "sigmas of text": _table("sigmas", ["a"]),
    "sigmas too large": _table("sigmas", [10**400]),
    "negative steps": _table("total_steps", -1),
    "notes missing": _table("dictionaries", []),
    "notes of text": _table("dictionaries", ["x", "y"]),
    "grid": _frame("grid", [5, 5]),
    "grid of one": _frame("grid", [15]),
    "grid huge": _frame("grid", [2**40, 2**40]),
    "step of text": _frame("step", "1"),
    "step true": _frame("step", True),
    "role missing": lambda tensors, table: table["frames"][3].pop("role"),
    "hook point unknown": _frame("hook_point", "elsewhere"),
    "sigma null": _frame("sigma", None),
    "k zero": _note("k", 0),
    "k of another": _note("k", 4),
    "fewer features": _note("n_features", 20),
    "labels no table": _note("labels", [1]),
    "features without end": _note("n_features", 2**31 - 1),
    "words of numbers": _table("words", [1, 2]),
    "words that cover nothing": _table("words", ["a", "portrait"]),
    "no picture": _no_picture,
    "label out of range": _note("labels", {"hat": [40]}),
    "index negative": _tensor("frame.0.indices", lambda t: t - 1),
    "index too large": _tensor("frame.0.indices", lambda t: t + 40),
    "indices of floats": _tensor("frame.0.indices", lambda t: t.float()),
    "values of halves": _tensor("frame.0.values", lambda t: t.half()),
    "values cut": _tensor("frame.0.values", lambda t: t[:1].clone()),
    "a shift alone": lambda tensors, table: tensors.__setitem__("frame.0.shift", torch.zeros(2, 14)),
    "scales of halves": lambda tensors, table: tensors.__setitem__(
        "frame.0.scale", torch.ones(2, 15, dtype=torch.float16)
    ),
    "aliases of numbers": _note("aliases", [1]),
    "means cut": _tensor("note.0.mean_active", lambda t: t[:7].clone()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_traces_are_refused(trace: Trace, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "run.safetensors"
    trace.save(path)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    tensors, table = load_file(path), json.loads(metadata["trace"])
    FAULTS[fault](tensors, table)
    save_file(tensors, path, {**metadata, "trace": json.dumps(table)})
    with pytest.raises(RevelioError, match=r"run\.safetensors") as caught:
        Trace.load(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_no_traces(make_dictionary, tmp_path: Path) -> None:
    from comfy_revelio import save_dictionary

    path = tmp_path / "sae.safetensors"
    save_dictionary(make_dictionary(), path)
    with pytest.raises(RevelioError, match="is not a trace"):
        Trace.load(path)
    save_file({}, path, {"format": "revelio-trace", "format_version": "9"})
    with pytest.raises(RevelioError, match="update"):
        Trace.load(path)
    path.write_bytes(b"")
    with pytest.raises(RevelioError, match="not a complete"):
        Trace.load(path)
